"""Attention as pure functions: joint space-time graph attention (E-GAT), pooling, and scaled dot products.

Softmax is in float32. Neighbours are selected by dense masks, since the graph is small and fixed;
`softmax(..., where=mask)` gives zeros and a zero gradient for a node without neighbours, where `-inf` would give NaN
and a large negative number would spread attention over all nodes.
"""

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from stag_jax.config import Tunable

SLOPE = 0.2  # of the leaky ReLU in GATv2


@jax.custom_vjp
def gatv2(
    query: Float[Array, "*q h i #j d"],
    key: Float[Array, "*k h #i j d"],
    edge: Float[Array, "*e h #i j d"],
    weight: Float[Array, "h d"],
) -> Float[Array, "*qke h i j"]:
    """Compute GATv2 scores: weight . leaky_relu(query + key + edge), broadcast (Brody et al. 2022, arXiv 2105.14491).

    The tensor with both node axes and the score axis is many times larger than anything else in the network.
    The forward pass sums over the short score axis in Python, so that XLA fuses it into one loop and never stores that
    tensor. The backward pass makes one such tensor and reduces it in three ways: on CPU several times faster than
    automatic differentiation, which makes separate reductions for every score dimension.
    """
    total = 0.0
    for index in range(weight.shape[1]):
        mixed = query[..., index] + key[..., index] + edge[..., index]
        scale = jnp.expand_dims(weight[:, index], (*range(mixed.ndim - 3), -2, -1))
        total = total + scale * jax.nn.leaky_relu(mixed, SLOPE)
    return cast(Array, total)  # there is at least one score dimension


def _gatv2_forward(query: Array, key: Array, edge: Array, weight: Array) -> tuple[Array, tuple[Array, ...]]:
    return gatv2(query, key, edge, weight), (query, key, edge, weight)


def _gatv2_backward(saved: tuple[Array, ...], grad: Array) -> tuple[Array, ...]:
    query, key, edge, weight = saved
    slope = jnp.where(query + key + edge > 0, grad[..., None], SLOPE * grad[..., None])
    parts = [_sum_to(slope, x.shape) for x in (query, key, edge)]
    # leaky_relu(x) = slope(x) x, so the gradient of the weight follows from the same three sums.
    shape = (weight.shape[0], 1, 1, weight.shape[1])
    by_weight = cast(Array, sum(_sum_to(x * part, shape) for x, part in zip(saved[:3], parts, strict=True)))
    scale = weight[:, None, None, :]
    return *[part * jnp.expand_dims(scale, range(part.ndim - 4)) for part in parts], by_weight[:, 0, 0]


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Sum `x` over the axes that broadcasting added to an array of `shape`."""
    lead = x.ndim - len(shape)
    axes = (*range(lead), *(lead + i for i, size in enumerate(shape) if size == 1 and x.shape[lead + i] != 1))
    return jnp.sum(x, axis=axes, keepdims=True).reshape(shape)


gatv2.defvjp(_gatv2_forward, _gatv2_backward)


def space_scores(
    query: Float[Array, "*b t h n d"],
    key: Float[Array, "*b t h n d"],
    edge: Float[Array, "h n n2 d"],
    weight: Float[Array, "h d"],
) -> Float[Array, "*b t h n n2"]:
    """Compute GATv2 scores of each node to each node of its frame."""
    edge = jnp.expand_dims(edge, range(query.ndim - 3))
    return gatv2(query[..., :, None, :], key[..., None, :, :], edge, weight)


def time_scores(
    query: Float[Array, "*b t h n d"],
    key: Float[Array, "*b t h n w d"],
    edge: Float[Array, "*b t h w d"],
    weight: Float[Array, "h d"],
) -> Float[Array, "*b t h n w"]:
    """Compute GATv2 scores of each node to itself in the frames of its time window."""
    return gatv2(query[..., :, None, :], key, edge[..., None, :, :], weight)


def joint_weights(
    space: Float[Array, "*b t h n n2"],
    time: Float[Array, "*b t h n w"],
    *,
    space_mask: Bool[Array, "*b t #n n2"],
    time_mask: Bool[Array, "*b t #n w"],
) -> tuple[Float[Array, "*b t h n n2"], Float[Array, "*b t h n w"]]:
    """Apply one softmax over all neighbours of (t, n), in space and in time; masked edges get exactly 0."""
    n = space.shape[-1]
    scores = jnp.concatenate([space, time], axis=-1).astype(jnp.float32)
    rows = (*space_mask.shape[:-2], n)
    mask = jnp.concatenate([jnp.broadcast_to(m, (*rows, m.shape[-1])) for m in (space_mask, time_mask)], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1, where=mask[..., None, :, :])
    return weights[..., :n], weights[..., n:]


def joint_messages(
    space: Float[Array, "*b t h n n2"],
    time: Float[Array, "*b t h n w"],
    value: Float[Array, "*b t h n2 d"],
    value_window: Float[Array, "*b t h n w d"],
) -> Float[Array, "*b t h n d"]:
    """Sum the values of the neighbours, weighted by the joint weights."""
    from_space = jnp.einsum("...thnm,...thmd->...thnd", space.astype(value.dtype), value)
    from_time = jnp.einsum("...thnw,...thnwd->...thnd", time.astype(value.dtype), value_window)
    return from_space + from_time


def windowed(tokens: Float[Array, "*b t h n d"], index: Int[np.ndarray, "t w"]) -> Float[Array, "*b t h n w d"]:
    """Return for each token the tokens of the same node in the frames of `index`."""
    return jnp.moveaxis(jnp.take(tokens, index, axis=-4), -4, -2)


def dot_product(
    query: Float[Array, "*b i h d"],
    key: Float[Array, "*b j h d"],
    value: Float[Array, "*b j h d"],
    mask: Bool[Array, "*b j"] | None = None,
) -> tuple[Float[Array, "*b i h d"], Float[Array, "*b h i j"]]:
    """Apply scaled dot-product attention over the tokens of `mask`; return the result and the weights."""
    scores = jnp.einsum("...ihd,...jhd->...hij", query, key).astype(jnp.float32) / query.shape[-1] ** 0.5
    where = None if mask is None else mask[..., None, None, :]
    weights = jax.nn.softmax(scores, axis=-1, where=where)
    return jnp.einsum("...hij,...jhd->...ihd", weights.astype(value.dtype), value), weights


def pool(
    score: Float[Array, "*b i"], value: Float[Array, "*b i d"], mask: Bool[Array, "*b i"] | None = None
) -> tuple[Float[Array, "*b d"], Float[Array, "*b i"]]:
    """Apply attention pooling over one axis; return the weighted sum and the weights."""
    weights = jax.nn.softmax(score.astype(jnp.float32), axis=-1, where=mask)
    return jnp.einsum("...i,...id->...d", weights.astype(value.dtype), value), weights


def drop_edges(mask: Bool[Array, "*edges"], key: Array, rate: Tunable) -> Bool[Array, "*edges"]:
    """Drop each edge of `mask` with probability `rate`."""
    return mask & jax.random.bernoulli(key, 1 - rate, mask.shape)


def drop_features(x: Float[Array, "*b i d"], key: Array, rate: Tunable, *, locked: bool) -> Float[Array, "*b i d"]:
    """Set each feature to zero with probability `rate`, and scale the others up to compensate.

    `locked`: all tokens (the last axis but one) lose the same features. It regularises equally well here, and draws
    fewer random numbers by a factor of the number of tokens.
    """
    shape = (*x.shape[:-2], 1, x.shape[-1]) if locked else x.shape
    kept = jax.random.bernoulli(key, 1 - rate, shape)
    scale = 1 / jnp.maximum(jnp.asarray(1 - rate, x.dtype), jnp.finfo(x.dtype).tiny)
    return jnp.where(kept, x * scale, 0)
