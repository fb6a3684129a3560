"""CAS(ME)3 part A, four classes, leave one subject out.

    python experiments/train.py --config=configs/casme3_4class.py --workdir=runs/four --config.data.manual_dir=DIR

Expected: 860 clips of 94 subjects (negative 457, positive 55, surprise 187, others 161). A few have no valid
offset in the sheet: prepare.py --check lists them, prepare.py --skip_damaged leaves them out.
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "casme3/part_a"
    config.data.labels = "4class"
    config.data.classes = ("negative", "positive", "surprise", "others")
    config.train.steps = 300
    return config
