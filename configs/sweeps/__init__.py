"""Studies of several settings at once, for experiments/sweep.py."""

from ml_collections import ConfigDict


def settings_of(studies: dict, name: str) -> ConfigDict:
    """Return the settings of a study by its name. Raises ValueError if it is none of `studies`."""
    if name not in studies:
        raise ValueError(f"no study {name!r}; there are: {', '.join(studies)}")
    return studies[name].get_config()
