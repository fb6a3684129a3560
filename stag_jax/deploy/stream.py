"""A recording as it comes, frame by frame: faces followed, motion measured once a frame, windows looked at in turn.

`make_step` gives the pure step (state, frame, timestamp) -> (state, result). A file, a folder and a camera all go
through it. Each frame costs a landmark fit and one flow a face; each `hop_ms` a window that ends there goes through the
network. Memory is bounded by `window_ms`, `faces` and the frame rate.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from stag_jax.deploy.results import FaceResult, Recogniser, Result, Score, largest_units
from stag_jax.face import crowd
from stag_jax.motion import flow as flows
from stag_jax.motion import live
from stag_jax.types import UserError

BACKWARDS = "time stamp does not go forward"
TURNING = 0.15  # of the head's own way in the window that may be left in the movement: a head is not flat
SPARE = 1.5  # so much of a window is kept, for frames that come late


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a recording is looked at."""

    window_ms: float = 500.0  # as long as a micro-expression can last
    hop_ms: float = 40.0  # between windows
    faces: int = 1  # that are followed at most
    threshold: float = 0.2  # pixels of the canonical face by which an expression moves it, of a head that is still


class Following(NamedTuple):
    """One face."""

    motion: live.State = live.State()
    next_ms: float = -np.inf  # when a window is due


class State(NamedTuple):
    """All that is remembered from one frame to the next. `State()` has seen nothing."""

    people: crowd.Crowd = crowd.Crowd()
    following: tuple[tuple[int, Following], ...] = ()  # by track
    time_ms: float = -np.inf


Step = Callable[[State, UInt8[np.ndarray, "y x 3"], float], tuple[State, Result]]


def make_step(recogniser: Recogniser, settings: Settings) -> Step:
    """The step of a recogniser. It raises UserError where its config cannot be used, and nothing for what frames show.

    A frame whose time does not lie after that of the one before is dropped, and the state stays as it was.

    Raises:
      UserError: a setting out of range, or a network for flow images.
    """
    config = recogniser.config
    for name in ("window_ms", "hop_ms", "threshold"):
        if not getattr(settings, name) > 0:
            raise UserError(f"--{name} must be above 0, got {getattr(settings, name)}")
    if settings.faces < 1:
        raise UserError(f"--faces must be at least 1, got {settings.faces}")
    if config.graph.kind != "roi":
        raise UserError(f"{recogniser.name} is for flow images (graph.kind={config.graph.kind!r}), not for video")
    motion = dataclasses.replace(config.motion, first_look=flows.resolve(config.motion.first_look, "first_look"))
    config = dataclasses.replace(config, motion=motion)

    def step(state: State, frame: UInt8[np.ndarray, "y x 3"], time_ms: float) -> tuple[State, Result]:
        if not time_ms > state.time_ms:
            return state, Result(time_ms, (), BACKWARDS)
        people, found = crowd.step(state.people, frame, time_ms, config.face, settings.faces)
        known = dict(state.following)
        following, faces = [], []
        for one in found:
            own = known.get(one.track, Following())
            keep = SPARE * settings.window_ms
            moved, field = live.step(own.motion, frame, one.seen, time_ms, config, broken=one.broken, keep_ms=keep)
            own, score = own._replace(motion=moved), None
            if time_ms >= own.next_ms and (seen := live.window(moved, settings.window_ms, config)):
                score = _score(seen, recogniser, settings.threshold)
                own = own._replace(next_ms=time_ms + settings.hop_ms)
            following.append((one.track, own))
            faces.append(
                FaceResult(
                    track=one.track,
                    box=one.seen.box,
                    landmarks=one.seen.landmarks,
                    refused=one.seen.refused,
                    score=score,
                    flow=field and field.flow,
                    transform=field and field.transform,
                )
            )
        return State(people, tuple(following), time_ms), Result(time_ms, tuple(faces), "")

    return step


def _score(seen: live.Window, recogniser: Recogniser, threshold: float) -> Score:
    answer = recogniser.forward(seen.clips)
    peak = float(seen.magnitude[seen.phases.apex])
    onset, apex, offset = (float(seen.times_ms[index]) for index in seen.phases)
    return Score(
        start_ms=float(seen.times_ms[0]),
        end_ms=float(seen.times_ms[-1]),
        expression=moves(peak, threshold + TURNING * seen.travel),
        probability=answer.probability[0],
        au_probability=largest_units(answer, seen.clips.frame_mask)[0],
        onset_ms=onset,
        apex_ms=apex,
        offset_ms=offset,
        magnitude=peak,
        travel=seen.travel,
    )


def moves(magnitude: float, threshold: float) -> float:
    """That a movement is an expression, by its size alone: 0.5 at `threshold`, towards 1 above it."""
    return magnitude / (magnitude + threshold)
