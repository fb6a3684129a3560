"""Whether an explanation names what the answer rests on: deletion and insertion curves (Petsiuk et al. 2018).

Regions of frames are made still, or inserted into a still face, the most salient ones first. If the answer rests on
them, its probability falls faster, or rises faster, than in random order.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from stag_jax.analysis.saliency import ranks
from stag_jax.protocol import metrics
from stag_jax.types import ClipBatch

SHARES = (0.0, 0.05, 0.15, 0.35, 0.65, 1.0)  # of regions and frames, deleted or inserted
DELETION, INSERTION = "deletion", "insertion"
RANDOM = "random order"


class Area(NamedTuple):
    """The area under a curve, mean over clips, and its difference from that of random order."""

    mode: str
    method: str
    area: float
    better: float  # than random: lower for deletion, higher for insertion
    low: float  # 95% interval over subjects
    high: float


def curves(
    probability: Callable[[ClipBatch], Float[Array, "b k"]],
    clips: ClipBatch,
    target: Int[Array, " b"],
    saliency: Float[Array, "method b t n"],
) -> Float[Array, "mode method share b"]:
    """Return the probability of `target` after each share of `SHARES`, for `DELETION` and for `INSERTION`.

    Args:
      probability: the network.
      clips: raw clips.
      target: one class per clip.
      saliency: by method; only its order counts.
    """
    rank, count = jax.vmap(ranks, in_axes=(0, None))(saliency, clips.frame_mask)
    shares = jnp.asarray(SHARES)
    # Counts are rounded, so that shares of 0 and 1 are exact.
    counts = jnp.round(shares[:, None] * count[0][None].astype(jnp.float32)).astype(jnp.int32)

    def one(at: Int[Array, "3"]) -> Float[Array, " b"]:
        mode, method, share = at
        changed = rank[method] < counts[share][:, None, None]
        visible = jnp.where(mode == 0, ~changed, changed)
        predicted = probability(clips._replace(nodes=clips.nodes * visible[..., None].astype(clips.nodes.dtype)))
        return jnp.take_along_axis(predicted, target[:, None], axis=1)[:, 0]

    at, index = _asked(len(saliency))
    # One point after the other, so that the network is compiled once.
    return jax.lax.map(one, jnp.asarray(at))[index]


def _asked(methods: int) -> tuple[Int[np.ndarray, "i 3"], Int[np.ndarray, "mode method share"]]:
    """Return the points to evaluate, (mode, method, share), and for each point of the curves its index among them.

    The ends are the whole clip and the still face for every mode and method, so they are evaluated once.
    """
    last = len(SHARES) - 1
    at, index = [(0, 0, 0), (0, 0, last)], np.zeros((2, methods, len(SHARES)), int)
    for mode in range(2):
        index[mode, :, last if mode == 0 else 0] = 1
        for method in range(methods):
            for share in range(1, last):
                index[mode, method, share] = len(at)
                at.append((mode, method, share))
    return np.asarray(at), index


def random_saliency(ids: Sequence[str], shape: tuple[int, int]) -> Float[np.ndarray, "b t n"]:
    """Return a random order of regions and frames that depends on the clip's name alone."""
    keys = [np.frombuffer(name.encode(), np.uint8).astype(int).tolist() for name in ids]
    return np.stack([np.random.default_rng(key).random(shape) for key in keys]).astype(np.float32)


def areas(
    curve: Mapping[str, Float[np.ndarray, "mode share b"]], subjects: Sequence[str], *, resamples: int, seed: int = 0
) -> list[Area]:
    """Return the areas of all methods, `RANDOM` among them, by the trapezoidal rule."""
    subject_index, draws = metrics.resample(subjects, resamples, seed)
    clips = draws @ np.bincount(subject_index)
    area = {method: np.trapezoid(values, SHARES, axis=1) for method, values in curve.items()}
    rows = []
    for index, (mode, sign) in enumerate(((DELETION, -1), (INSERTION, 1))):
        for method, values in area.items():
            better = sign * (values[index] - area[RANDOM][index])
            resampled = draws @ np.bincount(subject_index, better) / clips
            rows.append(
                Area(mode, method, float(values[index].mean()), float(better.mean()), *metrics.interval(resampled))
            )
    return rows
