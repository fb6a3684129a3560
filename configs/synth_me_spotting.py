"""Spotting and recognition in one network: windows of long rendered recordings, with a class for no expression.

python experiments/train.py --config=configs/synth_me_spotting.py --workdir=runs/spotting
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "synth_me/spotting"
    # A network with the class "none" is trained to spot: see stag_jax/corpora/windows.py.
    config.data.classes = ("none", "negative", "positive", "surprise")
    return config
