"""When the frames of a clip were taken, and the average over the frames around a moment."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped


class Share(NamedTuple):
    """One moment as a weighted mean of one frame, or of two."""

    places: tuple[int, ...]
    weights: tuple[float, ...]


def frame_times(count: int, fps: float, numbers: Int[np.ndarray, " f"] | None) -> Float[np.ndarray, " f"]:
    """Return the time of each frame after the first, ms.

    Args:
      count: frames.
      fps: frames a second.
      numbers: of the frames in their recording, where some may be missing; None: none is.
    """
    steps = np.arange(count) if numbers is None else numbers - numbers[0]
    return steps * (1000 / fps)


def around(times: Float[np.ndarray, " f"], place: int, reach: float, interval: float) -> list[Share]:
    """Return the moments `reach` ms before and after a frame, and the frame itself, without repetition.

    A moment is the frame nearest to it if that is at most half an interval away (of two equally near ones that nearer
    to `place`). Otherwise frames are missing there, and it is interpolated between its neighbours; before the first
    frame and after the last there is none.

    Args:
      times: of the frames, ms, increasing.
      place: of the frame in the middle.
      reach: ms.
      interval: ms from one frame to the next where none is missing.
    """
    shares = []
    for moment in (times[place] - reach, times[place], times[place] + reach):
        # Rounded, so that equal distances are equal.
        distance = np.round(np.abs(times - moment), 6)
        nearest = int(np.lexsort((np.abs(np.arange(len(times)) - place), distance))[0])
        after = int(np.searchsorted(times, moment))
        if distance[nearest] <= round(interval / 2, 6):
            shares.append(Share((nearest,), (1.0,)))
        elif 0 < after < len(times):
            weight = float((moment - times[after - 1]) / (times[after] - times[after - 1]))
            shares.append(Share((after - 1, after), (1 - weight, weight)))
    return list(dict.fromkeys(shares))


def places(averages: Sequence[Sequence[Share]]) -> list[int]:
    """Return all frames that some averages need, in order."""
    return sorted({place for average in averages for share in average for place in share.places})


def mean(values: Shaped[np.ndarray, "f *x"], average: Sequence[Share]) -> Float[np.ndarray, "*x"]:
    """Return the mean of the values at some moments."""

    def at(share: Share) -> np.ndarray:
        if len(share.places) == 1:
            return values[share.places[0]]
        return np.tensordot(np.asarray(share.weights, values.dtype), values[list(share.places)], 1)

    return np.stack([at(share) for share in average]).mean(axis=0)
