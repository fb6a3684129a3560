"""Your own corpus, from one table: datasets/manifest/README.md says what it holds.

    python experiments/train.py --config=configs/manifest.py --workdir=runs/manifest --config.data.manual_dir=DIR

Name your classes with --config.data.classes="('a','b')".
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "manifest"
    config.train.steps = 300
    return config
