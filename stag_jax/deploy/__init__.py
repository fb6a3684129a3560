"""From a finished workdir, or an exported network, to predictions on new video."""

from typing import Any

__all__ = ["load_export"]


def __getattr__(name: str) -> Any:
    # Looked up when it is asked for, so that importing the package imports nothing.
    if name == "load_export":
        from stag_jax.deploy.artefact import load_export

        return load_export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
