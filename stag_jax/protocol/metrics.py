"""How predictions are scored: once, on the pooled out-of-fold predictions of all subjects (MEGC2019 rules).

For each class TP, FP and FN are summed over all folds; UF1 is the mean of the classes' F1, UAR of their recalls.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

CONFIDENCE = 0.95


def confusion_matrix(
    label: Int[np.ndarray, " b"], prediction: Int[np.ndarray, " b"], classes: int
) -> Int[np.ndarray, "k k2"]:
    """Clips by true class (rows) and predicted class (columns)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (label, prediction), 1)
    return matrix


def scores(confusion: Int[np.ndarray, "*any k k2"]) -> dict[str, Float[np.ndarray, "*any"]]:
    """uf1, uar, accuracy and weighted_f1 of one confusion matrix or a stack of them.

    A class without any clip is left out of the means: it was not there to be recognised.
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    present = true > 0
    classes = np.maximum(present.sum(axis=-1), 1)
    f1 = np.divide(2 * hit, true + predicted, out=np.zeros_like(hit), where=true + predicted > 0)
    recall = np.divide(hit, true, out=np.zeros_like(hit), where=present)
    clips = np.maximum(true.sum(axis=-1), 1)
    found = {
        "uf1": (f1 * present).sum(axis=-1) / classes,
        "uar": recall.sum(axis=-1) / classes,
        "accuracy": hit.sum(axis=-1) / clips,
        "weighted_f1": (f1 * true).sum(axis=-1) / clips,
    }
    return {name: np.asarray(value) for name, value in found.items()}


def subject_bootstrap(
    label: Int[np.ndarray, " b"],
    prediction: Int[np.ndarray, " b"],
    subjects: Sequence[str],
    classes: int,
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, list[float]]:
    """95% percentile interval [low, high] of each score under resampling of subjects with replacement.

    Subjects and not clips are drawn, since the clips of one person are not independent.
    """
    names, index = np.unique(np.asarray(subjects), return_inverse=True)
    each = np.zeros((len(names), classes, classes), np.int64)
    np.add.at(each, (index, label, prediction), 1)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
    tail = (1 - CONFIDENCE) / 2
    intervals = {}
    for name, values in scores(np.einsum("rs,skl->rkl", draws, each)).items():
        low, high = np.quantile(values, (tail, 1 - tail))
        intervals[name] = [float(low), float(high)]
    return intervals


def report(
    label: Int[np.ndarray, " b"],
    prediction: Int[np.ndarray, " b"],
    subjects: Sequence[str],
    datasets: Sequence[str],
    classes: Sequence[str],
    *,
    resamples: int,
) -> dict[str, object]:
    """Everything that metrics.json says of the predictions: pooled, with intervals, and per dataset."""
    pooled = confusion_matrix(label, prediction, len(classes))
    result: dict[str, object] = {name: float(value) for name, value in scores(pooled).items()}
    result["ci95"] = subject_bootstrap(label, prediction, subjects, len(classes), resamples=resamples)
    result["classes"] = list(classes)
    result["confusion"] = pooled.tolist()
    per_dataset = {}
    for name in sorted(set(datasets)):
        chosen = np.asarray(datasets) == name
        part = confusion_matrix(label[chosen], prediction[chosen], len(classes))
        per_dataset[name] = {key: float(value) for key, value in scores(part).items()}
        per_dataset[name] |= {"n_clips": int(chosen.sum()), "confusion": part.tolist()}
    result["per_dataset"] = per_dataset
    return result
