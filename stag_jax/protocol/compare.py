"""Comparison of two models on the same clips: differences of scores and their uncertainty."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stag_jax.protocol import metrics
from stag_jax.protocol.metrics import EvaluationSet

ROUNDING = 1e-12  # smaller differences come from the order of summation
ALPHA = 1 - metrics.CONFIDENCE


class Difference(NamedTuple):
    """A score of the first model minus that of the second."""

    mean: float
    low: float  # 95% interval
    high: float
    p: float  # fraction of resamples in which the first is not better


class ClassDifference(NamedTuple):
    """The differences of two models in one class."""

    f1: Difference
    recall: Difference


class McNemar(NamedTuple):
    """The clips that only one of two models has right, and the probability of so uneven a count by chance."""

    only_first: int
    only_second: int
    p: float  # exact, two-sided


def paired_bootstrap(
    clips: EvaluationSet, first: Int[np.ndarray, "seed b"], second: Int[np.ndarray, "seed2 b"]
) -> dict[str, Difference]:
    """Return the difference in each of `metrics.mean_scores`, under resampling of subjects with replacement.

    Every resample has the same subjects for both models, so that the difficulty of a subject cancels. `p` is the
    one-sided bootstrap p-value for the first being better; a model compared with itself has 1.
    """
    means = [metrics.mean_scores(clips.label, prediction, clips.classes) for prediction in (first, second)]
    drawn_scores = [metrics.resampled_scores(clips, prediction) for prediction in (first, second)]
    differences = {name: drawn_scores[0][name] - drawn_scores[1][name] for name in means[0]}
    return {
        name: with_interval(means[0][name] - means[1][name], difference) for name, difference in differences.items()
    }


def with_interval(mean: float, resampled: Float[np.ndarray, " resample"]) -> Difference:
    """Return a difference with the 95% interval and the p of its values in resamples."""
    low, high = metrics.interval(resampled)
    return Difference(mean, low, high, float(np.mean(resampled <= ROUNDING)))


def class_differences(
    clips: EvaluationSet, first: Int[np.ndarray, "seed b"], second: Int[np.ndarray, "seed2 b"]
) -> list[ClassDifference]:
    """Return the differences in F1 and recall of each class, mean over seeds, in the resamples of `paired_bootstrap`.

    Resamples without a clip of a class are left out of its interval and its p. A class without any clip has
    differences of 0, with a p of 1.
    """
    subject, draws = metrics.resample(clips.subjects, clips.resamples, clips.seed)
    times = np.concatenate([np.ones((1, draws.shape[1]), draws.dtype), draws])  # first the original clips
    of_first, of_second = (_by_class(clips, prediction, subject, times) for prediction in (first, second))
    f1, recall = of_first[0] - of_second[0], of_first[1] - of_second[1]
    return [ClassDifference(_summary(f1[:, k]), _summary(recall[:, k])) for k in range(clips.classes)]


def _by_class(
    clips: EvaluationSet,
    prediction: Int[np.ndarray, "seed b"],
    subject: Int[np.ndarray, " b"],
    times: Int[np.ndarray, "resample s"],
) -> tuple[Float[np.ndarray, "resample k"], Float[np.ndarray, "resample k"]]:
    """Return F1 and recall, mean over seeds, with each subject counted `times` times; NaN if a class has no clip."""
    stack = np.einsum("rs,iskl->rikl", times, metrics.by_subject(clips.label, prediction, subject, clips.classes))
    hit = np.diagonal(stack, axis1=-2, axis2=-1).astype(float)
    true, predicted = stack.sum(axis=-1), stack.sum(axis=-2)
    nan = np.full(hit.shape, np.nan)
    f1 = np.divide(2 * hit, true + predicted, out=nan.copy(), where=true > 0)
    recall = np.divide(hit, true, out=nan, where=true > 0)
    return f1.mean(axis=1), recall.mean(axis=1)


def _summary(values: Float[np.ndarray, " resample"]) -> Difference:
    """Summarise values: the first is of the original clips, the others are of resamples."""
    mean, resampled = float(values[0]), values[1:][~np.isnan(values[1:])]
    if math.isnan(mean):
        return Difference(0.0, 0.0, 0.0, 1.0)
    if not len(resampled):  # all possible differences of two fractions
        return Difference(mean, -1.0, 1.0, 1.0)
    return with_interval(mean, resampled)


def mcnemar(label: Int[np.ndarray, " b"], first: Int[np.ndarray, " b"], second: Int[np.ndarray, " b"]) -> McNemar:
    """Run McNemar's test on two predictions of the same clips: exact, binomial, two-sided.

    Under the null hypothesis, a clip that only one model has right is equally likely to be right in either model. The
    test assumes independent clips, which clips of one person are not: if it disagrees with `paired_bootstrap`, trust
    the latter, which resamples people.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
    """
    first_correct, second_correct = first == label, second == label
    only_first, only_second = int(np.sum(first_correct & ~second_correct)), int(np.sum(second_correct & ~first_correct))
    # Integers, so that nothing is rounded before the division.
    tail = sum(math.comb(only_first + only_second, count) for count in range(min(only_first, only_second) + 1))
    return McNemar(only_first, only_second, min(1.0, 2 * tail / 2 ** (only_first + only_second)))


def verdict(difference: Difference, first: str, second: str, *, resamples: int, score: str = "UF1") -> str:
    """Return one sentence on whether two models differ.

    They differ if the 95% interval excludes 0 and the two-sided p is below 0.05. That p is twice the fraction of
    resamples on the wrong side of 0, with one more counted there, since a finite number of resamples cannot show a p of
    0. Give the better model first if possible: resamples in which both are exactly equal count against the first only.

    Args:
      difference: score of the first model minus that of the second.
      first: name of the first model.
      second: name of the second.
      resamples: number of resamples behind the difference.
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
    evidence = f"95% interval {_plain(low)} to {_plain(high)} over subjects"
    p = min(1.0, 2 * (tail * resamples + 1) / (resamples + 1))
    if low > ROUNDING:  # otherwise the flipped p may come from ties alone
        evidence += f", p = {p:.3f}" if p >= 0.001 else ", p < 0.001"
    if low <= ROUNDING or p >= ALPHA:
        ahead = f"{first} is ahead of {second} by {_plain(mean)} {score}"
        return f"No difference can be told: {ahead}, which may be chance ({evidence})."
    better = f"{first} is better than {second} by {_plain(mean)} {score}"
    return f"{better} ({evidence}): the difference is real on these clips."


def _plain(value: float) -> str:
    """Format with three decimals, or with one significant digit where these would all be zero."""
    return f"{value:.3f}" if abs(value) >= 0.0005 or abs(value) <= ROUNDING else f"{value:.1g}"
