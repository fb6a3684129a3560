"""Write tables of held-out predictions, score them, and summarise a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stag_jax.config import Config
from stag_jax.corpora import dataset
from stag_jax.protocol import metrics as metrics_lib
from stag_jax.protocol import splits as splits_lib
from stag_jax.training import workdir

UNTESTED = (
    'nothing was tested (config.protocol.split="all"): what these networks are worth is what the same settings reach '
    'under config.protocol.split="loso"'
)


def score(
    config: Config,
    folder: Path,
    corpus: dataset.Corpus,
    splits: splits_lib.Splits,
    probability: Float[np.ndarray, "seed b k"],
    au_probability: Float[np.ndarray, "seed b u"],
) -> dict[str, Any]:
    """Write the tables of held-out predictions, and return their scores.

    Probabilities are those of the fold that tests a clip; those of untested clips are ignored. If no clip is tested, no
    tables are written, and the result says so.

    Raises:
      ValueError: a tested clip has no prediction.
    """
    tested = np.asarray(splits.test_mask.any(axis=0))
    subjects = corpus.subjects
    if not tested.any():
        return {
            "n_clips": 0,
            "note": UNTESTED,
            "n_trained": len(subjects),
            "classes": list(config.data.classes),
            "n_subjects": len(set(subjects)),
            "n_folds": len(splits.names),
        }
    corpus, probability = corpus.take(tested), probability[:, tested]
    if np.isnan(probability).any():
        raise ValueError("a clip was predicted by no fold")
    classes, label = config.data.classes, corpus.batch.label
    workdir.write_predictions(folder, corpus, classes, config.seeds, probability)
    by_seed = probability.argmax(axis=-1)
    clips = metrics_lib.EvaluationSet(label, corpus.subjects, len(classes), config.protocol.bootstrap)
    ensemble = probability.mean(axis=0).argmax(axis=-1)
    result = metrics_lib.report(clips, ensemble, by_seed, corpus.datasets, classes)
    if len(config.seeds) > 1:
        scores = (metrics_lib.mean_scores(label, predicted, len(classes)) for predicted in by_seed)
        result["per_seed"] = dict(zip(map(str, config.seeds), scores, strict=True))
    if corpus.batch.au_mask.any():
        au = au_probability[:, tested].mean(axis=0)
        workdir.write_au_predictions(folder, corpus, au)
        result["au"] = metrics_lib.unit_report(corpus.batch.au, corpus.batch.au_mask, au, corpus.graph.units)
    result |= independence(splits, subjects)
    return result | {"n_subjects": len(set(subjects)), "n_folds": len(splits.names)}


def independence(splits: splits_lib.Splits, subjects: Sequence[str]) -> dict[str, Any]:
    """Return whether training and test subjects are disjoint in all folds; if not, count the shared ones by fold."""
    shared = splits_lib.shared_subjects(splits, subjects)
    if not any(shared):
        return {"subject_independent": True}
    return {"subject_independent": False, "shared_subjects": dict(zip(splits.names, map(len, shared), strict=True))}


def summary(result: dict[str, Any]) -> str:
    """Format the short table at the end of a run: scores of the ensemble of seeds and, for several seeds, their mean.

    If nothing was tested, return a line that says so.
    """
    if not result["n_clips"]:
        return f"trained on {result['n_trained']} clips of {result['n_subjects']} subjects; {result['note']}"
    rows = [f"{'':12}{'UF1':>8}{'UAR':>8}{'accuracy':>10}{'clips':>8}"]
    parts = {"all": result, **result["per_dataset"]}
    if len(result["per_dataset"]) == 1:
        del parts[next(iter(result["per_dataset"]))]
    for name, part in parts.items():
        rows.append(f"{name:12}{part['uf1']:8.3f}{part['uar']:8.3f}{part['accuracy']:10.3f}{part['n_clips']:8d}")
    low, high = result["ci95"]["uf1"]
    interval = f"UF1 95% interval over subjects: {low:.3f} to {high:.3f}"
    if "per_seed" in result:
        mean = result["mean_over_seeds"]
        uf1, uar, accuracy = (mean[name]["mean"] for name in ("uf1", "uar", "accuracy"))
        rows.insert(2, f"{'seed mean':12}{uf1:8.3f}{uar:8.3f}{accuracy:10.3f}{result['n_clips']:8d}")
        low, high = mean["uf1"]["ci95"]
        interval += f"; of the mean over {len(result['per_seed'])} seeds: {low:.3f} to {high:.3f}"
    rows.append(interval)
    if not result["subject_independent"]:
        most = max(result["shared_subjects"].values())
        rows.append(f"NOT subject-independent: up to {most} of {result['n_subjects']} subjects on both sides of a fold")
    if "au" in result and result["au"]["mean_f1"] is not None:
        scored = [unit for unit in result["au"]["per_unit"].values() if unit["f1"] is not None]
        rows.append(f"mean F1 of {len(scored)} action units: {result['au']['mean_f1']:.3f}")
    rows.append(f"confusion (rows true, {', '.join(result['classes'])}): {json.dumps(result['confusion'])}")
    return "\n".join(rows)
