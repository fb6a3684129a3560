"""Faces of a film from frame to frame: each followed, its motion measured once a frame, cut into windows on the way.

Recordings that are trained on and recordings that are asked about go through the one step of this file, so that a
network meets the same features in both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from stag_jax.config import Config
from stag_jax.face import crowd
from stag_jax.motion import incremental

SPARE = 1.5  # so much of a window is kept, for frames that come late


class Following(NamedTuple):
    """One face."""

    motion: incremental.MotionState = incremental.MotionState()
    next_ms: float = -np.inf  # when a window is due


Everyone = tuple[tuple[int, Following], ...]  # by track


class WatchState(NamedTuple):
    """All that is remembered from one frame to the next. `State()` has seen nothing."""

    people: crowd.Crowd = crowd.Crowd()
    following: Everyone = ()


class Watched(NamedTuple):
    """One face in one frame."""

    face: crowd.Followed
    field: incremental.Field | None  # movement of its muscles, to be shown
    window: incremental.Window | None  # that ends with this frame, where one is due


def step(
    state: WatchState, frame: UInt8[np.ndarray, "y x 3"], time_ms: float, config: Config, faces: int
) -> tuple[WatchState, tuple[Watched, ...]]:
    """Takes in the next frame of a film, RGB, at its time, and follows at most `faces` faces in it. Pure.

    First come the faces (`crowd.step`), then their motion (`measure`).

    Raises:
      UserError: a setting out of range. Nothing is raised for what a frame shows.
    """
    people, found = crowd.step(state.people, frame, time_ms, config.face, faces)
    following, watched = measure(state.following, found, frame, time_ms, config)
    return WatchState(people, following), watched


def measure(
    following: Everyone,
    found: Sequence[crowd.Followed],
    frame: UInt8[np.ndarray, "y x 3"],
    time_ms: float,
    config: Config,
) -> tuple[Everyone, tuple[Watched, ...]]:
    """The motion of the faces that were found in a frame. Pure.

    Of each face a window of `config.motion.window_ms` is cut every `config.motion.hop_ms`, as soon as so much has been
    seen of it without a gap. Memory is bounded by the two, and by the frame rate.

    Raises:
      UserError: a setting out of range.
    """
    motion = config.motion
    known = dict(following)
    after, watched = [], []
    for face in found:
        own = known.get(face.track, Following())
        moved, field = incremental.step(
            own.motion,
            frame,
            face.seen,
            time_ms,
            config,
            broken=face.broken,
            keep_ms=SPARE * motion.window_ms,
        )
        own, window = own._replace(motion=moved), None
        if time_ms >= own.next_ms and (window := incremental.window(moved, motion.window_ms, config)):
            own = own._replace(next_ms=time_ms + motion.hop_ms)
        after.append((face.track, own))
        watched.append(Watched(face, field, window))
    return tuple(after), tuple(watched)
