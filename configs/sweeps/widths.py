"""A grid over the size of the network and its learning rate, chosen on inner subjects; on the named corpus.

    python experiments/sweep.py --config=configs/sweeps/widths.py:composite_flow --workdir=runs/widths

Widths and layers are compiled into a program, learning rates are not: four programs of two trials each.
"""

from ml_collections import ConfigDict

from stag_configs.sweeps import settings_of
from stag_configs.sweeps.recipe import STUDIES

SPACE = (
    ("model.width", "choice", 32, 64),
    ("model.gat_layers", "choice", 1, 2),
    ("train.learning_rate", "choice", 1e-3, 2e-3),
)


def get_config(study: str = "composite_flow") -> ConfigDict:
    """Return `settings`, `space`, how to search it, and on how many inner folds the trials are compared."""
    settings = settings_of(STUDIES, study)
    return ConfigDict({"settings": settings, "space": SPACE, "search": "grid", "inner_folds": 3, "select": "uf1"})
