"""Two models on the same clips: how far apart they are, and how sure that is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from stag_jax.protocol import metrics

ROUNDING = 1e-12  # differences below are those of the order of summation


class Difference(NamedTuple):
    """A score of the first model less that of the second."""

    mean: float
    low: float  # 95% interval
    high: float
    p: float  # share of the resamples in which the first is no better


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
