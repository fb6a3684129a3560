"""Students of a finished run, of decreasing size, each trained with and without its teacher; on the named corpus.

    python experiments/benchmark.py smaller --config=configs/sweeps/smaller.py --workdir=runs/synth_me --out=DIR

The workdir is that of the teacher, a finished run of the study: synth_me, or the one of STUDIES named after a colon
behind the file. A student with a teacher and the same one without are members of one program. They can also be trained
by experiments/sweep.py, with --config.settings.distil.teacher=DIR.
"""

from ml_collections import ConfigDict

from stag_configs import synth_me, synth_me_order
from stag_configs.sweeps import settings_of

STUDIES = {"synth_me": synth_me, "synth_me_order": synth_me_order}
# Without jaw, lower lids, nose root and nose wings; every action unit of the defaults still has a region.
FEW = (
    *("inner_brow_r", "inner_brow_l", "outer_brow_r", "outer_brow_l", "upper_lid_r", "upper_lid_l", "cheek_r"),
    *("cheek_l", "nasolabial_r", "nasolabial_l", "lip_corner_r", "lip_corner_l", "glabella", "upper_lip"),
    *("lower_lip", "chin"),
)
SHALLOW = {"width": 16, "gat_layers": 1}
SMALL = {"width": 8, "gat_layers": 1, "readout_dim": 4}
STUDENTS = {
    "shallow": {"model": SHALLOW},
    "small": {"model": SMALL},
    "small_few": {"model": SMALL, "motion": {"frames": 4}, "graph": {"nodes": FEW}},
}


def get_config(study: str = "synth_me") -> ConfigDict:
    """Return `settings`, those of the study, and `trials`, every student with and without a teacher."""
    settings = settings_of(STUDIES, study)
    settings.distil.teacher = f"runs/{study}"
    teacher_weight = settings.distil.weight
    trials = tuple(
        (f"{name}{ending}", {**changes, "distil": {"weight": weight}})
        for name, changes in STUDENTS.items()
        for ending, weight in (("_alone", 0.0), ("_taught", teacher_weight))
    )
    return ConfigDict({"settings": settings, "trials": trials, "export_all": True})
