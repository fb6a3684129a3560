"""SAMM, five classes, leave one subject out.

    python experiments/train.py --config=configs/samm_5class.py --workdir=runs/samm_5class --config.data.manual_dir=DIR

Expected: 136 clips of 27 subjects (anger 57, contempt 12, happiness 26, other 26, surprise 15). 27 folds.
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "samm"
    config.data.labels = "5class"
    config.data.classes = ("anger", "contempt", "happiness", "other", "surprise")
    config.train.steps = 300
    return config
