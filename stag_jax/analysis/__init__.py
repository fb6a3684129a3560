"""Looking at runs; everything is done from a workdir, and nothing is trained. `load_run` is where questions begin."""

from stag_jax.analysis.loaded import LoadedModel, LoadedRun, load_run, require_clips

__all__ = ["LoadedModel", "LoadedRun", "load_run", "require_clips"]
