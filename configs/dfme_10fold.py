"""DFME, seven classes, ten folds of subjects, stratified by class.

    python experiments/train.py --config=configs/dfme_10fold.py --workdir=runs/dfme_10fold --config.data.manual_dir=DIR

Expected: as many clips as DIR holds (7526 in all); no subject is in two folds.
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "dfme"
    config.data.labels = "7class"
    config.data.classes = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
    config.train.steps = 1000
    config.protocol.split = "stratified_group"
    config.protocol.folds = 10
    return config
