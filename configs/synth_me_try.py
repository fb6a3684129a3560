"""The small network that predict.py takes where it is given none: trained on everybody, taught by a finished run.

python experiments/train.py --config=configs/synth_me_spotting.py --workdir=runs/spotting
python experiments/train.py --config=configs/synth_me_try.py --workdir=runs/try
python experiments/export.py --workdir=runs/try --out=runs/try

It tests nobody: --config.protocol.split=loso says what such a network is worth.
"""

from ml_collections import ConfigDict

from stag_configs import synth_me_spotting


def get_config() -> ConfigDict:
    """Settings of this network."""
    config = synth_me_spotting.get_config()
    config.model.update({"width": 16, "gat_layers": 1})
    config.distil.teacher = "runs/spotting"
    config.protocol.split = "all"
    return config
