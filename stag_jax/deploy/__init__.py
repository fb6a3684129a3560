"""Predict on new video with a finished workdir or an exported network."""

from pathlib import Path
from typing import Any

__all__ = ["TO_TRY", "load_export"]

TO_TRY = Path(__file__).with_name("synth_me.stag")  # trained on rendered faces alone: docs/MODEL_CARD.md


def __getattr__(name: str) -> Any:
    # Imported on first access, so that importing the package imports nothing.
    if name == "load_export":
        from stag_jax.deploy.artefact import load_export

        return load_export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
