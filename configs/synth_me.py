"""The built-in corpus of rendered clips; three classes, leave one subject out.

python experiments/train.py --config=configs/synth_me.py --workdir=runs/synth_me
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.train.steps = 300
    return config
