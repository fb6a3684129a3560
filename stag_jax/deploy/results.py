"""Define the results of prediction, for a window, a frame and a recording, as plain records."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from stag_jax.config import Config
from stag_jax.face.landmarks import Box
from stag_jax.protocol.labels import NONE
from stag_jax.types import ClipBatch


class Answer(NamedTuple):
    """The outputs of a network for clips."""

    probability: Float[np.ndarray, "b k"]
    au_probability: Float[np.ndarray, "b t u"]  # NaN from a network without a per-frame AU head


def largest_units(answer: Answer, frame_mask: Bool[np.ndarray, "b t"]) -> Float[np.ndarray, "b u"]:
    """Return the largest probability of each action unit over the valid frames, without padding.

    If the network returns one frame of several, that frame is used, whatever the mask says.
    """
    au = answer.au_probability
    mask = frame_mask if au.shape[1] == frame_mask.shape[1] else np.ones(au.shape[:2], bool)
    return np.max(au, axis=1, where=mask[..., None], initial=-np.inf)


class Recogniser(NamedTuple):
    """A network, or the mean of several, with the config that its inputs need."""

    name: str  # of its workdir or file
    config: Config
    forward: Callable[[ClipBatch], Answer]  # takes raw (not normalised) features; numpy in, numpy out
    digest: str = ""  # hash of its weights; empty if unknown

    @property
    def emotions(self) -> tuple[str, ...]:
        """The classes, except the one for windows without an expression."""
        return tuple(name for name in self.config.data.classes if name != NONE)

    @property
    def spots(self) -> bool:
        """Whether the network was trained to spot: it has a class for windows without an expression."""
        return NONE in self.config.data.classes


class Score(NamedTuple):
    """The prediction for one window of one face. Times are of the recording."""

    start_ms: float
    end_ms: float
    expression: float  # probability, 0 to 1, that the window contains an expression
    probability: Float[np.ndarray, " k"]  # of each emotion, given an expression; sums to 1
    au_probability: Float[np.ndarray, " u"]  # largest over the valid frames
    onset_ms: float  # of the largest movement in the window, by magnitude
    apex_ms: float
    offset_ms: float
    magnitude: float  # size of that movement, pixels of the canonical face
    travel: float  # distance the head moved in the window, pixels of the canonical face


class FaceResult(NamedTuple):
    """One face in one frame."""

    track: int  # number of the face, constant while it is tracked
    box: Box
    landmarks: Float[np.ndarray, "p 2"]  # pixels of the frame; NaN if refused
    refused: str  # why the face is unusable in this frame; empty if usable
    score: Score | None  # of the window that ends with this frame, if any
    flow: Float[np.ndarray, "y x 2"] | None  # muscle movement since the reference, pixels of the canonical face
    transform: Float[np.ndarray, "2 3"] | None  # from the frame to the canonical face, for `flow`


class Result(NamedTuple):
    """One frame."""

    time_ms: float
    faces: tuple[FaceResult, ...]
    dropped: str  # why the frame was not analysed; empty if it was


class Interval(NamedTuple):
    """One expression found. Times are of the recording, in ms."""

    track: int
    onset_ms: float
    apex_ms: float
    offset_ms: float
    emotion: str
    confidence: float  # the largest expression score of its windows
    probability: Float[np.ndarray, " k"]  # of each emotion
    au_probability: Float[np.ndarray, " u"]


class Gap(NamedTuple):
    """A stretch without predictions, and the reason."""

    track: int | None  # None if the gap is the recording's, not a face's
    start_ms: float
    end_ms: float
    reason: str
