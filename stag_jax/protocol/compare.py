"""Two models on the same clips: how far apart they are, and how sure that is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stag_jax.protocol import metrics

ROUNDING = 1e-12  # differences below are those of the order of summation
ALPHA = 1 - metrics.CONFIDENCE


class Difference(NamedTuple):
    """A score of the first model less that of the second."""

    mean: float
    low: float  # 95% interval
    high: float
    p: float  # share of the resamples in which the first is no better


class ClassDifference(NamedTuple):
    """How far apart two models are in one class."""

    f1: Difference
    recall: Difference


class McNemar(NamedTuple):
    """Clips that only one of two models has right, and how likely so uneven a count is by chance."""

    only_first: int
    only_second: int
    p: float  # exact, two-sided


def paired_bootstrap(
    label: Int[np.ndarray, " b"],
    first: Int[np.ndarray, "seed b"],
    second: Int[np.ndarray, "seed2 b"],
    subjects: Sequence[str],
    classes: int,
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, Difference]:
    """The difference in each of `metrics.mean_scores`, under resampling of subjects with replacement.

    Every resample holds the same subjects for both models, so that what is hard about a subject cancels. `p` is a
    one-sided bootstrap p-value of the first being better; a model against itself has 1.
    """
    means = [metrics.mean_scores(label, each, classes) for each in (first, second)]
    drawn = [
        metrics.resampled_scores(label, each, subjects, classes, resamples=resamples, seed=seed)
        for each in (first, second)
    ]
    differences = {name: drawn[0][name] - drawn[1][name] for name in means[0]}
    return {
        name: Difference(
            means[0][name] - means[1][name], *metrics.interval(difference), float(np.mean(difference <= ROUNDING))
        )
        for name, difference in differences.items()
    }


def class_differences(
    label: Int[np.ndarray, " b"],
    first: Int[np.ndarray, "seed b"],
    second: Int[np.ndarray, "seed2 b"],
    subjects: Sequence[str],
    classes: int,
    *,
    resamples: int,
    seed: int = 0,
) -> list[ClassDifference]:
    """The differences in F1 and recall of each class, mean over seeds, in the resamples of `paired_bootstrap`.

    Resamples that have no clip of a class say nothing of it and are left out of its interval and its p. Of a class
    without any clip nothing is known: its differences are 0, with a p of 1.
    """
    subject, draws = metrics.resample(subjects, resamples, seed)
    times = np.concatenate([np.ones((1, draws.shape[1]), draws.dtype), draws])  # the clips as they are come first
    of_first, of_second = (_by_class(label, each, subject, classes, times) for each in (first, second))
    f1, recall = of_first[0] - of_second[0], of_first[1] - of_second[1]
    return [ClassDifference(_summary(f1[:, k]), _summary(recall[:, k])) for k in range(classes)]


def _by_class(
    label: Int[np.ndarray, " b"],
    prediction: Int[np.ndarray, "seed b"],
    subject: Int[np.ndarray, " b"],
    classes: int,
    times: Int[np.ndarray, "resample s"],
) -> tuple[Float[np.ndarray, "resample k"], Float[np.ndarray, "resample k"]]:
    """F1 and recall, mean over seeds, with each subject so many times; NaN where a class has no clip."""
    stack = np.einsum("rs,iskl->rikl", times, metrics.by_subject(label, prediction, subject, classes))
    hit = np.diagonal(stack, axis1=-2, axis2=-1).astype(float)
    true, predicted = stack.sum(axis=-1), stack.sum(axis=-2)
    blank = np.full(hit.shape, np.nan)
    f1 = np.divide(2 * hit, true + predicted, out=blank.copy(), where=true > 0)
    recall = np.divide(hit, true, out=blank, where=true > 0)
    return f1.mean(axis=1), recall.mean(axis=1)


def _summary(values: Float[np.ndarray, " resample"]) -> Difference:
    """The first value is that of the clips as they are, the others those of resamples."""
    mean, drawn = float(values[0]), values[1:][~np.isnan(values[1:])]
    if math.isnan(mean):
        return Difference(0.0, 0.0, 0.0, 1.0)
    if not len(drawn):  # anything that a difference of two shares can be
        return Difference(mean, -1.0, 1.0, 1.0)
    return Difference(mean, *metrics.interval(drawn), float(np.mean(drawn <= ROUNDING)))


def mcnemar(label: Int[np.ndarray, " b"], first: Int[np.ndarray, " b"], second: Int[np.ndarray, " b"]) -> McNemar:
    """McNemar's test of two predictions of the same clips: exact, binomial, two-sided.

    Under the null hypothesis a clip that only one model has right is as likely to be the first's as the second's. Clips
    are taken to be independent, which clips of one person are not: where this test and `paired_bootstrap` disagree,
    the latter, which resamples people, is the one to believe.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
    """
    right, also = first == label, second == label
    one, other = int(np.sum(right & ~also)), int(np.sum(also & ~right))
    # In whole numbers, so that nothing is rounded before the division.
    tail = sum(math.comb(one + other, count) for count in range(min(one, other) + 1))
    return McNemar(one, other, min(1.0, 2 * tail / 2 ** (one + other)))


def verdict(difference: Difference, first: str, second: str, *, resamples: int, score: str = "UF1") -> str:
    """One sentence on whether two models differ.

    They do where the 95% interval excludes 0 and the two-sided p is below 0.05. That p is twice the share of resamples
    on the wrong side of 0, with one more counted there, since so many resamples cannot show a p of 0. Name the better
    model first where you can: resamples in which both are exactly equal count against the first alone.

    Args:
      difference: of the score of the first model less that of the second.
      first: name of the first model.
      second: name of the second.
      resamples: how many the difference was found by.
      score: name of the score, for the sentence.
    """
    mean, low, high, tail = difference
    if mean < 0:
        first, second, mean, low, high, tail = second, first, -mean, -high, -low, 1 - tail
    if high - low <= ROUNDING:
        if mean <= ROUNDING:
            return f"No difference can be told: {first} and {second} have the same {score} in every resample."
        return (
            f"No difference can be told: {first} is ahead of {second} by {_plain(mean)} {score}, but all resamples of "
            "subjects are alike, as they are with a single subject."
        )
    known = f"95% interval {_plain(low)} to {_plain(high)} over subjects"
    p = min(1.0, 2 * (tail * resamples + 1) / (resamples + 1))
    if low > ROUNDING:  # otherwise the flipped p may be nothing but ties
        known += f", p = {p:.3f}" if p >= 0.001 else ", p < 0.001"
    if low <= ROUNDING or p >= ALPHA:
        ahead = f"{first} is ahead of {second} by {_plain(mean)} {score}"
        return f"No difference can be told: {ahead}, which may be chance ({known})."
    better = f"{first} is better than {second} by {_plain(mean)} {score}"
    return f"{better} ({known}): the difference is real on these clips."


def _plain(value: float) -> str:
    """Three decimals, more where these would all be zero."""
    return f"{value:.3f}" if abs(value) >= 0.0005 or abs(value) <= ROUNDING else f"{value:.1g}"
