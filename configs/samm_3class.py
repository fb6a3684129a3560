"""SAMM, three classes, leave one subject out.

    python experiments/train.py --config=configs/samm_3class.py --workdir=runs/samm_3class --config.data.manual_dir=DIR

Expected: 133 clips of 28 subjects (negative 92, positive 26, surprise 15): all that are not "other". 28 folds.
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "samm"
    config.data.labels = "3class"
    config.train.steps = 300
    return config
