"""Looking at runs; everything is done from a workdir, and nothing is trained. `load_run` is where questions begin."""

from stag_jax.analysis.loaded import LoadedRun, Model, load_run, require_clips

__all__ = ["LoadedRun", "Model", "load_run", "require_clips"]
