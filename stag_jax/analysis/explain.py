"""What the networks looked at: their named intermediates on held-out clips, averaged by class."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from stag_jax.training import restore


class ClassExplanation(NamedTuple):
    """Means over the held-out clips of one class."""

    au_probability: Float[np.ndarray, " u"] | None  # largest over the frames of a clip
    connectivity: Float[np.ndarray, "n n2"] | None  # the attention bias B, over frames
    temporal_attention: Float[np.ndarray, " t"] | None  # by place among the selected frames


def by_class(
    aux: dict[str, np.ndarray], label: Int[np.ndarray, " b"], frame_mask: Bool[np.ndarray, "b t"], classes: int
) -> list[ClassExplanation]:
    """One explanation a class; an intermediate that the network does not have is None."""
    per_clip = {}
    seen = restore.frames_seen(aux, frame_mask)
    if "au_probability" in aux:
        per_clip["au_probability"] = np.max(aux["au_probability"], axis=1, where=seen[..., None], initial=0.0)
    if "connectivity" in aux:
        weight = seen[:, :, None, None]
        per_clip["connectivity"] = (aux["connectivity"] * weight).sum(axis=1) / weight.sum(axis=1)
    if "temporal_attention" in aux:
        per_clip["temporal_attention"] = aux["temporal_attention"]
    return [
        ClassExplanation(*(_mean(per_clip.get(name), label == index) for name in ClassExplanation._fields))
        for index in range(classes)
    ]


def _mean(values: np.ndarray | None, chosen: np.ndarray) -> np.ndarray | None:
    return None if values is None or not chosen.any() else values[chosen].mean(axis=0)
