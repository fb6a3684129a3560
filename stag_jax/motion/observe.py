"""Motion of the face in a clip: track, align, measure from the reference, remove head motion, select frames.

There are two passes. The first measures every frame, aligned by the one transform of the clip; it gives the head motion
and the frames to keep. The second measures the kept frames again, with the exact and slower backend, after warping each
back by its head motion: flow is most exact when it is small, and resampling both pictures alike keeps head motion out
of the result.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from stag_jax.config import Config, FaceConfig
from stag_jax.face import alignment, regions, tracking
from stag_jax.motion import nodes, selection, stabilise, times
from stag_jax.motion import optical_flow as flows
from stag_jax.types import Clip, UserError

STILL = 0.25  # pixels at the rigid points; a head that moved less is not warped back


class Observation(NamedTuple):
    """The measurements of one clip. Frames f are the raw ones; pixels are those of the canonical face."""

    track: tracking.Track
    transform: Float[np.ndarray, "2 3"]  # from raw pixels to the canonical face
    reference: UInt8[np.ndarray, "y x"]  # the face that motion is measured from
    centres: Float[np.ndarray, "n 2"]  # of the regions
    rigid: Float[np.ndarray, "r 2"]  # points that move with the skull
    head: Float[np.ndarray, "f 2 3"]  # head motion since the reference; identity where not tracked
    magnitude: Float[np.ndarray, " f"]  # of the first pass; NaN in the first frame and in refused ones
    index: Int[np.ndarray, " t"]  # the frames kept
    mask: Bool[np.ndarray, " t"]  # False where the clip has fewer frames
    flow: Float[np.ndarray, "t y x 2"]  # muscle motion in the kept frames


def observe(clip: Clip, config: Config, keep: Int[np.ndarray, " t"] | None = None) -> Observation:
    """Measure a clip of frames. Its first frame is the reference of all motion and is never kept.

    Frames that the tracker refuses are skipped. `keep` gives the frames to keep instead of a selection, to compare the
    same moments of two recordings.

    Raises:
      NoFaceError: no usable face in the clip.
      UserError: fewer than two frames, no frame rate, a frame of `keep` that was not tracked, or a setting out of
        range; names the clip.
    """
    motion, size = config.motion, config.face.size
    scout, backend = _checked(clip, config)
    track = tracking.track(clip.frames, config.face, clip=clip.identity.id)
    tracking.require(track, clip=clip.identity.id)
    seen = np.flatnonzero([not reason for reason in track.refused])
    if len(seen) < 2:
        raise UserError(f"{clip.identity.id}: one frame with a usable face; motion needs at least two")
    transform, points = placed(track, config.face)
    centres, rigid = regions.roi_centres(points), regions.rigid_points(points)
    faces = np.stack([alignment.warp(clip.frames[f], transform, size) for f in seen])
    before = faces[:1] if motion.reference == "onset" else faces[:-1]

    first = flows.flows(before, faces[1:], scout)
    head = stabilise.head_motion(first, rigid, motion.stabilise)
    muscles = first - stabilise.head_flow(head, size, size)
    informative = centres[[name not in regions.BLINKING for name in regions.table()]]
    magnitude = selection.frame_magnitude(nodes.node_magnitude(muscles, informative, motion.patch, motion.spacing))
    # `place` counts the tracked frames without the first.
    if keep is None:
        place, mask = selection.select(magnitude, motion.frames, motion.selection)
    elif not np.isin(keep, seen[1:]).all():
        raise UserError(
            f"{clip.identity.id}: frames {sorted(set(keep.tolist()) - set(seen[1:].tolist()))} are not to be seen"
        )
    else:
        place, mask = np.searchsorted(seen[1:], keep), np.ones(len(keep), bool)

    taken = times.frame_times(len(clip.frames), clip.fps, clip.numbers)[seen[1:]]
    averages = [times.around(taken, p, motion.average_ms, 1000 / clip.fps) for p in place.tolist()]
    unsteady = stabilise.reach(head, rigid) > STILL
    remeasured = [p for p in times.places(averages) if unsteady[p] or backend != scout]
    if remeasured:
        transforms = [
            alignment.compose(alignment.inverse(head[p]), transform) if unsteady[p] else transform for p in remeasured
        ]
        put_back = [
            alignment.warp(clip.frames[seen[p + 1]], matrix, size)
            for p, matrix in zip(remeasured, transforms, strict=True)
        ]
        second = flows.flows(before if len(before) == 1 else before[remeasured], np.stack(put_back), backend)
        muscles[remeasured] = stabilise.remove_head_motion(second, rigid, motion.stabilise)
    return Observation(
        track=track,
        transform=transform,
        reference=faces[0],
        centres=centres,
        rigid=rigid,
        head=_scatter(np.tile(np.eye(2, 3), (len(clip.frames), 1, 1)), seen[1:], head),
        magnitude=_scatter(np.full(len(clip.frames), np.nan, np.float32), seen[1:], magnitude),
        index=seen[1:][place],
        mask=mask,
        flow=np.stack([times.mean(muscles, average) for average in averages]),
    )


def placed(track: tracking.Track, face: FaceConfig) -> tuple[Float[np.ndarray, "2 3"], Float[np.ndarray, "p 2"]]:
    """Return the transform of a clip to the canonical face, and its landmarks there.

    The landmarks are those at the start of the clip: the movement of regions comes from the flow.
    """
    transform = alignment.clip_transform(track.landmarks, face)
    return transform, alignment.apply(transform, np.nanmedian(track.landmarks[: face.reference_frames], axis=0))


def _checked(clip: Clip, config: Config) -> tuple[str, str]:
    """Check clip and settings; return the backends of the first and the second pass."""
    motion, name = config.motion, clip.identity.id
    if config.graph.kind != "roi":
        raise UserError(
            f"{name}: config.graph.kind={config.graph.kind!r} is for flow images; clips of frames need 'roi'"
        )
    if len(clip.frames) < 2:
        raise UserError(f"{name}: {len(clip.frames)} frame(s); motion needs at least two")
    if not clip.fps > 0:
        raise UserError(f"{name}: frame rate {clip.fps} is not positive")
    return flows.resolve(motion.first_look, "first_look"), flows.resolve(motion.flow)


def _scatter(into: np.ndarray, where: Int[np.ndarray, " g"], values: np.ndarray) -> np.ndarray:
    into[where] = values
    return into
