"""Analysis of runs from their workdirs; nothing is trained. Start with `load_run`."""

from stag_jax.analysis.loaded import LoadedModel, LoadedRun, load_run, require_clips

__all__ = ["LoadedModel", "LoadedRun", "load_run", "require_clips"]
