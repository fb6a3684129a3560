"""A recording as it comes, frame by frame: faces followed, motion measured once a frame, windows looked at in turn.

`make_step` gives the pure step (state, frame, timestamp) -> (state, result). A file, a folder and a camera all go
through it. Each frame costs a landmark fit and one flow a face; each `hop_ms` a window that ends there goes through the
network. Memory is bounded by `config.motion.window_ms`, `faces` and the frame rate.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.config import Config, replace
from stag_jax.deploy.results import FaceResult, Recogniser, Result, Score, largest_units
from stag_jax.deploy.source import Frame, ahead
from stag_jax.motion import incremental, watch
from stag_jax.motion import optical_flow as flows
from stag_jax.protocol.labels import NONE
from stag_jax.types import UserError

BACKWARDS = "time stamp does not go forward"
TURNING = 0.15  # of the head's own way in the window that may be left in the movement: a head is not flat


@dataclasses.dataclass(frozen=True)
class StreamSettings:
    """How a recording is looked at."""

    hop_ms: float | None = None  # between windows; None: as the network was trained
    faces: int = 1  # that are followed at most
    # Of a network that was not trained to spot: pixels of the canonical face by which an expression moves it, of a
    # head that is still.
    threshold: float = 0.2


class StreamState(NamedTuple):
    """All that is remembered from one frame to the next. `State()` has seen nothing."""

    watched: watch.WatchState = watch.WatchState()
    time_ms: float = -np.inf


Step = Callable[[StreamState, UInt8[np.ndarray, "y x 3"], float], tuple[StreamState, Result]]


def make_step(recogniser: Recogniser, settings: StreamSettings) -> Step:
    """The step of a recogniser. It raises UserError where its config cannot be used, and nothing for what frames show.

    A frame whose time does not lie after that of the one before is dropped, and the state stays as it was.

    Raises:
      UserError: a setting out of range, or a network for flow images.
    """
    config = prepared(recogniser, settings)

    def step(state: StreamState, frame: UInt8[np.ndarray, "y x 3"], time_ms: float) -> tuple[StreamState, Result]:
        if not time_ms > state.time_ms:
            return state, Result(time_ms, (), BACKWARDS)
        watched, found = watch.step(state.watched, frame, time_ms, config, settings.faces)
        faces = tuple(
            FaceResult(
                track=face.track,
                box=face.seen.box,
                landmarks=face.seen.landmarks,
                refused=face.seen.refused,
                score=score(window, recogniser, settings.threshold) if window else None,
                flow=field and field.flow,
                transform=field and field.transform,
            )
            for face, field, window in found
        )
        return StreamState(watched, time_ms), Result(time_ms, faces, "")

    return step


def results(
    recogniser: Recogniser, settings: StreamSettings, frames: Iterable[Frame]
) -> Iterator[tuple[Frame, Result]]:
    """The frames of a recording with what the step says of each, as fast as can be; closing it closes `frames`.

    Decoding is a thread of its own. Finding the face and measuring its motion are not: both are many small calls that
    Python lets only one thread do at a time, and a third thread makes it no faster.

    Raises:
      UserError: as `make_step`, and what `frames` raises.
    """
    step, state = make_step(recogniser, settings), StreamState()
    with contextlib.closing(ahead(frames)) as decoded:
        for frame in decoded:
            state, result = take(step, state, frame)
            yield frame, result


def take(step: Step, state: StreamState, frame: Frame) -> tuple[StreamState, Result]:
    """Calls the step for a frame of a recording; one without pixels changes nothing, and its problem is the result."""
    if frame.pixels is None:
        return state, Result(frame.time_ms, (), frame.problem)
    return step(state, frame.pixels, frame.time_ms)


def prepared(recogniser: Recogniser, settings: StreamSettings) -> Config:
    """The config of a recogniser as a stream needs it; raises as `make_step`."""
    for name in ("hop_ms", "threshold"):
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name} must be above 0, got {value}")
    if settings.faces < 1:
        raise UserError(f"--faces must be at least 1, got {settings.faces}")
    config = recogniser.config
    if config.graph.kind != "roi":
        raise UserError(f"{recogniser.name} is for flow images (graph.kind={config.graph.kind!r}), not for video")
    return replace(
        config,
        {
            "motion.first_look": flows.resolve(config.motion.first_look, "first_look"),
            "motion.hop_ms": settings.hop_ms or config.motion.hop_ms,
        },
    )


def score(window: incremental.Window, recogniser: Recogniser, threshold: float) -> Score:
    """What a recogniser says of a window. `threshold` is used where it was not trained to spot."""
    answer = recogniser.forward(window.clips)
    peak = float(window.magnitude[window.phases.apex])
    onset, apex, offset = (float(window.times_ms[index]) for index in window.phases)
    probability, expression = answer.probability[0], moves(peak, threshold + TURNING * window.travel)
    if recogniser.spots:
        probability, expression = spotted(probability, recogniser.config.data.classes)
    return Score(
        start_ms=window.start_ms,
        end_ms=float(window.times_ms[-1]),
        expression=expression,
        probability=probability,
        au_probability=largest_units(answer, window.clips.frame_mask)[0],
        onset_ms=onset,
        apex_ms=apex,
        offset_ms=offset,
        magnitude=peak,
        travel=window.travel,
    )


def spotted(probability: Float[np.ndarray, " k"], classes: Sequence[str]) -> tuple[Float[np.ndarray, " k2"], float]:
    """Of each emotion if there is an expression, and that there is one, from a network with a class for none."""
    emotion = np.array([name != NONE for name in classes])
    there = float(probability[emotion].sum())
    return probability[emotion] / max(there, np.finfo(np.float32).tiny), there


def moves(magnitude: float, threshold: float) -> float:
    """That a movement is an expression, by its size alone: 0.5 at `threshold`, towards 1 above it."""
    return magnitude / (magnitude + threshold)
