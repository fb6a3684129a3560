"""Time courses: contraction of a muscle, and slow random drift of head and light."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Pulse(NamedTuple):
    """One contraction of one half of an action unit. Times in frames, not necessarily whole."""

    unit: int
    side: str  # L or R, the subject's
    strength: float  # 1 at full strength
    onset: float
    apex: float
    offset: float
    power: float = 1.0  # above 1: starts late and has a narrow peak


def envelope(pulse: Pulse, frames: int) -> Float[np.ndarray, " f"]:
    """Return the strength at each frame: a raised cosine up to the apex, another down; 0 outside onset to offset."""
    t = np.arange(frames)
    up = np.clip((t - pulse.onset) / (pulse.apex - pulse.onset), 0, 1)
    down = np.clip((pulse.offset - t) / (pulse.offset - pulse.apex), 0, 1)
    return pulse.strength * (np.sin(np.pi / 2 * np.minimum(up, down)) ** 2) ** pulse.power


def wander(rng: np.random.Generator, frames: int, span: float) -> Float[np.ndarray, " f"]:
    """Draw a smooth random walk that starts at 0 and has the largest absolute value `span`."""
    walk = np.cumsum(rng.standard_normal(frames + 12))
    return _smooth(walk, frames, span)


def sway(rng: np.random.Generator, frames: int, span: float, memory: float) -> Float[np.ndarray, " f"]:
    """Draw a walk as `wander`, but with exponential memory of `memory` frames, so that it returns: for long clips."""
    extra = int(4 * memory)
    kernel = np.exp(-np.arange(extra) / memory)
    walk = np.convolve(rng.standard_normal(frames + extra + 11), kernel, mode="valid")
    return _smooth(walk, frames, span)


def _smooth(walk: Float[np.ndarray, " f2"], frames: int, span: float) -> Float[np.ndarray, " f"]:
    """Smooth a walk, shift it to start at 0, and scale its largest absolute value to `span`."""
    walk = np.convolve(walk, np.hanning(13)[1:-1] / 6, mode="valid")[:frames]
    walk = walk - walk[0]
    return walk * span / max(float(np.abs(walk).max()), 1e-9)


def settle(share: Float[np.ndarray, " f"]) -> Float[np.ndarray, " f"]:
    """Return the fraction of the path after a fraction of the time, 0 to 1: minimum jerk (Flash and Hogan, 1985)."""
    t = np.clip(share, 0, 1)
    return t**3 * (10 - 15 * t + 6 * t**2)


def head_motion(rng: np.random.Generator, frames: int, *, pivot: tuple[float, float]) -> Float[np.ndarray, "f 2 3"]:
    """Draw a similarity about `pivot` for each frame, identity at frame 0: at most 1.5 px, 1 degree, 1 percent."""
    shift_x, shift_y = (wander(rng, frames, 1.5 * rng.beta(1.3, 2.5)) for _ in range(2))
    turn = wander(rng, frames, np.radians(1.0) * rng.beta(1.2, 3.0))
    scale = np.exp(wander(rng, frames, 0.01 * rng.beta(1.2, 3.0)))
    return similarity(scale, turn, shift_x, shift_y, pivot=pivot)


def similarity(
    scale: Float[np.ndarray, " f"],
    turn: Float[np.ndarray, " f"],
    shift_x: Float[np.ndarray, " f"],
    shift_y: Float[np.ndarray, " f"],
    *,
    pivot: tuple[float, float],
) -> Float[np.ndarray, "f 2 3"]:
    """Return matrices that scale and turn (radians) about `pivot`, then shift."""
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    px, py = pivot
    return np.stack(
        [
            np.stack([c, -s, px - c * px + s * py + shift_x], axis=-1),
            np.stack([s, c, py - s * px - c * py + shift_y], axis=-1),
        ],
        axis=1,
    )


def flicker(rng: np.random.Generator, frames: int) -> Float[np.ndarray, " f"]:
    """Draw a brightness factor for each frame: mains lamps, and slow drift; within about 2 percent."""
    t = np.arange(frames)
    lamp = rng.uniform(0, 0.008) * np.sin(2 * np.pi * rng.uniform(0.05, 0.45) * t + rng.uniform(0, 2 * np.pi))
    return 1 + lamp + wander(rng, frames, rng.uniform(0, 0.012))
