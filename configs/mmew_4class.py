"""MMEW, happiness, surprise, disgust and others, leave one subject out.

    python experiments/train.py --config=configs/mmew_4class.py --workdir=runs/mmew_4class --config.data.manual_dir=DIR

Expected: 263 clips of at most 30 subjects (surprise 89, disgust 72, others 66, happiness 36).
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "mmew"
    config.data.labels = "7class"
    config.data.classes = ("happiness", "surprise", "disgust", "others")
    config.train.steps = 300
    return config
