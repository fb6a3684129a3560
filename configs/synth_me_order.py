"""The order experiment: only which of brows and lips moves first tells the classes; leave one subject out.

python experiments/train.py --config=configs/synth_me_order.py --workdir=runs/order
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Settings of this study."""
    config = base.get_config()
    config.data.dataset = "synth_me/order"
    config.data.classes = ("brows_first", "lips_first")
    config.train.steps = 180
    return config
