"""Faces of a film, frame by frame: follow each face, measure its motion once per frame, and cut it into windows.

Recordings for training and recordings for prediction both use the step of this file, so that a network gets the same
features in both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from stag_jax.config import Config
from stag_jax.face import crowd
from stag_jax.motion import incremental

SPARE = 1.5  # windows of history that are kept, for frames that come late


class Following(NamedTuple):
    """The motion state of one face."""

    motion: incremental.MotionState = incremental.MotionState()
    next_ms: float = -np.inf  # when the next window is due


Everyone = tuple[tuple[int, Following], ...]  # by track


class WatchState(NamedTuple):
    """The state of a film between two frames. `WatchState()` is the initial state."""

    people: crowd.Crowd = crowd.Crowd()
    following: Everyone = ()


class Watched(NamedTuple):
    """One face in one frame."""

    face: crowd.Followed
    field: incremental.Field | None  # muscle motion, for display
    window: incremental.Window | None  # the window that ends with this frame, if one is due


def step(
    state: WatchState, frame: UInt8[np.ndarray, "y x 3"], time_ms: float, config: Config, faces: int
) -> tuple[WatchState, tuple[Watched, ...]]:
    """Process the next RGB frame of a film at its time; follow at most `faces` faces. Pure.

    First the faces are found (`crowd.step`), then their motion is measured (`measure`).

    Raises:
      UserError: a setting out of range. The content of a frame never raises.
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
    """Measure the motion of the faces found in a frame. Pure.

    For each face a window of `config.motion.window_ms` is cut every `config.motion.hop_ms`, as soon as that much has
    been seen without a gap. Memory is bounded by these two settings and the frame rate.

    Raises:
      UserError: a setting out of range.
    """
    motion = config.motion
    by_track = dict(following)
    new_following, watched = [], []
    for face in found:
        person = by_track.get(face.track, Following())
        motion_state, field = incremental.step(
            person.motion,
            frame,
            face.seen,
            time_ms,
            config,
            broken=face.broken,
            keep_ms=SPARE * motion.window_ms,
        )
        person, window = person._replace(motion=motion_state), None
        if time_ms >= person.next_ms and (window := incremental.window(motion_state, motion.window_ms, config)):
            person = person._replace(next_ms=time_ms + motion.hop_ms)
        new_following.append((face.track, person))
        watched.append(Watched(face, field, window))
    return tuple(new_following), tuple(watched)
