"""Scores of predictions: once, on the pooled out-of-fold predictions of all subjects (MEGC2019 rules).

For each class TP, FP and FN are summed over all folds; UF1 is the mean of the classes' F1, UAR of their recalls. If
predictions have a leading axis of seeds, each seed is scored separately and the scores are averaged.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

CONFIDENCE = 0.95
PRESENT = 0.5  # probability from which an action unit counts as predicted; never tuned


class EvaluationSet(NamedTuple):
    """The clips that models are scored on, and how their subjects are resampled for intervals."""

    label: Int[np.ndarray, " b"]
    subjects: Sequence[str]  # one for each clip
    classes: int
    resamples: int
    seed: int = 0

    def take(self, chosen: Bool[np.ndarray, " b"]) -> "EvaluationSet":
        """Select clips by a mask."""
        return self._replace(label=self.label[chosen], subjects=np.asarray(self.subjects)[chosen].tolist())


def confusion_matrix(
    label: Int[np.ndarray, " b"], prediction: Int[np.ndarray, " b"], classes: int
) -> Int[np.ndarray, "k k2"]:
    """Count clips by true class (rows) and predicted class (columns)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (label, prediction), 1)
    return matrix


def scores(confusion: Int[np.ndarray, "*any k k2"]) -> dict[str, Float[np.ndarray, "*any"]]:
    """Compute uf1, uar, accuracy and weighted_f1 of one confusion matrix or a stack of them.

    A class without any clip is left out of the means.
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    present = true > 0
    classes = np.maximum(present.sum(axis=-1), 1)
    f1 = np.divide(2 * hit, true + predicted, out=np.zeros_like(hit), where=true + predicted > 0)
    recall = np.divide(hit, true, out=np.zeros_like(hit), where=present)
    clips = np.maximum(true.sum(axis=-1), 1)
    result = {
        "uf1": (f1 * present).sum(axis=-1) / classes,
        "uar": recall.sum(axis=-1) / classes,
        "accuracy": hit.sum(axis=-1) / clips,
        "weighted_f1": (f1 * true).sum(axis=-1) / clips,
    }
    return {name: np.asarray(value) for name, value in result.items()}


def mean_scores(label: Int[np.ndarray, " b"], prediction: Int[np.ndarray, "*seed b"], classes: int) -> dict[str, float]:
    """Compute the scores of each seed's predictions, averaged over seeds."""
    stack = np.stack([confusion_matrix(label, row, classes) for row in np.atleast_2d(prediction)])
    return {name: float(values.mean()) for name, values in scores(stack).items()}


def resampled_scores(
    clips: EvaluationSet, prediction: Int[np.ndarray, "*seed b"]
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Compute `mean_scores` under resampling of subjects with replacement."""
    subject, draws = resample(clips.subjects, clips.resamples, clips.seed)
    stack = np.einsum("rs,iskl->rikl", draws, by_subject(clips.label, prediction, subject, clips.classes))
    return {name: values.mean(axis=1) for name, values in scores(stack).items()}


def resample(
    subjects: Sequence[str], resamples: int, seed: int = 0
) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, "resample s"]]:
    """Draw subjects: return the subject index of each clip, and how often each subject is in each resample.

    Subjects are drawn and not clips, since the clips of one person are not independent. The draws depend only on the
    number of subjects, `resamples` and `seed`, so all predictions of the same clips get the same draws.
    """
    names, subject = np.unique(np.asarray(subjects), return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
    return subject, draws


def by_subject(
    label: Int[np.ndarray, " b"], prediction: Int[np.ndarray, "*seed b"], subject: Int[np.ndarray, " b"], classes: int
) -> Int[np.ndarray, "seed s k k2"]:
    """Return the confusion matrix of each seed and subject."""
    prediction = np.atleast_2d(prediction)
    matrices = np.zeros((len(prediction), int(subject.max(initial=-1)) + 1, classes, classes), np.int64)
    np.add.at(matrices, (np.arange(len(prediction))[:, None], subject, label, prediction), 1)
    return matrices


def interval(values: Float[np.ndarray, " resample"]) -> list[float]:
    """Return the 95% percentile interval [low, high]."""
    tail = (1 - CONFIDENCE) / 2
    return [float(value) for value in np.quantile(values, (tail, 1 - tail))]


def subject_bootstrap(clips: EvaluationSet, prediction: Int[np.ndarray, "*seed b"]) -> dict[str, list[float]]:
    """Return the 95% interval [low, high] of each of `mean_scores` under resampling of subjects with replacement."""
    return {name: interval(values) for name, values in resampled_scores(clips, prediction).items()}


def report(
    clips: EvaluationSet,
    prediction: Int[np.ndarray, " b"],
    by_seed: Int[np.ndarray, "seed b"],
    datasets: Sequence[str],
    classes: Sequence[str],
) -> dict[str, object]:
    """Return the class scores of metrics.json: pooled and per dataset, with intervals over subjects.

    `prediction` is the ensemble's, used for all scores but `mean_over_seeds`; `by_seed` that of each of its members.
    """

    def part(chosen: Bool[np.ndarray, " b"]) -> dict[str, object]:
        selected, ensemble, members = clips.take(chosen), prediction[chosen], by_seed[:, chosen]
        confusion = confusion_matrix(selected.label, ensemble, selected.classes)
        means = mean_scores(selected.label, members, selected.classes)
        bounds, bounds_of_mean = (subject_bootstrap(selected, predicted) for predicted in (ensemble, members))
        return {
            **{name: float(value) for name, value in scores(confusion).items()},
            "ci95": bounds,
            "mean_over_seeds": {name: {"mean": mean, "ci95": bounds_of_mean[name]} for name, mean in means.items()},
            "confusion": confusion.tolist(),
            "n_clips": int(chosen.sum()),
        }

    parts = {name: np.asarray(datasets) == name for name in sorted(set(datasets))}
    return {
        **part(np.ones(len(clips.label), bool)),
        "classes": list(classes),
        "per_dataset": {name: part(chosen) for name, chosen in parts.items()},
    }


def unit_report(
    label: Float[np.ndarray, "b u"],
    mask: Bool[np.ndarray, "b u"],
    probability: Float[np.ndarray, "b u"],
    units: Sequence[int],
) -> dict[str, object]:
    """Return the action unit scores of metrics.json: F1 at `PRESENT` and average precision of each unit.

    A unit is scored over the clips with a known label (`mask`). If none of them is positive, both its scores are None,
    and it is left out of the mean.
    """
    per_unit = {}
    for index, unit in enumerate(units):
        known = mask[:, index]
        true, predicted = label[known, index] > 0, probability[known, index]
        hit = np.sum(true & (predicted >= PRESENT))
        per_unit[str(unit)] = {
            "f1": float(2 * hit / (true.sum() + np.sum(predicted >= PRESENT))) if true.any() else None,
            "average_precision": average_precision(true, predicted) if true.any() else None,
            "positives": int(true.sum()),
            "clips": int(known.sum()),
        }
    f1_scores = [unit_scores["f1"] for unit_scores in per_unit.values() if unit_scores["f1"] is not None]
    return {"mean_f1": float(np.mean(f1_scores)) if f1_scores else None, "per_unit": per_unit}


def average_precision(label: Bool[np.ndarray, " b"], score: Float[np.ndarray, " b"]) -> float:
    """Return the mean, over positive clips, of the precision among all clips that score at least as high.

    At least one clip must be positive.
    """
    order = np.argsort(-score, kind="stable")
    last_of_ties = np.append(np.diff(score[order]) != 0, True)  # clips of equal score are counted together
    hits, counts = np.cumsum(label[order])[last_of_ties], np.flatnonzero(last_of_ties) + 1
    return float(np.sum(np.diff(hits, prepend=0) * hits / counts) / hits[-1])
