"""What is done to training clips, on the device. Each function takes a batch and a key.

`augment` is for raw node features, in pixels; `mixup` for normalised ones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from stag_jax.config import AugmentConfig, Tunable, is_off
from stag_jax.model.graph import mirror
from stag_jax.types import ClipBatch, FaceGraph


class Mixed(NamedTuple):
    """Clips of which each is partly another: what belongs to the label of its own, and what to the other's."""

    clips: ClipBatch
    other_label: Int[Array, " b"]
    share: Float[Array, " b"]  # of its own, from a half to 1
    soft: Float[Array, "b k"] | None = None  # what a teacher says of its own; None without a teacher
    other_soft: Float[Array, "b k"] | None = None  # ... and of the other


def augment(batch: ClipBatch, graph: FaceGraph, key: Array, config: AugmentConfig) -> ClipBatch:
    """Flips, scales and hides frames of each clip at random; motion stays in pixels."""
    flip, gain, hide = jax.random.split(key, 3)
    clips = batch.label.shape[0]
    if not is_off(config.mirror):
        flipped = jax.random.bernoulli(flip, config.mirror, (clips,))
        batch = batch._replace(nodes=jnp.where(flipped[:, None, None, None], mirror(batch.nodes, graph), batch.nodes))
    if not is_off(config.magnitude):
        factor = jnp.exp(config.magnitude * jax.random.normal(gain, (clips,)))
        batch = batch._replace(
            nodes=batch.nodes * factor[:, None, None, None], magnitude=batch.magnitude * factor[:, None]
        )
    if not is_off(config.frame_drop) and batch.nodes.shape[1] > 1:
        batch = batch._replace(frame_mask=drop_frames(batch, hide, config.frame_drop))
    return batch


def drop_frames(batch: ClipBatch, key: Array, rate: Tunable) -> Array:
    """The frame mask with frames hidden at random; the frame of largest magnitude is kept, so none goes empty."""
    kept = batch.frame_mask & jax.random.bernoulli(key, 1 - rate, batch.frame_mask.shape)
    strongest = jnp.argmax(jnp.where(batch.frame_mask, batch.magnitude, -jnp.inf), axis=1)
    return kept | (jnp.arange(kept.shape[1])[None] == strongest[:, None])


def mixup(batch: ClipBatch, key: Array, alpha: Tunable, soft: Float[Array, "b k"] | None = None) -> Mixed:
    """Each clip with some of the next one added: mixup (Zhang et al. 2018, arXiv 1710.09412).

    The share of a clip's own is the larger part of a Beta(alpha, alpha) draw; frames are mixed one by one in order, and
    keep the times and the mask of the clip whose share is the larger. Action units are mixed like the features, as far
    as both clips are labelled; what a teacher says of them, `soft`, is kept apart. alpha = 0 mixes nothing.
    """
    clips = batch.label.shape[0]
    if is_off(alpha):
        return Mixed(batch, batch.label, jnp.ones(clips), soft, soft)
    share = larger_share(key, alpha, clips)
    other, other_soft = jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), (batch, soft))
    own = share[:, None]
    mixed = batch._replace(
        nodes=own[:, :, None, None] * batch.nodes + (1 - own)[:, :, None, None] * other.nodes,
        au=own * batch.au + (1 - own) * other.au,
        au_mask=batch.au_mask & other.au_mask,
    )
    return Mixed(mixed, other.label, share, soft, other_soft)


def larger_share(key: Array, alpha: Tunable, clips: int) -> Float[Array, " b"]:
    """max(x, 1 - x) of draws x from Beta(alpha, alpha); 1 where alpha is 0.

    By Student's t: x = (1 + t / sqrt(2 alpha + t^2)) / 2 where t has 2 alpha degrees of freedom, and t by the polar
    method of Bailey (1994). There is no loop of rejection in it, unlike in draws of two gammas, which under `vmap` go
    on until the last member has been served.
    """
    uniform, angle = jax.random.uniform(key, (2, clips), minval=jnp.finfo(jnp.float32).tiny)
    odds = jnp.expm1(-jnp.log(uniform) / jnp.maximum(alpha, 1e-3)) * jnp.cos(2 * jnp.pi * angle) ** 2
    share = (1 + jax.lax.rsqrt(1 + 1 / odds)) / 2
    return jnp.where(alpha > 0, share, 1.0)
