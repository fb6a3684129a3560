"""The order experiment: only which of brows and lips moves first tells the classes; leave one subject out.

python experiments/train.py --config=configs/synth_me_order.py --workdir=runs/order
"""

from stag_configs import base

CHANGES = {
    "data.dataset": "synth_me/order",
    "data.classes": ("brows_first", "lips_first"),
    "train.steps": 180,
}


def get_config() -> "ConfigDict":
    """Settings of this study."""
    return base.config_dict(CHANGES)
