"""What prediction says: of a window, of a frame, of a recording. Plain records that pass between the files here."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from stag_jax.config import Config
from stag_jax.face.landmarks import Box
from stag_jax.protocol.labels import NONE
from stag_jax.types import ClipBatch


class Answer(NamedTuple):
    """What a network says of clips."""

    probability: Float[np.ndarray, "b k"]
    au_probability: Float[np.ndarray, "b t u"]  # NaN from a network without an AU head a frame


def largest_units(answer: Answer, frame_mask: Bool[np.ndarray, "b t"]) -> Float[np.ndarray, "b u"]:
    """The largest probability of each action unit over the frames that were looked at, padding left out.

    A network that keeps one frame speaks of that one, whatever the mask says.
    """
    au = answer.au_probability
    mask = frame_mask if au.shape[1] == frame_mask.shape[1] else np.ones(au.shape[:2], bool)
    return np.max(au, axis=1, where=mask[..., None], initial=-np.inf)


class Recogniser(NamedTuple):
    """A network, or several that are averaged, and all that is needed to feed it."""

    name: str  # where it comes from
    config: Config
    forward: Callable[[ClipBatch], Answer]  # of raw (not normalised) features; numpy in, numpy out
    digest: str = ""  # a hash of its weights; empty where nobody knows

    @property
    def emotions(self) -> tuple[str, ...]:
        """Its classes but the one of windows without an expression."""
        return tuple(name for name in self.config.data.classes if name != NONE)

    @property
    def spots(self) -> bool:
        """Whether it was trained to tell windows without an expression."""
        return NONE in self.config.data.classes


class Score(NamedTuple):
    """What is said of one window of one face. Times are of the recording."""

    start_ms: float
    end_ms: float
    expression: float  # 0 to 1: that there is an expression in the window
    probability: Float[np.ndarray, " k"]  # of each emotion, if there is one; sums to 1
    au_probability: Float[np.ndarray, " u"]  # largest over the frames that were looked at
    onset_ms: float  # of the largest movement in the window, by magnitude
    apex_ms: float
    offset_ms: float
    magnitude: float  # of that movement, pixels of the canonical face
    travel: float  # how far the head went in the window, pixels of the canonical face


class FaceResult(NamedTuple):
    """One face in one frame."""

    track: int  # the same number for the same face, as long as it is followed
    box: Box
    landmarks: Float[np.ndarray, "p 2"]  # pixels of the frame; NaN where refused
    refused: str  # why this frame of the face is of no use; empty where it is
    score: Score | None  # of the window that ends with this frame, where one does
    flow: Float[np.ndarray, "y x 2"] | None  # movement of the muscles since the reference, pixels of the canonical face
    transform: Float[np.ndarray, "2 3"] | None  # from the frame to the canonical face, for `flow`


class Result(NamedTuple):
    """One frame."""

    time_ms: float
    faces: tuple[FaceResult, ...]
    dropped: str  # why the frame was not looked at; empty where it was


class Interval(NamedTuple):
    """One expression that was found. Times are of the recording, in ms."""

    track: int
    onset_ms: float
    apex_ms: float
    offset_ms: float
    emotion: str
    confidence: float  # the largest score of an expression in its windows
    probability: Float[np.ndarray, " k"]  # of each emotion
    au_probability: Float[np.ndarray, " u"]


class Gap(NamedTuple):
    """A stretch for which nothing is said, and why."""

    track: int | None  # None where it is the recording's rather than a face's
    start_ms: float
    end_ms: float
    reason: str
