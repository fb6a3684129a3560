"""Smoothing of landmarks over time, without delay."""

import numpy as np
from jaxtyping import Float

from stag_jax.face import template

ORDER = 2  # of the polynomials: constant velocity and constant acceleration are kept


def smooth(points: Float[np.ndarray, "f p 2"], window: int, jump: float) -> Float[np.ndarray, "f p 2"]:
    """Smooth landmarks over time, without delay. Frames of NaN are not changed.

    Each point is read from the parabola fitted to the `window` frames around it (Savitzky and Golay, Analytical
    Chemistry 36, 1964); near the ends of a run of tracked frames, from the parabola of its first or last `window`
    frames. White noise falls by a factor of 1.43 with a window of 5, 1.73 with 7, 1.98 with 9. A run ends where a frame
    is refused and where the median landmark moves by more than `jump` outer eye distances from one frame to the next; a
    run shorter than the window is smoothed with the longest window that fits.

    Args:
      points: NaN in refused frames.
      window: 0 (off) or an odd number of at least 5.
      jump: in outer eye distances.
    """
    out = points.copy()
    for first, last in _runs(points, jump):
        size = min(window, (last - first - 1) // 2 * 2 + 1)
        if size > ORDER + 1:
            out[first:last] = _fitted(points[first:last], size)
    return out


def _fitted(run: Float[np.ndarray, "f p 2"], size: int) -> Float[np.ndarray, "f p 2"]:
    half = size // 2
    powers = np.vander(np.arange(size) - half, ORDER + 1).astype(np.float64)
    fit = powers @ np.linalg.pinv(
        powers
    )  # row i: weights of `size` values for the parabola's value at the i-th of them
    origin = run[:1].astype(np.float64)  # small numbers lose fewer digits in the sums
    run = run - origin
    middle = np.lib.stride_tricks.sliding_window_view(run, size, axis=0) @ fit[half]
    begin, end = (
        np.tensordot(fit[rows], part, axes=1)
        for rows, part in ((slice(0, half), run[:size]), (slice(half + 1, size), run[-size:]))
    )
    return (origin + np.concatenate([begin, middle, end])).astype(np.float32)


def _runs(points: Float[np.ndarray, "f p 2"], jump: float) -> list[tuple[int, int]]:
    """Return (first frame, frame after the last) of each run without refused frames and jumps."""
    tracked = np.isfinite(points[:, 0, 0])
    eyes = np.linalg.norm(points[:, template.EYE_CORNERS[1]] - points[:, template.EYE_CORNERS[0]], axis=1)
    with np.errstate(invalid="ignore"):
        moved = np.median(np.linalg.norm(np.diff(points, axis=0), axis=-1), axis=-1) > jump * eyes[:-1]
    runs, first = [], 0
    for f in range(1, len(points) + 1):
        if f == len(points) or moved[f - 1] or tracked[f] != tracked[first]:
            if tracked[first]:
                runs.append((first, f))
            first = f
    return runs
