"""A random search of the training recipe: sixteen trials in one program, chosen on inner subjects; on the named corpus.

    python experiments/sweep.py --config=configs/sweeps/recipe.py:composite_flow --workdir=runs/recipe

The name after the colon is one of STUDIES. All settings searched are numbers, so all trials, folds and inner
folds are members of one compiled program.
"""

from ml_collections import ConfigDict

from stag_configs import (
    casme2_3class,
    casme2_5class,
    composite_flow,
    megc2019,
    samm_3class,
    samm_5class,
    smic_hs,
    synth_me,
)
from stag_configs.sweeps import settings_of

STUDIES = {
    "synth_me": synth_me,
    "composite_flow": composite_flow,
    "casme2_3class": casme2_3class,
    "casme2_5class": casme2_5class,
    "samm_3class": samm_3class,
    "samm_5class": samm_5class,
    "smic_hs": smic_hs,
    "megc2019": megc2019,
}
SPACE = (
    ("train.learning_rate", "log_uniform", 3e-4, 1e-2),
    ("train.weight_decay", "log_uniform", 1e-3, 1.0),
    ("model.dropout", "uniform", 0.0, 0.5),
    ("model.edge_dropout", "uniform", 0.0, 0.3),
    ("loss.gamma", "choice", 0.0, 1.0, 2.0),
    ("loss.label_smoothing", "uniform", 0.0, 0.2),
    ("augment.noise", "log_uniform", 0.03, 1.0),
    ("augment.mixup", "uniform", 0.0, 1.0),
)


def get_config(study: str = "composite_flow") -> ConfigDict:
    """Return `settings`, `space`, how to search it, and on how many inner folds the trials are compared."""
    settings = settings_of(STUDIES, study)
    return ConfigDict(
        {
            "settings": settings,
            "space": SPACE,
            "search": "random",
            "count": 16,
            "draw_seed": 0,
            "inner_folds": 3,
            "select": "log_loss",
        }
    )
