"""Times of the frames of a clip, and averages over the frames around a moment."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped


class Share(NamedTuple):
    """One moment as a weighted mean of one or two frames."""

    places: tuple[int, ...]
    weights: tuple[float, ...]


def frame_times(count: int, fps: float, numbers: Int[np.ndarray, " f"] | None) -> Float[np.ndarray, " f"]:
    """Return the time of each frame after the first, ms.

    Args:
      count: frames.
      fps: frames a second.
      numbers: of the frames in their recording, where some may be missing; None: no frame is missing.
    """
    steps = np.arange(count) if numbers is None else numbers - numbers[0]
    return steps * (1000 / fps)


def around(times: Float[np.ndarray, " f"], place: int, reach: float, interval: float) -> list[Share]:
    """Return the moments `reach` ms before and after a frame, and the frame itself, without repetition.

    A moment is the frame nearest to it if that is at most half an interval away (of two equally near, the one nearer to
    `place`). Otherwise frames are missing there, and it is interpolated between its neighbours; moments before the
    first frame and after the last are left out.

    Args:
      times: of the frames, ms, increasing.
      place: of the frame in the middle.
      reach: ms.
      interval: ms between frames where none is missing.
    """
    shares = []
    for moment in (times[place] - reach, times[place], times[place] + reach):
        # Rounded, so that rounding errors do not break ties.
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
    """Return the indices of all frames that the averages need, sorted."""
    return sorted({place for average in averages for share in average for place in share.places})


def mean(values: Shaped[np.ndarray, "f *x"], average: Sequence[Share]) -> Float[np.ndarray, "*x"]:
    """Return the mean of the values over the moments of `average`."""

    def at(share: Share) -> np.ndarray:
        if len(share.places) == 1:
            return values[share.places[0]]
        return np.tensordot(np.asarray(share.weights, values.dtype), values[list(share.places)], 1)

    return np.stack([at(share) for share in average]).mean(axis=0)
