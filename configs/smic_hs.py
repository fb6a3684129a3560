"""SMIC-HS, its three classes, leave one subject out. No action units, no apex.

    python experiments/train.py --config=configs/smic_hs.py --workdir=runs/smic_hs --config.data.manual_dir=DIR

Expected: 164 clips of 16 subjects (negative 70, positive 51, surprise 43). 16 folds.
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "smic/hs"
    config.train.steps = 300
    return config
