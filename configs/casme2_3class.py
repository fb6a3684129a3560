"""CASME II, three classes (disgust and repression as negative), leave one subject out.

    python experiments/train.py --config=configs/casme2_3class.py --workdir=runs/three --config.data.manual_dir=DIR

Expected: 150 clips with the sheet of 2019 (negative 90, positive 32, surprise 28), 147 with that of 2014 (surprise 25).
Not the CASME II of the composite, which has 145: see configs/megc2019.py.
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Return the settings of this study."""
    config = base.get_config()
    config.data.dataset = "casme2"
    config.data.labels = "3class"
    config.train.steps = 300
    return config
