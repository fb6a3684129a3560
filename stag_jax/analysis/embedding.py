"""Embeddings of clips in the plane, and whether they tell who somebody is rather than what was felt."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import distance

from stag_jax.types import UserError

CONSTANT = 1e-6  # spread of a feature, in its largest value, below which it is rounding of 32-bit floats


class Leak(NamedTuple):
    """How well neighbours tell the subject and the emotion: 0 is chance, 1 is always, below 0 is worse than chance."""

    subject: float
    emotion: float
    subject_accuracy: float  # balanced: mean recall of the subjects
    emotion_accuracy: float  # balanced: mean recall of the emotions
    subject_chance: float  # one over the number of subjects
    emotion_chance: float  # one over the number of emotions
    clips: int  # those that were looked at


def project(features: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b 2"]:
    """The first two principal components of clips, in units of the features.

    Of each component the feature that weighs most has a positive weight, so that the same clips always give the same
    picture. Where the features span less than two dimensions, what is missing is 0.

    Raises:
      UserError: a feature that is no finite number.
    """
    _check(features)
    centred = features.astype(float) - features.mean(axis=0, dtype=float, keepdims=True)
    left, size, right = np.linalg.svd(centred, full_matrices=False)
    # Directions of no size at all are whatever the solver makes of rounding.
    real = size[:2] > CONSTANT * max(float(size.max(initial=0.0)), np.finfo(float).tiny)
    heaviest = np.abs(right[:2]).argmax(axis=1)
    sign = np.where(right[np.arange(len(heaviest)), heaviest] < 0, -1.0, 1.0)
    found = np.zeros((len(features), 2))
    found[:, : len(sign)] = left[:, :2] * np.where(real, size[:2] * sign, 0.0)
    return found


def leak(
    features: Float[np.ndarray, "b d"], subject: Sequence[str], label: Int[np.ndarray, " b"], neighbours: int = 1
) -> Leak:
    """Who and what the nearest clips say a clip is, each clip left out in turn.

    The subject is asked of all other clips, the emotion of clips of other subjects only, as a held-out subject would.
    Both are balanced accuracies a, corrected as (a - chance) / (1 - chance). Clips of subjects that have no other
    clip are left out of both. The default is one neighbour: a subject with two clips has no more of its own.

    Distances are Euclidean with every feature in units of its spread over the clips: features are pixels, strain and
    activations side by side, so that neither their units nor, as for the cosine, their origin may count.

    Args:
      features: one row a clip.
      subject: of each clip.
      label: its emotion, as an index.
      neighbours: clips that vote; where votes tie, the nearest of those that tie decides.

    Raises:
      UserError: fewer than two subjects with two clips, fewer than two emotions, too few clips of other subjects for
        so many neighbours, or a feature that is no finite number.
    """
    _check(features)
    who = np.unique(np.asarray(subject), return_inverse=True)[1]
    kept = np.bincount(who, minlength=1)[who] > 1
    own, what = np.unique(who[kept], return_inverse=True)[1], np.unique(label[kept], return_inverse=True)[1]
    if not len(own) or own.max() < 1 or what.max() < 1:
        raise UserError(
            "a subject leak can be looked for only among two subjects of two clips and two emotions or more"
        )
    apart = own[:, None] != own[None]
    if not 1 <= neighbours <= apart.sum(axis=1).min():
        raise UserError(f"neighbours must be from 1 to the {apart.sum(axis=1).min()} clips of others, got {neighbours}")
    far = distances(features[kept])
    by_subject = balanced_accuracy(own, vote(far, own, ~np.eye(len(own), dtype=bool), neighbours))
    by_emotion = balanced_accuracy(what, vote(far, what, apart, neighbours))
    chance = 1 / (own.max() + 1), 1 / (what.max() + 1)
    return Leak(
        subject=float((by_subject - chance[0]) / (1 - chance[0])),
        emotion=float((by_emotion - chance[1]) / (1 - chance[1])),
        subject_accuracy=by_subject,
        emotion_accuracy=by_emotion,
        subject_chance=float(chance[0]),
        emotion_chance=float(chance[1]),
        clips=len(own),
    )


def distances(features: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b b"]:
    """Euclidean distances between clips, features in units of their spread; constant features are left out."""
    exact = features.astype(float)
    spread = exact.std(axis=0)
    varies = spread > CONSTANT * np.abs(exact).max(axis=0, initial=0.0)
    scaled = (exact - exact.mean(axis=0))[:, varies] / spread[varies]
    return distance.cdist(scaled, scaled) if varies.any() else np.zeros((len(exact), len(exact)))


def vote(
    far: Float[np.ndarray, "b b"], label: Int[np.ndarray, " b"], allowed: Bool[np.ndarray, "b b"], neighbours: int
) -> Int[np.ndarray, " b"]:
    """The commonest label among each clip's nearest `allowed` clips; among labels that tie, that of the nearest.

    Args:
      far: distances.
      label: of each clip, from 0.
      allowed: which clips (columns) may vote on a clip (rows); at least `neighbours` in each row.
      neighbours: clips that vote.
    """
    order = np.argsort(np.where(allowed, far, np.inf), axis=1, kind="stable")[:, :neighbours]
    said = label[order]
    votes = (said[:, :, None] == said[:, None, :]).sum(axis=2)  # of each neighbour, how many say the same
    return said[np.arange(len(said)), votes.argmax(axis=1)]


def balanced_accuracy(label: Int[np.ndarray, " b"], said: Int[np.ndarray, " b"]) -> float:
    """The mean, over the labels that are there, of the share of clips of each that were called so."""
    return float(np.mean([np.mean(said[label == each] == each) for each in np.unique(label)]))


def _check(features: Float[np.ndarray, "b d"]) -> None:
    wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(wrong):
        raise UserError(f"the features of clip {wrong[0]}, counted from 0, are not all finite numbers")
