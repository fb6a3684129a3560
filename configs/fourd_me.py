"""4DME, five classes, only clips with a single class, leave one subject out.

    python experiments/train.py --config=configs/fourd_me.py --workdir=runs/fourd_me --config.data.manual_dir=DIR

Clips with several emotions are left out; their number is printed.
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "fourd_me"
    config.data.classes = ("negative", "positive", "repression", "surprise", "others")
    config.train.steps = 300
    return config
