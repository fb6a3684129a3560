"""Calibration of the predicted probabilities."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 10


class Bin(NamedTuple):
    """One bin of a reliability diagram: clips whose confidence is in one of `BINS` equal steps from 0 to 1."""

    low: float
    high: float
    clips: int
    confidence: float  # their mean probability of the class predicted
    accuracy: float  # fraction predicted correctly


def reliability(label: Int[np.ndarray, " b"], probability: Float[np.ndarray, "b k"], bins: int = BINS) -> list[Bin]:
    """Return the reliability diagram of the predicted class; empty bins are left out."""
    confidence, correct = _confidence(label, probability)
    bin_index = np.minimum((confidence * bins).astype(int), bins - 1)
    diagram = []
    for index in np.unique(bin_index):
        mask = bin_index == index
        limits = (float(index / bins), float((index + 1) / bins))
        diagram.append(Bin(*limits, int(mask.sum()), float(confidence[mask].mean()), float(correct[mask].mean())))
    return diagram


def calibration_error(label: Int[np.ndarray, " b"], probability: Float[np.ndarray, "b k"], bins: int = BINS) -> float:
    """Return the expected calibration error, ECE: the mean of |accuracy - confidence| over clips.

    Source: Naeini et al. 2015; Guo et al. 2017.
    """
    diagram = reliability(label, probability, bins)
    return sum(step.clips * abs(step.accuracy - step.confidence) for step in diagram) / len(label)


def log_loss(label: Int[np.ndarray, " b"], probability: Float[np.ndarray, "b k"]) -> float:
    """Return the mean negative logarithm of the probability of the true class."""
    true_probability = probability[np.arange(len(label)), label]
    return float(-np.log(np.maximum(true_probability, np.finfo(np.float32).tiny)).mean())


def brier(label: Int[np.ndarray, " b"], probability: Float[np.ndarray, "b k"]) -> float:
    """Return the mean squared distance of the probabilities from the truth, summed over classes; 0 to 2."""
    truth = np.eye(probability.shape[1])[label]
    return float(((probability - truth) ** 2).sum(axis=1).mean())


def _confidence(
    label: Int[np.ndarray, " b"], probability: Float[np.ndarray, "b k"]
) -> tuple[Float[np.ndarray, " b"], Bool[np.ndarray, " b"]]:
    return probability.max(axis=1), probability.argmax(axis=1) == label
