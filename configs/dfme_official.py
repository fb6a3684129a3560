"""DFME, seven classes, trained on train, tested on testA and on testB (CCAC2024).

    python experiments/train.py --config=configs/dfme_official.py --workdir=runs/dfme --config.data.manual_dir=DIR

Expected: 1856 clips of 176 subjects to train on, 474 of 42 and 299 of 41 to test. Needs the labels of the test sets.
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
    config.protocol.split = "part"
    config.protocol.test = ("testA", "testB")
    return config
