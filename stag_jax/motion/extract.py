"""From a clip to the features that the network gets."""

from typing import Any

import numpy as np

from stag_jax.config import Config
from stag_jax.face import action_units
from stag_jax.motion import nodes, optical_flow, selection, times
from stag_jax.motion.observe import Observation, observe
from stag_jax.types import Clip, ClipFeatures, FlowClip


def extract(clip: Clip | FlowClip, config: Config) -> ClipFeatures:
    """Compute node features, times, magnitudes and action unit targets of one clip.

    A clip of frames gives t = config.motion.frames; if it has fewer, the rest is masked and its features and magnitude
    are zero. The first frame is the reference of all motion and is never selected. A flow image gives t = 1.

    Raises:
      NoFaceError: no usable face in the clip.
      UserError: fewer than two frames, no frame rate, or a setting out of range; clip named.
    """
    if isinstance(clip, FlowClip):
        return from_flow_image(clip, config)
    return from_frames(clip, observe(clip, config), config)


def from_frames(clip: Clip, seen: Observation, config: Config) -> ClipFeatures:
    """Compute the features of an observed clip."""
    motion = config.motion
    mask = seen.mask.astype(np.float32)
    centres = nodes.kept(seen.centres, config.graph)
    times_ms = times.frame_times(len(clip.frames), clip.fps, clip.numbers)
    features = nodes.node_features(seen.flow, optical_flow.strain(seen.flow), centres, motion.patch, motion.spacing)
    return ClipFeatures(
        **_known(clip, config),
        nodes=features * mask[:, None, None],
        times_ms=times_ms[seen.index].astype(np.float32),
        magnitude=seen.magnitude[seen.index] * mask,
        frame_mask=seen.mask,
        frame_index=seen.index,
    )


def from_flow_image(clip: FlowClip, config: Config) -> ClipFeatures:
    """Compute the features of a clip given as a flow image."""
    features = nodes.flow_image_nodes(clip.flow, config.graph, config.motion)
    return ClipFeatures(
        **_known(clip, config),
        nodes=nodes.kept(features, config.graph),
        times_ms=np.zeros(1, np.float32),
        magnitude=selection.frame_magnitude(features[..., nodes.MEAN_MAGNITUDE]),
        frame_mask=np.ones(1, bool),
        frame_index=np.zeros(1, int),
    )


def _known(clip: Clip | FlowClip, config: Config) -> dict[str, Any]:
    """Return the annotations of a clip, the same for frames and flow images."""
    au, au_mask = action_units.labels(clip.action_units, config.graph.units, clip=clip.identity.id)
    return {"identity": clip.identity.grouped(), "au": au, "au_mask": au_mask}
