"""From a finished workdir to predictions on new video."""
