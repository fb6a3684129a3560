"""Spotting and recognition in one network: windows of long rendered recordings, with a class for those without any.

python experiments/train.py --config=configs/synth_me_spotting.py --workdir=runs/spotting
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Settings of this study."""
    config = base.get_config()
    config.data.dataset = "synth_me/spotting"
    # A network that has the class "none" is one that spots: see stag_jax/corpora/windows.py.
    config.data.classes = ("none", "negative", "positive", "surprise")
    return config
