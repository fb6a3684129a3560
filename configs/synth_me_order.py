"""The order experiment: the classes differ only in whether brows or lips move first; leave one subject out.

python experiments/train.py --config=configs/synth_me_order.py --workdir=runs/order
"""

from stag_configs import base

CHANGES = {
    "data.dataset": "synth_me/order",
    "data.classes": ("brows_first", "lips_first"),
    "train.steps": 180,
}


def get_config() -> "ConfigDict":
    """Return the settings of this study."""
    return base.config_dict(CHANGES)
