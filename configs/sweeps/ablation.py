"""STAG with one block switched off at a time, and the baseline models; on the named corpus.

    python experiments/sweep.py --config=configs/sweeps/ablation.py:synth_me --workdir=runs/ablation

The name after the colon is that of a study in configs/: synth_me, synth_me_order or composite_flow. Every trial has the
folds and seeds of the first, "full", and is compared with it.
"""

from ml_collections import ConfigDict

from stag_configs import composite_flow, synth_me, synth_me_order
from stag_configs.sweeps import settings_of

STUDIES = {"synth_me": synth_me, "synth_me_order": synth_me_order, "composite_flow": composite_flow}

TRIALS = {
    "full": {},
    "no_au_guidance": {"model": {"au_guidance": False}},
    "static_connectivity": {"model": {"dynamic": False}},
    "no_graph_attention": {"model": {"gat_layers": 0}},
    "no_time_edges": {"model": {"window": 0}},
    "no_transformer": {"model": {"transformer_layers": 0}},
    "no_cross_to_space": {"model": {"cross_to_space": False}},
    "no_cross_to_time": {"model": {"cross_to_time": False}},
    "mean_over_frames": {"model": {"temporal_attention": False}},
    "uniform_selection": {"motion": {"selection": "uniform"}},
    "cross_entropy": {"loss": {"gamma": 0.0}},
    "no_strain": {"model": {"strain": False}},
    "no_mixup": {"augment": {"mixup": 0.0}},
    "one_side": {"model": {"symmetric": False}},
    "apex_only": {"model": {"name": "apex_only"}},
    "two_stream": {"model": {"name": "two_stream"}},
}
# Without meaning where a clip is one flow image: it has no time axis.
IN_TIME = ("no_time_edges", "mean_over_frames", "uniform_selection", "apex_only", "two_stream")


def get_config(corpus: str = "synth_me") -> ConfigDict:
    """Return `settings`, those of the first trial, and `trials`, ordered pairs of a name and its changes."""
    settings = settings_of(STUDIES, corpus)
    settings.seeds = (0, 1, 2)
    skipped = set(IN_TIME) if settings.graph.kind == "grid" else set()
    if not settings.augment.mixup:
        skipped.add("no_mixup")
    trials = tuple((name, changes) for name, changes in TRIALS.items() if name not in skipped)
    return ConfigDict({"settings": settings, "trials": trials, "export_all": True})
