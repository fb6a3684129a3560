"""The whole way from a clip to what the network sees of it."""

from typing import Any

import numpy as np

from stag_jax.config import Config
from stag_jax.face import action_units, alignment, landmarks, regions
from stag_jax.motion import flow, nodes, selection, stabilise
from stag_jax.types import Clip, ClipFeatures, FlowClip, UserError


def extract(clip: Clip | FlowClip, config: Config) -> ClipFeatures:
    """Node features, times, magnitudes and action unit targets of one clip.

    A clip of frames gives t = config.motion.frames; where it has fewer, the rest is masked and its features and
    magnitude are zero. The first frame is the reference of all motion and is never among them. A flow image gives t =
    1.

    Raises:
      NoFaceError: no face in the clip.
      UserError: fewer than two frames, no frame rate, unreadable action units, or a setting out of range; clip named.
    """
    if isinstance(clip, FlowClip):
        return _from_flow_image(clip, config)
    return _from_frames(clip, config)


def _from_frames(clip: Clip, config: Config) -> ClipFeatures:
    motion = config.motion
    if config.graph.kind != "roi":
        raise UserError(
            f"{clip.id}: config.graph.kind={config.graph.kind!r} is for flow images; clips of frames need 'roi'"
        )
    if len(clip.frames) < 2:
        raise UserError(f"{clip.id}: {len(clip.frames)} frame(s); motion needs at least two")
    if not clip.fps > 0:
        raise UserError(f"{clip.id}: frame rate {clip.fps} is not positive")
    tracked = landmarks.track(clip.frames, config.face, clip=clip.id)
    faces, points, _ = alignment.align(clip.frames, tracked, config.face)
    # Regions stay where they are at the start: it is the flow from there that says how they move.
    reference = np.median(points[: config.face.reference_frames], axis=0)
    flows = stabilise.remove_head_motion(
        flow.clip_flow(faces, motion), regions.rigid_points(reference), motion.stabilise
    )
    centres = regions.roi_centres(reference)
    magnitude = selection.robust_magnitude(nodes.node_magnitude(flows, centres, motion.patch, motion.spacing))
    index, mask = selection.select(magnitude[1:], motion.frames, motion.selection)
    index = index + 1
    kept = flows[index]
    features = nodes.node_features(kept, flow.strain(kept), centres, motion.patch, motion.spacing)
    return ClipFeatures(
        **_known(clip, config),
        nodes=features * mask[:, None, None].astype(np.float32),
        times_ms=(index * (1000 / clip.fps)).astype(np.float32),
        magnitude=magnitude[index] * mask.astype(np.float32),
        frame_mask=mask,
        frame_index=index,
    )


def _from_flow_image(clip: FlowClip, config: Config) -> ClipFeatures:
    features = nodes.flow_image_nodes(clip.flow, config.graph, config.motion)
    return ClipFeatures(
        **_known(clip, config),
        nodes=features,
        times_ms=np.zeros(1, np.float32),
        magnitude=selection.robust_magnitude(features[..., nodes.MEAN_MAGNITUDE]),
        frame_mask=np.ones(1, bool),
        frame_index=np.zeros(1, int),
    )


def _known(clip: Clip | FlowClip, config: Config) -> dict[str, Any]:
    """What the corpus says of a clip, whichever form its motion has."""
    au, au_mask = action_units.labels(clip.action_units, config.graph.units, clip=clip.id)
    text = {name: getattr(clip, name) for name in ("id", "subject", "dataset", "emotion")}
    return {**text, "au": au, "au_mask": au_mask}
