"""Trained on CASME II, tested on SAMM, and vice versa; three classes, the same twelve action units.

    python experiments/train.py --config=configs/cross_casme2_samm.py --workdir=runs/cross --config.data.manual_dir=DIR

DIR holds folders (or links) casme2 and samm. Expected: 150 clips (sheet of 2019) and 133. Any corpora may be joined by
"+"; --config.protocol.test="('samm',)" tests only one.
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "casme2+samm"
    config.data.labels = "3class"
    config.train.steps = 300
    config.protocol.split = "dataset"
    return config
