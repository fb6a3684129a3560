"""Augment training clips on the device. Each function takes a batch and a key.

`augment` is for raw node features, in pixels; `mixup` is for normalised ones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stag_jax.config import AugmentConfig, Tunable, is_off
from stag_jax.model.graph import mirror
from stag_jax.types import ClipBatch, FaceGraph


class Mixed(NamedTuple):
    """Clips that are each mixed with another clip; `share` is the weight of a clip's own label."""

    clips: ClipBatch
    other_label: Int[Array, " b"]
    share: Float[Array, " b"]  # weight of the clip itself, from a half to 1
    soft: Float[Array, "b k"] | None = None  # teacher's answer for the clip itself; None without a teacher
    other_soft: Float[Array, "b k"] | None = None  # ... and for the other clip


def augment(batch: ClipBatch, graph: FaceGraph, key: Array, config: AugmentConfig) -> ClipBatch:
    """Flip and scale each clip, and hide frames of it, at random; motion stays in pixels."""
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


def drop_frames(batch: ClipBatch, key: Array, rate: Tunable) -> Bool[Array, "b t"]:
    """Hide frames at random in the frame mask; the frame of largest magnitude is kept, so no clip becomes empty."""
    kept = batch.frame_mask & jax.random.bernoulli(key, 1 - rate, batch.frame_mask.shape)
    strongest = jnp.argmax(jnp.where(batch.frame_mask, batch.magnitude, -jnp.inf), axis=1)
    return kept | (jnp.arange(kept.shape[1])[None] == strongest[:, None])


def mixup(batch: ClipBatch, key: Array, alpha: Tunable, soft: Float[Array, "b k"] | None = None) -> Mixed:
    """Mix each clip with the next one: mixup (Zhang et al. 2018, arXiv 1710.09412).

    The share of the clip itself is the larger part of a Beta(alpha, alpha) draw. Frames are mixed one by one in order,
    with the times and the mask of the clip itself. Action units are mixed like the features, where both clips are
    labelled; a teacher's answers, `soft`, are returned unmixed for both clips. alpha = 0 mixes nothing.
    """
    clips = batch.label.shape[0]
    if is_off(alpha):
        return Mixed(batch, batch.label, jnp.ones(clips), soft, soft)
    share = larger_share(key, alpha, clips)
    other, other_soft = jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), (batch, soft))
    weight = share[:, None]
    mixed = batch._replace(
        nodes=weight[:, :, None, None] * batch.nodes + (1 - weight)[:, :, None, None] * other.nodes,
        au=weight * batch.au + (1 - weight) * other.au,
        au_mask=batch.au_mask & other.au_mask,
    )
    return Mixed(mixed, other.label, share, soft, other_soft)


def larger_share(key: Array, alpha: Tunable, clips: int) -> Float[Array, " b"]:
    """Draw max(x, 1 - x), where x is from Beta(alpha, alpha); 1 where alpha is 0.

    By Student's t: x = (1 + t / sqrt(2 alpha + t^2)) / 2 where t has 2 alpha degrees of freedom, and t by the polar
    method of Bailey (1994). Unlike draws of two gammas it needs no rejection loop, which under `vmap` runs until the
    slowest member is done.
    """
    uniform, angle = jax.random.uniform(key, (2, clips), minval=jnp.finfo(jnp.float32).tiny)
    odds = jnp.expm1(-jnp.log(uniform) / jnp.maximum(alpha, 1e-3)) * jnp.cos(2 * jnp.pi * angle) ** 2
    share = (1 + jax.lax.rsqrt(1 + 1 / odds)) / 2
    return jnp.where(alpha > 0, share, 1.0)
