"""The MEGC2019 composite as onset-to-apex flow images; three classes, leave one subject out.

    python experiments/train.py --config=configs/composite_flow.py --config.data.manual_dir=DIR --workdir=runs/composite

SMIC-HS and CASME II alone: 309 clips, 40 subjects. Complete with SAMM: 442 clips, 68 subjects.
"""

from ml_collections import ConfigDict

from stag_configs import base


def get_config() -> ConfigDict:
    """Settings of this study."""
    config = base.get_config()
    config.data.dataset = "composite_flow"
    config.graph.kind = "grid"
    config.motion.clip_norm = True
    config.model.width = 64
    config.model.readout_dim = 16
    config.train.steps = 200
    config.augment.mixup = 0.4
    return config
