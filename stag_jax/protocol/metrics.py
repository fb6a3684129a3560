"""How predictions are scored: once, on the pooled out-of-fold predictions of all subjects (MEGC2019 rules).

For each class TP, FP and FN are summed over all folds; UF1 is the mean of the classes' F1, UAR of their recalls. A
leading axis of seeds, where predictions have one, is averaged over after scoring: each seed is a study of its own.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

CONFIDENCE = 0.95
PRESENT = 0.5  # probability from which an action unit counts as predicted; never tuned


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


def mean_scores(label: Int[np.ndarray, " b"], prediction: Int[np.ndarray, "*seed b"], classes: int) -> dict[str, float]:
    """Each score of every seed's own predictions, averaged over seeds."""
    stack = np.stack([confusion_matrix(label, each, classes) for each in np.atleast_2d(prediction)])
    return {name: float(values.mean()) for name, values in scores(stack).items()}


def resampled_scores(
    label: Int[np.ndarray, " b"],
    prediction: Int[np.ndarray, "*seed b"],
    subjects: Sequence[str],
    classes: int,
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, Float[np.ndarray, " resample"]]:
    """`mean_scores` under resampling of subjects with replacement."""
    subject, draws = resample(subjects, resamples, seed)
    stack = np.einsum("rs,iskl->rikl", draws, by_subject(label, prediction, subject, classes))
    return {name: values.mean(axis=1) for name, values in scores(stack).items()}


def resample(
    subjects: Sequence[str], resamples: int, seed: int = 0
) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, "resample s"]]:
    """The number of each clip's subject, and how often each subject is drawn in each resample.

    Subjects and not clips are drawn, since the clips of one person are not independent. The draws follow from the
    number of subjects, `resamples` and `seed` alone, so all predictions of the same clips meet the same ones.
    """
    names, subject = np.unique(np.asarray(subjects), return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
    return subject, draws


def by_subject(
    label: Int[np.ndarray, " b"], prediction: Int[np.ndarray, "*seed b"], subject: Int[np.ndarray, " b"], classes: int
) -> Int[np.ndarray, "seed s k k2"]:
    """The confusion matrix of each seed and subject."""
    prediction = np.atleast_2d(prediction)
    each = np.zeros((len(prediction), int(subject.max(initial=-1)) + 1, classes, classes), np.int64)
    np.add.at(each, (np.arange(len(prediction))[:, None], subject, label, prediction), 1)
    return each


def interval(values: Float[np.ndarray, " resample"]) -> list[float]:
    """95% percentile interval [low, high]."""
    tail = (1 - CONFIDENCE) / 2
    return [float(value) for value in np.quantile(values, (tail, 1 - tail))]


def subject_bootstrap(
    label: Int[np.ndarray, " b"],
    prediction: Int[np.ndarray, "*seed b"],
    subjects: Sequence[str],
    classes: int,
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, list[float]]:
    """95% interval [low, high] of each of `mean_scores` under resampling of subjects with replacement."""
    drawn = resampled_scores(label, prediction, subjects, classes, resamples=resamples, seed=seed)
    return {name: interval(values) for name, values in drawn.items()}


def report(
    label: Int[np.ndarray, " b"],
    prediction: Int[np.ndarray, " b"],
    by_seed: Int[np.ndarray, "seed b"],
    subjects: Sequence[str],
    datasets: Sequence[str],
    classes: Sequence[str],
    *,
    resamples: int,
) -> dict[str, object]:
    """Everything that metrics.json says of the classes: pooled and per dataset, with intervals over subjects.

    `prediction` is the ensemble's, to which all but `mean_over_seeds` belongs; `by_seed` each of its members' own.
    """

    def part(chosen: Bool[np.ndarray, " b"]) -> dict[str, object]:
        true, who = label[chosen], np.asarray(subjects)[chosen].tolist()
        own, each = prediction[chosen], by_seed[:, chosen]
        confusion = confusion_matrix(true, own, len(classes))
        means = mean_scores(true, each, len(classes))
        bounds, bounds_of_mean = (
            subject_bootstrap(true, said, who, len(classes), resamples=resamples) for said in (own, each)
        )
        return {
            **{name: float(value) for name, value in scores(confusion).items()},
            "ci95": bounds,
            "mean_over_seeds": {name: {"mean": mean, "ci95": bounds_of_mean[name]} for name, mean in means.items()},
            "confusion": confusion.tolist(),
            "n_clips": int(chosen.sum()),
        }

    parts = {name: np.asarray(datasets) == name for name in sorted(set(datasets))}
    return {
        **part(np.ones(len(label), bool)),
        "classes": list(classes),
        "per_dataset": {name: part(chosen) for name, chosen in parts.items()},
    }


def unit_report(
    label: Float[np.ndarray, "b u"],
    mask: Bool[np.ndarray, "b u"],
    probability: Float[np.ndarray, "b u"],
    units: Sequence[int],
) -> dict[str, object]:
    """Everything that metrics.json says of the action units: F1 at `PRESENT` and average precision of each.

    A unit is scored over the clips whose label of it is known (`mask`). Without a positive one among them both its
    scores are None, and it is left out of the mean.
    """
    per_unit = {}
    for index, unit in enumerate(units):
        known = mask[:, index]
        true, said = label[known, index] > 0, probability[known, index]
        hit = np.sum(true & (said >= PRESENT))
        per_unit[str(unit)] = {
            "f1": float(2 * hit / (true.sum() + np.sum(said >= PRESENT))) if true.any() else None,
            "average_precision": average_precision(true, said) if true.any() else None,
            "positives": int(true.sum()),
            "clips": int(known.sum()),
        }
    found = [each["f1"] for each in per_unit.values() if each["f1"] is not None]
    return {"mean_f1": float(np.mean(found)) if found else None, "per_unit": per_unit}


def average_precision(label: Bool[np.ndarray, " b"], score: Float[np.ndarray, " b"]) -> float:
    """The mean, over the positive clips, of the precision among all clips that score at least as high as each.

    At least one clip must be positive.
    """
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # clips of equal score are found together
    hits, seen = np.cumsum(label[order])[last], np.flatnonzero(last) + 1
    return float(np.sum(np.diff(hits, prepend=0) * hits / seen) / hits[-1])
