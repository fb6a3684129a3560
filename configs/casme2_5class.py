"""CASME II, five classes, leave one subject out.

    python experiments/train.py --config=configs/casme2_5class.py --workdir=runs/five --config.data.manual_dir=DIR

Expected: 249 clips of 26 subjects with the sheet of 2019 (disgust 63, happiness 32, others 99, repression 27, surprise
28), 246 with that of 2014 (surprise 25). 26 folds.
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "casme2"
    config.data.labels = "5class"
    config.data.classes = ("disgust", "happiness", "others", "repression", "surprise")
    config.train.steps = 300
    return config
