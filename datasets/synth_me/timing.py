"""When things move: the rise and fall of a muscle, and the slow wander of head and light."""

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
    power: float = 1.0  # above 1 starts late and is narrow at the top


def envelope(pulse: Pulse, frames: int) -> Float[np.ndarray, " f"]:
    """Strength at each frame: a raised cosine up to the apex and another down; 0 at onset and offset and outside."""
    t = np.arange(frames)
    up = np.clip((t - pulse.onset) / (pulse.apex - pulse.onset), 0, 1)
    down = np.clip((pulse.offset - t) / (pulse.offset - pulse.apex), 0, 1)
    return pulse.strength * (np.sin(np.pi / 2 * np.minimum(up, down)) ** 2) ** pulse.power


def wander(rng: np.random.Generator, frames: int, span: float) -> Float[np.ndarray, " f"]:
    """A smooth random walk that starts at 0 and gets as far as `span` at some frame."""
    walk = np.cumsum(rng.standard_normal(frames + 12))
    return _smooth(walk, frames, span)


def sway(rng: np.random.Generator, frames: int, span: float, memory: float) -> Float[np.ndarray, " f"]:
    """As `wander`, but it forgets where it was over `memory` frames, and so never leaves for good: for long clips."""
    past = int(4 * memory)
    fading = np.exp(-np.arange(past) / memory)
    walk = np.convolve(rng.standard_normal(frames + past + 11), fading, mode="valid")
    return _smooth(walk, frames, span)


def _smooth(walk: Float[np.ndarray, " f2"], frames: int, span: float) -> Float[np.ndarray, " f"]:
    """The walk without its jitter, from 0 on, scaled to get as far as `span`."""
    walk = np.convolve(walk, np.hanning(13)[1:-1] / 6, mode="valid")[:frames]
    walk = walk - walk[0]
    return walk * span / max(float(np.abs(walk).max()), 1e-9)


def settle(share: Float[np.ndarray, " f"]) -> Float[np.ndarray, " f"]:
    """The way done after a share of the time, both 0 to 1: the path of least jerk (Flash and Hogan, 1985)."""
    t = np.clip(share, 0, 1)
    return t**3 * (10 - 15 * t + 6 * t**2)


def head_motion(rng: np.random.Generator, frames: int, *, pivot: tuple[float, float]) -> Float[np.ndarray, "f 2 3"]:
    """Similarity of each frame about `pivot`, the identity at frame 0: at most 1.5 px, 1 degree, 1 percent."""
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
    """Matrices that scale and turn (radians) about `pivot`, then shift."""
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
    """Factor on the brightness of each frame: lamps on mains, and slow drift; within about 2 percent."""
    t = np.arange(frames)
    lamp = rng.uniform(0, 0.008) * np.sin(2 * np.pi * rng.uniform(0.05, 0.45) * t + rng.uniform(0, 2 * np.pi))
    return 1 + lamp + wander(rng, frames, rng.uniform(0, 0.012))
