"""Whether probabilities mean what they say."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 10


class Bin(NamedTuple):
    """The clips whose confidence lies in one of `BINS` equal steps from 0 to 1."""

    low: float
    high: float
    clips: int
    confidence: float  # their mean probability of the class predicted
    accuracy: float  # the share of them that is right


def reliability(label: Int[np.ndarray, " b"], probability: Float[np.ndarray, "b k"], bins: int = BINS) -> list[Bin]:
    """The reliability diagram of the class predicted; steps without a clip are left out."""
    confidence, right = _confidence(label, probability)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    found = []
    for index in np.unique(place):
        own = place == index
        share = (float(index / bins), float((index + 1) / bins))
        found.append(Bin(*share, int(own.sum()), float(confidence[own].mean()), float(right[own].mean())))
    return found


def calibration_error(label: Int[np.ndarray, " b"], probability: Float[np.ndarray, "b k"], bins: int = BINS) -> float:
    """Expected calibration error, ECE (Naeini et al. 2015; Guo et al. 2017): |accuracy - confidence|, mean over "
    "clips."""
    found = reliability(label, probability, bins)
    return sum(each.clips * abs(each.accuracy - each.confidence) for each in found) / len(label)


def log_loss(label: Int[np.ndarray, " b"], probability: Float[np.ndarray, "b k"]) -> float:
    """Mean negative logarithm of the probability of the true class."""
    own = probability[np.arange(len(label)), label]
    return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())


def brier(label: Int[np.ndarray, " b"], probability: Float[np.ndarray, "b k"]) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes; 0 to 2."""
    truth = np.eye(probability.shape[1])[label]
    return float(((probability - truth) ** 2).sum(axis=1).mean())


def _confidence(
    label: Int[np.ndarray, " b"], probability: Float[np.ndarray, "b k"]
) -> tuple[Float[np.ndarray, " b"], Bool[np.ndarray, " b"]]:
    return probability.max(axis=1), probability.argmax(axis=1) == label
