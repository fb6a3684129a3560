"""Motion of a face as its frames arrive: one flow per frame, for any number of windows that contain it.

The motion of a window is measured from its first frame, so each sliding window would need its own flows. Here every
frame is measured once, from an anchor frame that stays for a while, and the motion of the regions is summed from anchor
to anchor; motion between any two frames is then a difference. This is exact to first order in the movement, which is
one or a few pixels. Only what the node features need is kept of a frame, a few kilobytes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.config import Config
from stag_jax.face import alignment, regions
from stag_jax.face.tracking import SeenFace
from stag_jax.motion import nodes, selection, stabilise, times
from stag_jax.motion import optical_flow as flows
from stag_jax.motion.sampling import bilinear
from stag_jax.types import ClipBatch

ANCHOR = 1000.0  # ms for which one anchor is used
FAR = 8.0  # pixels; a new anchor is set when a rigid point is farther than this from its place in the anchor
GAP = 150.0  # ms without a frame after which the movement in between is unknown
U, V, XX, YY, XY = range(5)  # values of a sample: motion in pixels, and the symmetric part of its gradient per pixel

Motion = Float[np.ndarray, "n rows columns 5"]


class Anchor(NamedTuple):
    """The frame from which others are measured. Pixels are those of its canonical face."""

    time_ms: float
    face: UInt8[np.ndarray, "y x"]
    transform: Float[np.ndarray, "2 3"]  # from the frame
    centres: Float[np.ndarray, "n 2"]
    rigid: Float[np.ndarray, "r 2"]
    base: Motion  # of this frame since the first frame of the stretch
    head: Float[np.ndarray, "2"]  # displacement of the head since then, pixels


class Moment(NamedTuple):
    """The values kept of one frame."""

    time_ms: float
    motion: Motion  # muscle motion since the first frame of the stretch
    head: Float[np.ndarray, "2"]  # displacement of the head since then, pixels


class MotionState(NamedTuple):
    """The motion of one face since it was last lost (a stretch of frames). `MotionState()` is the initial state."""

    anchor: Anchor | None = None
    head: Float[np.ndarray, "2 3"] = np.eye(2, 3)  # head motion since the anchor
    moments: tuple[Moment, ...] = ()


class Field(NamedTuple):
    """Muscle motion since the anchor, for display."""

    flow: Float[np.ndarray, "y x 2"]
    transform: Float[np.ndarray, "2 3"]  # from pixels of this frame to pixels of the flow


class Window(NamedTuple):
    """One window of frames as input of the network. Times are of the recording, in ms."""

    clips: ClipBatch  # b = 1
    start_ms: float  # of the reference frame
    times_ms: Float[np.ndarray, " f"]  # of all other frames of the window
    magnitude: Float[np.ndarray, " f"]  # pixels of the canonical face
    phases: selection.Phases  # of the largest movement; indices of `times_ms`
    travel: float  # largest displacement of the head from the first frame, pixels


def step(
    state: MotionState,
    frame: UInt8[np.ndarray, "y x 3"],
    seen: SeenFace,
    time_ms: float,
    config: Config,
    *,
    broken: bool,
    keep_ms: float,
) -> tuple[MotionState, Field | None]:
    """Process the next frame of a face. Pure.

    A refused frame, a face that does not continue the previous one (`broken`) and a gap of more than `GAP` ms end the
    stretch: frames before and after are never compared. Moments older than `keep_ms` are dropped, so that memory is
    bounded.

    Raises:
      UserError: an unknown backend or kind in `config.motion`.
    """
    if seen.refused:
        return MotionState(), None
    anchor = state.anchor
    if anchor is None or broken or time_ms - state.moments[-1].time_ms > GAP:
        anchor = _anchor(frame, seen, time_ms, config, None, np.zeros(2))
        return MotionState(anchor, np.eye(2, 3), (Moment(time_ms, anchor.base, anchor.head),)), None
    size, kind = config.face.size, config.motion.stabilise
    # The head is warped back by its motion up to the previous frame, so the flow is small.
    transform = alignment.compose(alignment.inverse(state.head), anchor.transform)
    face = alignment.warp(frame, transform, size)
    flow = flows.flow(anchor.face, face, config.motion.first_look)
    correction = stabilise.head_motion(flow[None], anchor.rigid, kind)
    head = alignment.compose(state.head, correction[0])
    muscles = flow - stabilise.head_flow(correction, size, size)[0]
    motion = anchor.base + _sampled(muscles, anchor.centres, config)
    head_path = anchor.head + (alignment.apply(head, anchor.rigid) - anchor.rigid).mean(axis=0)
    moments = tuple(moment for moment in state.moments if time_ms - moment.time_ms <= keep_ms)
    if time_ms - anchor.time_ms > ANCHOR or stabilise.reach(head[None], anchor.rigid)[0] > FAR:
        anchor, head = _anchor(frame, seen, time_ms, config, motion, head_path), np.eye(2, 3)
    return MotionState(anchor, head, (*moments, Moment(time_ms, motion, head_path))), Field(muscles, transform)


def _anchor(
    frame: UInt8[np.ndarray, "y x 3"],
    seen: SeenFace,
    time_ms: float,
    config: Config,
    base: Motion | None,
    head: Float[np.ndarray, "2"],
) -> Anchor:
    transform = alignment.clip_transform(seen.landmarks[None], config.face)
    points = alignment.apply(transform, seen.landmarks)
    centres, patch = regions.roi_centres(points), config.motion.patch
    if base is None:
        base = np.zeros((len(centres), patch, patch, 5), np.float32)
    face = alignment.warp(frame, transform, config.face.size)
    return Anchor(time_ms, face, transform, centres, regions.rigid_points(points), base, head)


def _sampled(flow: Float[np.ndarray, "y x 2"], centres: Float[np.ndarray, "n 2"], config: Config) -> Motion:
    """Sample motion and its gradient for each node. The gradient is central differences of samples one pixel apart."""
    points = nodes.samples(centres, config.motion.patch, config.motion.spacing)
    steps = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)], float)
    centre, right, left, down, up = bilinear(flow[None], points + steps[:, None, None, None])[0]
    (u_x, v_x), (u_y, v_y) = (np.moveaxis((a - b) / 2, -1, 0) for a, b in ((right, left), (down, up)))
    return np.stack([centre[..., 0], centre[..., 1], u_x, v_y, (u_y + v_x) / 2], axis=-1).astype(np.float32)


def window(state: MotionState, span_ms: float, config: Config) -> Window | None:
    """Return the last `span_ms` as a clip that begins with its reference, or None if less has been seen.

    Frames are selected, averaged over `config.motion.average_ms` to either side and converted to node features as in
    `motion.extract`.
    """
    taken = np.array([moment.time_ms for moment in state.moments])
    # The last frame that is at least `span_ms` old; the frame rate limits how exact this is.
    first = int(np.searchsorted(taken, taken[-1] - span_ms, side="right")) - 1 if len(taken) else -1
    if first < 0 or len(taken) - first < 3:
        return None
    motion = np.stack([moment.motion for moment in state.moments[first:]])
    moved, taken = motion[1:] - motion[0], taken[first:]
    after, interval = taken[1:], float(np.median(np.diff(taken)))
    informative = [name not in regions.BLINKING for name in regions.table()]
    length = np.linalg.norm(moved[:, informative, ..., :2], axis=-1).mean(axis=(2, 3))
    magnitude = selection.frame_magnitude(length)
    place, mask = selection.select(magnitude, config.motion.frames, config.motion.selection)
    averages = [times.around(after, p, config.motion.average_ms, interval) for p in place.tolist()]
    chosen = np.stack([times.mean(moved, average) for average in averages])
    shown = mask.astype(np.float32)
    clips = ClipBatch(
        nodes=(nodes.kept(_features(chosen), config.graph) * shown[:, None, None])[None],
        times_ms=(after[place] - taken[0])[None].astype(np.float32),
        magnitude=(magnitude[place] * shown)[None].astype(np.float32),
        frame_mask=mask[None],
        au=np.zeros((1, len(config.graph.units)), np.float32),
        au_mask=np.zeros((1, len(config.graph.units)), bool),
        label=np.zeros(1, np.int32),
    )
    head_path = np.stack([moment.head for moment in state.moments[first:]])
    travel = float(np.linalg.norm(head_path - head_path[0], axis=1).max())
    return Window(clips, float(taken[0]), after, magnitude, selection.phases(magnitude), travel)


def _features(motion: Float[np.ndarray, "t n rows columns 5"]) -> Float[np.ndarray, "t n d"]:
    """Return node features in the layout of `nodes.node_features`."""
    strain = flows.strain_norm(motion[..., XX], motion[..., YY], motion[..., XY])
    length = np.linalg.norm(motion[..., :2], axis=-1)
    return nodes.with_statistics(np.stack([motion[..., U], motion[..., V], strain, length], axis=-1))
