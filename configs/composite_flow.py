"""The MEGC2019 composite as onset-to-apex flow images; three classes, leave one subject out.

    python experiments/train.py --config=configs/composite_flow.py --config.data.manual_dir=DIR --workdir=runs/composite

SMIC-HS and CASME II alone: 309 clips, 40 subjects. Complete with SAMM: 442 clips, 68 subjects.
"""

from stag_configs import base

CHANGES = {
    "data.dataset": "composite_flow",
    "graph.kind": "grid",
    "motion.clip_norm": True,
    "model.width": 64,
    "model.readout_dim": 16,
    "train.steps": 200,
    "augment.mixup": 0.4,
}


def get_config() -> "ConfigDict":
    """Return the settings of this study."""
    return base.config_dict(CHANGES)
