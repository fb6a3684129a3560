"""The MEGC2019 composite from recordings, leave one of its 68 subjects out, results per corpus.

    python experiments/train.py --config=configs/megc2019.py --workdir=runs/megc2019 --config.data.manual_dir=DIR

DIR holds folders (or links) casme2, samm and smic. Expected: 442 clips of 68 subjects (negative 250, positive 109,
surprise 83); other counts are an error. 68 folds.
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "megc2019"
    config.train.steps = 300
    return config
