"""Whether an explanation names what the answer rests on: deletion and insertion curves (Petsiuk et al. 2018).

Regions of frames are set to stillness, or brought to life in a still face, the most salient ones first. If they are
what the answer rests on, its probability falls faster, or rises faster, than in random order.
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
    """Area under a curve, mean over clips, and how far it is from that of random order."""

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
    """The probability of `target` after each share of `SHARES`, by `DELETION` and by `INSERTION`.

    Args:
      probability: the network.
      clips: raw clips.
      target: a class for each.
      saliency: by method; only its order counts.
    """
    rank, count = jax.vmap(ranks, in_axes=(0, None))(saliency, clips.frame_mask)
    shares = jnp.asarray(SHARES)
    # How many go is rounded, so that 0 and 1 are exact.
    gone = jnp.round(shares[:, None] * count[0][None].astype(jnp.float32)).astype(jnp.int32)

    def one(at: Int[Array, "3"]) -> Float[Array, " b"]:
        mode, method, share = at
        first = rank[method] < gone[share][:, None, None]
        shown = jnp.where(mode == 0, ~first, first)
        said = probability(clips._replace(nodes=clips.nodes * shown[..., None].astype(clips.nodes.dtype)))
        return jnp.take_along_axis(said, target[:, None], axis=1)[:, 0]

    at, place = _asked(len(saliency))
    # One after the other, so that the network is compiled once.
    return jax.lax.map(one, jnp.asarray(at))[place]


def _asked(methods: int) -> tuple[Int[np.ndarray, "i 3"], Int[np.ndarray, "mode method share"]]:
    """What the network has to be asked, (mode, method, share), and where each point of all curves is among it.

    The ends are the whole clip and the still face, whatever the mode and the method, and are asked once.
    """
    last = len(SHARES) - 1
    at, place = [(0, 0, 0), (0, 0, last)], np.zeros((2, methods, len(SHARES)), int)
    for mode in range(2):
        place[mode, :, last if mode == 0 else 0] = 1
        for method in range(methods):
            for share in range(1, last):
                place[mode, method, share] = len(at)
                at.append((mode, method, share))
    return np.asarray(at), place


def random_saliency(ids: Sequence[str], shape: tuple[int, int]) -> Float[np.ndarray, "b t n"]:
    """An order of regions and frames that follows from the clip's name alone."""
    keys = [np.frombuffer(name.encode(), np.uint8).astype(int).tolist() for name in ids]
    return np.stack([np.random.default_rng(key).random(shape) for key in keys]).astype(np.float32)


def areas(
    curve: Mapping[str, Float[np.ndarray, "mode share b"]], subjects: Sequence[str], *, resamples: int, seed: int = 0
) -> list[Area]:
    """Areas of all methods, `RANDOM` among them, by the trapezoidal rule."""
    who, draws = metrics.resample(subjects, resamples, seed)
    clips = draws @ np.bincount(who)
    area = {method: np.trapezoid(values, SHARES, axis=1) for method, values in curve.items()}
    found = []
    for index, (mode, sign) in enumerate(((DELETION, -1), (INSERTION, 1))):
        for method, values in area.items():
            better = sign * (values[index] - area[RANDOM][index])
            drawn = draws @ np.bincount(who, better) / clips
            found.append(
                Area(mode, method, float(values[index].mean()), float(better.mean()), *metrics.interval(drawn))
            )
    return found
