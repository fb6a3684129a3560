"""What is done to training clips, on the device. Each function takes a batch of raw node features and a key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stag_jax.config import AugmentConfig
from stag_jax.types import ClipBatch, FaceGraph


def augment(batch: ClipBatch, graph: FaceGraph, key: Array, config: AugmentConfig) -> ClipBatch:
    """Flips, scales and hides frames of each clip at random; motion stays in pixels."""
    flip, gain, hide = jax.random.split(key, 3)
    clips = batch.label.shape[0]
    if config.mirror > 0:
        flipped = jax.random.bernoulli(flip, config.mirror, (clips,))
        batch = batch._replace(nodes=jnp.where(flipped[:, None, None, None], mirror(batch.nodes, graph), batch.nodes))
    if config.magnitude > 0:
        factor = jnp.exp(config.magnitude * jax.random.normal(gain, (clips,)))
        batch = batch._replace(
            nodes=batch.nodes * factor[:, None, None, None], magnitude=batch.magnitude * factor[:, None]
        )
    if config.frame_drop > 0 and batch.nodes.shape[1] > 1:
        batch = batch._replace(frame_mask=drop_frames(batch, hide, config.frame_drop))
    return batch


def mirror(nodes: Float[Array, "b t n d"], graph: FaceGraph) -> Float[Array, "b t n d"]:
    """The features of the face flipped left to right: nodes change places and horizontal motion its sign.

    Action-unit labels carry no side here, so they stay.
    """
    swapped = nodes[:, :, graph.mirror][..., graph.feature_mirror]
    return swapped * jnp.asarray(graph.feature_sign, nodes.dtype)[None, None, None]


def drop_frames(batch: ClipBatch, key: Array, rate: float) -> Array:
    """The frame mask with frames hidden at random; the frame of largest magnitude is kept, so none goes empty."""
    kept = batch.frame_mask & jax.random.bernoulli(key, 1 - rate, batch.frame_mask.shape)
    strongest = jnp.argmax(jnp.where(batch.frame_mask, batch.magnitude, -jnp.inf), axis=1)
    return kept | (jnp.arange(kept.shape[1])[None] == strongest[:, None])
