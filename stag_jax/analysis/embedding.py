"""Embeddings of clips in the plane, and whether features identify the subject rather than the emotion."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import distance

from stag_jax.types import UserError

CONSTANT = 1e-6  # deviation of a feature, relative to its largest value, below which it is 32-bit rounding


class Leak(NamedTuple):
    """How well neighbours predict subject and emotion: 0 is chance, 1 is always right, below 0 is worse than chance."""

    subject: float
    emotion: float
    subject_accuracy: float  # balanced: mean recall of the subjects
    emotion_accuracy: float  # balanced: mean recall of the emotions
    subject_chance: float  # one over the number of subjects
    emotion_chance: float  # one over the number of emotions
    clips: int  # clips that were tested


def project(features: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b 2"]:
    """Return the first two principal components of clips, in units of the features.

    In each component, the feature that weighs most has a positive weight, so that the same clips always give the same
    picture. If the features span fewer than two dimensions, the missing coordinates are 0.

    Raises:
      UserError: a feature is not a finite number.
    """
    _check(features)
    centred = features.astype(float) - features.mean(axis=0, dtype=float, keepdims=True)
    left, size, right = np.linalg.svd(centred, full_matrices=False)
    # Directions of size zero are only rounding of the solver.
    nonzero = size[:2] > CONSTANT * max(float(size.max(initial=0.0)), np.finfo(float).tiny)
    heaviest = np.abs(right[:2]).argmax(axis=1)
    sign = np.where(right[np.arange(len(heaviest)), heaviest] < 0, -1.0, 1.0)
    points = np.zeros((len(features), 2))
    points[:, : len(sign)] = left[:, :2] * np.where(nonzero, size[:2] * sign, 0.0)
    return points


def leak(
    features: Float[np.ndarray, "b d"], subject: Sequence[str], label: Int[np.ndarray, " b"], neighbours: int = 1
) -> Leak:
    """Predict subject and emotion of each clip from its nearest clips, each clip left out in turn.

    The subject is predicted from all other clips, the emotion only from clips of other subjects, as for a held-out
    subject. Both are balanced accuracies a, corrected as (a - chance) / (1 - chance). Clips of subjects that have no
    other clip are left out of both. The default is one neighbour: a subject with two clips has no more of its own.

    Distances are Euclidean with every feature in units of its standard deviation over the clips: features are pixels,
    strain and activations side by side, so that neither their units nor, as for the cosine, their origin may count.

    Args:
      features: one row per clip.
      subject: of each clip.
      label: its emotion, as an index.
      neighbours: number of clips that vote; if votes tie, the nearest of those that tie decides.

    Raises:
      UserError: fewer than two subjects with two clips, fewer than two emotions, too few clips of other subjects for
        so many neighbours, or a feature that is not a finite number.
    """
    _check(features)
    subject_index = np.unique(np.asarray(subject), return_inverse=True)[1]
    kept = np.bincount(subject_index, minlength=1)[subject_index] > 1
    subjects, emotions = (
        np.unique(subject_index[kept], return_inverse=True)[1],
        np.unique(label[kept], return_inverse=True)[1],
    )
    if not len(subjects) or subjects.max() < 1 or emotions.max() < 1:
        raise UserError(
            "a subject leak can be looked for only among two subjects of two clips and two emotions or more"
        )
    other_subject = subjects[:, None] != subjects[None]
    if not 1 <= neighbours <= other_subject.sum(axis=1).min():
        raise UserError(
            f"neighbours must be from 1 to the {other_subject.sum(axis=1).min()} clips of others, got {neighbours}"
        )
    pairwise = distances(features[kept])
    by_subject = balanced_accuracy(subjects, vote(pairwise, subjects, ~np.eye(len(subjects), dtype=bool), neighbours))
    by_emotion = balanced_accuracy(emotions, vote(pairwise, emotions, other_subject, neighbours))
    chance = 1 / (subjects.max() + 1), 1 / (emotions.max() + 1)
    return Leak(
        subject=float((by_subject - chance[0]) / (1 - chance[0])),
        emotion=float((by_emotion - chance[1]) / (1 - chance[1])),
        subject_accuracy=by_subject,
        emotion_accuracy=by_emotion,
        subject_chance=float(chance[0]),
        emotion_chance=float(chance[1]),
        clips=len(subjects),
    )


def distances(features: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b b"]:
    """Return Euclidean distances between clips, features in units of their deviation; constant ones are left out."""
    exact = features.astype(float)
    deviation = exact.std(axis=0)
    varies = deviation > CONSTANT * np.abs(exact).max(axis=0, initial=0.0)
    scaled = (exact - exact.mean(axis=0))[:, varies] / deviation[varies]
    return distance.cdist(scaled, scaled) if varies.any() else np.zeros((len(exact), len(exact)))


def vote(
    far: Float[np.ndarray, "b b"], label: Int[np.ndarray, " b"], allowed: Bool[np.ndarray, "b b"], neighbours: int
) -> Int[np.ndarray, " b"]:
    """Return the most common label among each clip's nearest `allowed` clips; if labels tie, that of the nearest.

    Args:
      far: distances.
      label: of each clip, from 0.
      allowed: which clips (columns) may vote on a clip (rows); at least `neighbours` in each row.
      neighbours: number of clips that vote.
    """
    order = np.argsort(np.where(allowed, far, np.inf), axis=1, kind="stable")[:, :neighbours]
    labels = label[order]
    votes = (labels[:, :, None] == labels[:, None, :]).sum(axis=2)  # per neighbour, how many have its label
    return labels[np.arange(len(labels)), votes.argmax(axis=1)]


def balanced_accuracy(label: Int[np.ndarray, " b"], said: Int[np.ndarray, " b"]) -> float:
    """Return the mean recall over the labels that occur."""
    return float(np.mean([np.mean(said[label == value] == value) for value in np.unique(label)]))


def _check(features: Float[np.ndarray, "b d"]) -> None:
    wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(wrong):
        raise UserError(f"the features of clip {wrong[0]}, counted from 0, are not all finite numbers")
