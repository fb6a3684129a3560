"""Which action units the networks saw and used in each clip, and how well these agree with the units that moved."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from stag_jax.protocol import metrics


class Agreement(NamedTuple):
    """Average precision of unit scores: the area under the precision-recall curve, by steps."""

    pooled: float  # over all pairs of clip and unit
    low: float  # 95% interval of that over subjects
    high: float
    per_unit: float  # of each unit over clips, mean over units
    per_clip: float  # of each clip over units, mean over clips


def peak(probability: Float[np.ndarray, "b t u"], seen: Bool[np.ndarray, "b t"]) -> Float[np.ndarray, "b u"]:
    """Return the largest probability of each unit over the frames of a clip."""
    return np.max(probability, axis=1, where=seen[..., None], initial=0.0)


def relevance(spread: Float[np.ndarray, "b t n"], incidence: Float[np.ndarray, "u n"]) -> Float[np.ndarray, "b u"]:
    """Return the share of the saliency in the regions that a unit moves, relative to uniform saliency.

    1 for a unit whose regions are as salient as the mean region.
    """
    share = incidence / np.maximum(incidence.sum(axis=1, keepdims=True), 1)
    return spread.sum(axis=1) @ share.T * spread.shape[2]


def explained(
    probability: Float[np.ndarray, "b t u"],
    seen: Bool[np.ndarray, "b t"],
    spread: Float[np.ndarray, "b t n"],
    incidence: Float[np.ndarray, "u n"],
) -> Float[np.ndarray, "b u"]:
    """Return how much an answer rests on each unit: its probability times the relevance of its regions.

    A unit counts if the network saw it and its regions carry the answer; either alone is not enough.
    """
    return peak(probability, seen) * relevance(spread, incidence)


def mean_by_class(
    values: Float[np.ndarray, "b *x"], label: Int[np.ndarray, " b"], classes: int
) -> Float[np.ndarray, "{classes} *x"]:
    """Return the means over the clips of each class; NaN for a class without clips."""
    missing = np.full(values.shape[1:], np.nan)
    return np.stack(
        [values[label == index].mean(axis=0) if (label == index).any() else missing for index in range(classes)]
    )


def agreement(
    score: Float[np.ndarray, "b u"],
    au: Float[np.ndarray, "b u"],
    au_mask: Bool[np.ndarray, "b u"],
    subjects: Sequence[str],
    *,
    resamples: int,
) -> Agreement | None:
    """Measure how well scores tell units that moved from those that did not; None if no label is positive."""
    true = (au > 0) & au_mask
    if not true.any():
        return None
    units = [
        metrics.average_precision(true[labelled, u], score[labelled, u])
        for u, labelled in enumerate(au_mask.T)
        if true[:, u].any()
    ]
    clips = [
        metrics.average_precision(true[b, labelled], score[b, labelled])
        for b, labelled in enumerate(au_mask)
        if true[b].any()
    ]
    pooled = metrics.average_precision(true[au_mask], score[au_mask])
    resampled = _resampled(score, true, au_mask, subjects, resamples)
    return Agreement(pooled, *metrics.interval(resampled), float(np.mean(units)), float(np.mean(clips)))


def _resampled(
    score: Float[np.ndarray, "b u"],
    true: Bool[np.ndarray, "b u"],
    au_mask: Bool[np.ndarray, "b u"],
    subjects: Sequence[str],
    resamples: int,
) -> Float[np.ndarray, " resample"]:
    """Return the pooled average precision under resampling of subjects; ties count one by one."""
    subject, draws = metrics.resample(subjects, resamples)
    clip = np.nonzero(au_mask)[0]
    order = np.argsort(-score[au_mask], kind="stable")
    hit, pair_subject = true[au_mask][order], subject[clip[order]]
    precisions = np.zeros(resamples)
    for index, draw in enumerate(draws):
        weight = draw[pair_subject].astype(float)
        hits, total = np.cumsum(weight * hit), np.cumsum(weight)
        positives = hits[-1]
        precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
        precisions[index] = (weight * hit) @ precision / positives if positives else np.nan
    return precisions[~np.isnan(precisions)]
