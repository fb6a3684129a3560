"""Motion of a face as its frames arrive: one flow a frame, whatever number of windows look at it.

A window's motion is measured from its first frame, so windows that slide would each ask for flows of their own. Here
every frame is measured once, from an anchor that stays for a while, and what regions have moved is summed up from
anchor to anchor; motion between any two frames is then a difference. That is exact to first order in the movement,
which is a pixel or a few. What is kept of a frame is what its nodes are made from, a few kilobytes.
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

ANCHOR = 1000.0  # ms for which frames are measured from the same one
FAR = 8.0  # pixels that a rigid point may be away from where the anchor has it
GAP = 150.0  # ms without a frame after which nothing is known of the movement in between
U, V, XX, YY, XY = range(5)  # kept of a sample: motion in pixels, and the symmetric part of its gradient per pixel

Motion = Float[np.ndarray, "n rows columns 5"]


class Anchor(NamedTuple):
    """The frame that others are measured from. Pixels are those of its canonical face."""

    time_ms: float
    face: UInt8[np.ndarray, "y x"]
    transform: Float[np.ndarray, "2 3"]  # from the frame
    centres: Float[np.ndarray, "n 2"]
    rigid: Float[np.ndarray, "r 2"]
    base: Motion  # of its own frame since the first of the stretch
    head: Float[np.ndarray, "2"]  # how far the head had come by then, pixels


class Moment(NamedTuple):
    """What is kept of a frame."""

    time_ms: float
    motion: Motion  # of the muscles since the first frame of the stretch
    head: Float[np.ndarray, "2"]  # how far the head has come since then, pixels


class MotionState(NamedTuple):
    """One face since it was last lost. `State()` has seen nothing."""

    anchor: Anchor | None = None
    head: Float[np.ndarray, "2 3"] = np.eye(2, 3)  # movement of the head since the anchor
    moments: tuple[Moment, ...] = ()


class Field(NamedTuple):
    """Movement of the muscles since the anchor, to be shown."""

    flow: Float[np.ndarray, "y x 2"]
    transform: Float[np.ndarray, "2 3"]  # from this frame to where the flow has its pixels


class Window(NamedTuple):
    """A stretch of frames as the network takes it. Times are of the recording, in ms."""

    clips: ClipBatch  # b = 1
    start_ms: float  # of the frame from which it is measured
    times_ms: Float[np.ndarray, " f"]  # of all its other frames
    magnitude: Float[np.ndarray, " f"]  # pixels of the canonical face
    phases: selection.Phases  # of the largest movement; indices of `times_ms`
    travel: float  # how far the head went from where it was in the first frame, pixels


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
    """Takes in the next frame of a face. Pure.

    A refused frame, a face that does not continue the one before (`broken`) and a gap of more than `GAP` ms end the
    stretch: nothing of what was before is ever compared with what comes after. Moments older than `keep_ms` are
    forgotten, so that memory is bounded.

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
    # The head is put back to where it was a frame ago: little is left for flow to find.
    transform = alignment.compose(alignment.inverse(state.head), anchor.transform)
    face = alignment.warp(frame, transform, size)
    flow = flows.flow(anchor.face, face, config.motion.first_look)
    rest = stabilise.head_motion(flow[None], anchor.rigid, kind)
    head = alignment.compose(state.head, rest[0])
    muscles = flow - stabilise.head_flow(rest, size, size)[0]
    motion = anchor.base + _sampled(muscles, anchor.centres, config)
    come = anchor.head + (alignment.apply(head, anchor.rigid) - anchor.rigid).mean(axis=0)
    kept = tuple(moment for moment in state.moments if time_ms - moment.time_ms <= keep_ms)
    if time_ms - anchor.time_ms > ANCHOR or stabilise.reach(head[None], anchor.rigid)[0] > FAR:
        anchor, head = _anchor(frame, seen, time_ms, config, motion, come), np.eye(2, 3)
    return MotionState(anchor, head, (*kept, Moment(time_ms, motion, come))), Field(muscles, transform)


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
    """Motion and its gradient at the samples of each node. Central differences of samples are samples of those."""
    at = nodes.samples(centres, config.motion.patch, config.motion.spacing)
    steps = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)], float)
    here, right, left, down, up = bilinear(flow[None], at + steps[:, None, None, None])[0]
    (u_x, v_x), (u_y, v_y) = (np.moveaxis((a - b) / 2, -1, 0) for a, b in ((right, left), (down, up)))
    return np.stack([here[..., 0], here[..., 1], u_x, v_y, (u_y + v_x) / 2], axis=-1).astype(np.float32)


def window(state: MotionState, span_ms: float, config: Config) -> Window | None:
    """The last `span_ms` as a clip that begins with its reference, or None where less has been seen.

    Frames are chosen, averaged over `config.motion.average_ms` to either side and made into nodes as
    `motion.extract` does with a clip.
    """
    taken = np.array([moment.time_ms for moment in state.moments])
    # The frame that is about so long ago; the rate decides how closely it can be met.
    first = int(np.searchsorted(taken, taken[-1] - span_ms, side="right")) - 1 if len(taken) else -1
    if first < 0 or len(taken) - first < 3:
        return None
    motion = np.stack([moment.motion for moment in state.moments[first:]])
    moved, taken = motion[1:] - motion[0], taken[first:]
    after, interval = taken[1:], float(np.median(np.diff(taken)))
    telling = [name not in regions.BLINKING for name in regions.table()]
    length = np.linalg.norm(moved[:, telling, ..., :2], axis=-1).mean(axis=(2, 3))
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
    way = np.stack([moment.head for moment in state.moments[first:]])
    travel = float(np.linalg.norm(way - way[0], axis=1).max())
    return Window(clips, float(taken[0]), after, magnitude, selection.phases(magnitude), travel)


def _features(motion: Float[np.ndarray, "t n rows columns 5"]) -> Float[np.ndarray, "t n d"]:
    """Nodes as `nodes.node_features` lays them out."""
    strain = flows.strain_norm(motion[..., XX], motion[..., YY], motion[..., XY])
    length = np.linalg.norm(motion[..., :2], axis=-1)
    return nodes.with_statistics(np.stack([motion[..., U], motion[..., V], strain, length], axis=-1))
