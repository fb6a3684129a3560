"""Shared types: axis letters, and the records that pass between packages.

Axis letters, in jaxtyping annotations, in einsums and in short suffixes; each has this one meaning everywhere:

    b clip                  t selected frame (K of them)   n ROI node          u action unit
    d feature               h head                         k class             m member (trial x seed x fold)
    s subject               f raw frame of a clip          y x image row, column
    p landmark (68)         w edge of the time window      e edge feature

A second index on the same axis is written with a following letter or digit (`n2`, `t2`).
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

# A numpy array on the host, a JAX array on a device or while traced; most functions take one of them only.
AnyArray: TypeAlias = Any
Device: TypeAlias = jax.Device  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no type stubs


class UserError(Exception):
    """An error that the user can fix. The message is one line that names the clip, file, key or fold at fault.

    The scripts in `experiments/` print it without a traceback and exit with code 2.
    """


class Diverged(UserError):
    """A loss or a gradient is not finite. The settings are at fault: the same run would fail at the same step."""


class WorkdirGone(Exception):
    """The folder of a run was removed, or taken over by another run, during the run; the scripts exit with code 1."""


class Preempted(Exception):
    """The scheduler has asked the run to stop. The state is saved; the scripts exit with code 75 (try again)."""


class ClipIdentity(NamedTuple):
    """Which clip or recording this is, and its annotation as text."""

    id: str  # corpus/subject/clip
    subject: str  # includes the corpus, so that two corpora never share a subject
    dataset: str
    emotion: str = ""  # empty for a recording, whose events have one each
    objective: str = ""  # objective class, I to VII
    part: str = ""  # official part of the corpus
    group: str = ""  # clips that no split may separate; empty: all clips of the subject

    def grouped(self) -> "ClipIdentity":
        """Return the identity with its group filled in."""
        return self._replace(group=self.group or self.subject)


class Clip(NamedTuple):
    """One recorded clip, as stored in the corpus."""

    identity: ClipIdentity
    action_units: str | None  # the annotators' own text; None where the corpus has no AU labels
    fps: float
    frames: UInt8[np.ndarray, "f y x 3"]  # RGB
    onset: int | None = None  # indices into frames; None where not annotated
    apex: int | None = None
    offset: int | None = None
    numbers: Int[np.ndarray, " f"] | None = None  # frame numbers in the recording; None: without gaps


class FlowClip(NamedTuple):
    """A clip stored only as its onset-to-apex flow image."""

    identity: ClipIdentity
    action_units: str | None
    flow: UInt8[np.ndarray, "y x 3"]  # u, v, strain; 8 bit, as the corpus stores them


class Event(NamedTuple):
    """One annotated expression in a recording. `onset` and `offset` are indices into the frames of the recording."""

    onset: int
    offset: int
    emotion: str
    action_units: str | None = None  # the annotators' own text


class Recording(NamedTuple):
    """A recording with any number of expressions, as stored in the corpus."""

    identity: ClipIdentity
    fps: float
    frames: UInt8[np.ndarray, "f y x 3"]  # RGB
    events: tuple[Event, ...]
    numbers: Int[np.ndarray, " f"] | None = None  # as in Clip


class ClipFeatures(NamedTuple):
    """The network's inputs for one clip, and its annotation."""

    identity: ClipIdentity  # with its group filled in
    nodes: Float[np.ndarray, "t n d"]
    times_ms: Float[np.ndarray, " t"]  # time of each selected frame after the reference frame
    magnitude: Float[np.ndarray, " t"]  # robust flow magnitude, pixels of the canonical face
    frame_mask: Bool[np.ndarray, " t"]  # False where the clip had fewer frames than K
    frame_index: Int[np.ndarray, " t"]  # index into the raw frames
    au: Float[np.ndarray, " u"]  # 1 where the action unit is annotated
    au_mask: Bool[np.ndarray, " u"]  # False where there is no label


class ClipBatch(NamedTuple):
    """Clips as one pytree of arrays: a whole corpus, or the clips of one training step."""

    nodes: Float[AnyArray, "b t n d"]
    times_ms: Float[AnyArray, "b t"]
    magnitude: Float[AnyArray, "b t"]
    frame_mask: Bool[AnyArray, "b t"]
    au: Float[AnyArray, "b u"]
    au_mask: Bool[AnyArray, "b u"]
    label: Int[AnyArray, " b"]


class FaceGraph(NamedTuple):
    """The fixed part of the graph over facial regions, built once in numpy from named nodes and validated."""

    node_names: tuple[str, ...]
    units: tuple[int, ...]  # the action units scored, by FACS number
    adjacency: Float[np.ndarray, "n n2"]  # anatomical closeness in [0, 1]; symmetric, 1 on the diagonal
    incidence: Float[np.ndarray, "u n"]  # 1 where the unit moves the region
    mirror: Int[np.ndarray, " n"]  # index of each node's mirror image when the face is flipped
    position: Float[np.ndarray, "n 2"]  # x, y of the node in the canonical face, 0 to 1
    feature_mirror: Int[np.ndarray, " d"]  # index of each feature's mirror image under the same flip ...
    feature_sign: Float[np.ndarray, " d"]  # ... and its sign there (-1 for horizontal motion)
    strain: Bool[np.ndarray, " d"]  # which features are optical strain
    pooled: int  # number of last features that are statistics over the patch of a node
