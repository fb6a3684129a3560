"""Analyse a recording frame by frame: track faces, measure motion once per frame, and score overlapping windows.

`make_step` makes the pure step (state, frame, timestamp) -> (state, result), used for files, folders and cameras alike.
Each frame costs one landmark fit and one flow per face; every `hop_ms` the network scores the window that ends there.
Memory is bounded by `config.motion.window_ms`, `faces` and the frame rate.
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
TURNING = 0.15  # fraction of the head's travel that stabilisation may leave in the movement: a head is not flat


@dataclasses.dataclass(frozen=True)
class StreamSettings:
    """Settings of the analysis of a recording."""

    hop_ms: float | None = None  # between windows; None: as in training
    faces: int = 1  # largest number of tracked faces
    # For a network that was not trained to spot: movement, in pixels of the canonical face, that counts as an
    # expression while the head is still.
    threshold: float = 0.2


class StreamState(NamedTuple):
    """The state between frames. `StreamState()` is the state before the first frame."""

    watched: watch.WatchState = watch.WatchState()
    time_ms: float = -np.inf


Step = Callable[[StreamState, UInt8[np.ndarray, "y x 3"], float], tuple[StreamState, Result]]


def make_step(recogniser: Recogniser, settings: StreamSettings) -> Step:
    """Make the step of a recogniser. It raises UserError if the config cannot be used, never for what a frame shows.

    A frame whose time is not after the previous frame's is dropped, and the state is unchanged.

    Raises:
      UserError: a setting is out of range, or the network takes flow images.
    """
    config = prepared(recogniser, settings)

    def step(state: StreamState, frame: UInt8[np.ndarray, "y x 3"], time_ms: float) -> tuple[StreamState, Result]:
        if not time_ms > state.time_ms:
            return state, Result(time_ms, (), BACKWARDS)
        watched, observed = watch.step(state.watched, frame, time_ms, config, settings.faces)
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
            for face, field, window in observed
        )
        return StreamState(watched, time_ms), Result(time_ms, faces, "")

    return step


def results(
    recogniser: Recogniser, settings: StreamSettings, frames: Iterable[Frame]
) -> Iterator[tuple[Frame, Result]]:
    """Yield the frames of a recording with their results, as fast as possible; closing the iterator closes `frames`.

    Decoding runs in its own thread. Face detection and motion do not: both are many small calls that Python runs in one
    thread at a time, and a third thread was no faster.

    Raises:
      UserError: as `make_step`, and what `frames` raises.
    """
    step, state = make_step(recogniser, settings), StreamState()
    with contextlib.closing(ahead(frames)) as decoded:
        for frame in decoded:
            state, result = take(step, state, frame)
            yield frame, result


def take(step: Step, state: StreamState, frame: Frame) -> tuple[StreamState, Result]:
    """Call the step for a frame; without pixels the state is unchanged, and the result holds the frame's problem."""
    if frame.pixels is None:
        return state, Result(frame.time_ms, (), frame.problem)
    return step(state, frame.pixels, frame.time_ms)


def prepared(recogniser: Recogniser, settings: StreamSettings) -> Config:
    """Return a recogniser's config with a stream's settings.

    Raises:
      UserError: a setting out of range, and as `make_step`.
    """
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
    """Score a window. `threshold` is used only by a recogniser that was not trained to spot."""
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
    """Return P(emotion | expression) and P(expression), from a network with a class for no expression."""
    is_emotion = np.array([name != NONE for name in classes])
    expression = float(probability[is_emotion].sum())
    return probability[is_emotion] / max(expression, np.finfo(np.float32).tiny), expression


def moves(magnitude: float, threshold: float) -> float:
    """Return the score, by its size alone, that a movement is an expression: 0.5 at `threshold`, towards 1 above it.

    Both are in pixels of the canonical face.
    """
    return magnitude / (magnitude + threshold)
