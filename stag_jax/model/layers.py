"""Thin Linen modules: they hold parameters and call the pure functions of `graph` and `attention`.

Every module takes any number of leading clip axes and is independent of members and devices. Activations have the dtype
of the node features, and parameters come in the same dtype; softmax, connectivity and logits are always float32.

Attention keys have no bias: softmax cancels it, and an optimiser that rescales gradients would turn the rounding noise
in its zero gradient into random steps.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from stag_jax.config import Tunable, is_off
from stag_jax.model import attention
from stag_jax.model import graph as graph_ops
from stag_jax.types import FaceGraph

Aux = dict[str, Array]


class Dropout(nn.Module):
    """Dropout by `attention.drop_features`. Flax's Dropout needs a plain number; here the rate may be traced."""

    rate: Tunable
    locked: bool = True

    def __call__(self, x: Float[Array, "*b i d"], *, train: bool) -> Float[Array, "*b i d"]:
        if not train or is_off(self.rate):
            return x
        return attention.drop_features(x, self.make_rng("dropout"), self.rate, locked=self.locked)


class Mlp(nn.Module):
    """A pre-norm residual MLP."""

    ratio: int
    dropout: Tunable

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"], *, train: bool) -> Float[Array, "*b d"]:
        width = x.shape[-1]
        y = nn.gelu(nn.Dense(self.ratio * width, name="up")(nn.LayerNorm(name="norm")(x)))
        y = nn.Dense(width, name="down")(y)
        return x + Dropout(self.dropout)(y, train=train)


class ActionUnitHead(nn.Module):
    """The head with one logit per frame and unit, from the mean over the regions that the unit moves."""

    @nn.compact
    def __call__(self, h: Float[Array, "*b t n d"], incidence: Float[np.ndarray, "u n"]) -> Float[Array, "*b t u"]:
        share = jnp.asarray(incidence / incidence.sum(axis=1, keepdims=True), h.dtype)
        pooled = jnp.einsum("un,...tnd->...tud", share, nn.gelu(nn.LayerNorm(name="norm")(h)))
        weight = self.param("weight", nn.initializers.lecun_normal(), (h.shape[-1], share.shape[0]))
        # Units are rare: a start near a probability of 0.1 saves the first steps down from 0.5.
        bias = self.param("bias", nn.initializers.constant(-2.0), (share.shape[0],))
        logits = jnp.einsum("...tud,du->...tu", pooled, weight)
        return (logits + jnp.expand_dims(bias, range(logits.ndim - 1))).astype(jnp.float32)


class Connectivity(nn.Module):
    """The attention bias B[t] = log(floor + S + M^T diag(a) C diag(a) M), with S and C learned."""

    dynamic: bool

    @nn.compact
    def __call__(self, au_prob: Float[Array, "*b t u"], graph: FaceGraph) -> Float[Array, "*b t n n2"]:
        start = graph_ops.softplus_inverse(jnp.asarray(np.maximum(graph.adjacency, 1e-2), jnp.float32))
        static = graph_ops.non_negative(self.param("adjacency", lambda _: start).astype(jnp.float32))
        units = len(graph.units)
        # `set_cooccurrence` sets the statistics of the training clips before the first step.
        neutral = graph_ops.softplus_inverse(jnp.maximum(jnp.eye(units), 1e-2))
        cooccurrence = graph_ops.non_negative(self.param("cooccurrence", lambda _: neutral).astype(jnp.float32))
        if not self.dynamic:
            shape = (*au_prob.shape[:-1], *static.shape)
            return jnp.broadcast_to(graph_ops.attention_bias(static, None), shape)
        incidence = jnp.asarray(graph.incidence, jnp.float32)
        return graph_ops.attention_bias(static, graph_ops.dynamic_connectivity(au_prob, incidence, cooccurrence))


class GraphAttention(nn.Module):
    """One E-GAT layer on the joint graph: space edges biased by B[t], time edges to the same region."""

    heads: int
    score_dim: int
    window: int
    mlp_ratio: int
    dropout: Tunable
    edge_dropout: Tunable

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "*b t n d"],
        bias: Float[Array, "*b t n n2"],
        times_ms: Float[Array, "*b t"],
        frame_mask: Bool[Array, "*b t"],
        graph: FaceGraph,
        *,
        train: bool,
    ) -> tuple[Float[Array, "*b t n d"], Aux]:
        width, frames, n = h.shape[-1], h.shape[-3], h.shape[-2]
        score = (self.heads, self.score_dim)
        z = nn.LayerNorm(name="norm")(h)
        # Heads before nodes: then the long loops run over the inner axes.
        query = jnp.swapaxes(nn.DenseGeneral(score, name="query")(z), -3, -2)
        key = jnp.swapaxes(nn.DenseGeneral(score, use_bias=False, name="key")(z), -3, -2)
        value = jnp.swapaxes(nn.DenseGeneral((self.heads, width // self.heads), name="value")(z), -3, -2)
        weight = self.param("score", nn.initializers.lecun_normal(in_axis=-1, out_axis=-2), score)

        index, exists = graph_ops.time_window(frames, self.window)
        space_features = jnp.asarray(graph_ops.space_edge_features(graph), h.dtype)
        space_edge = nn.DenseGeneral(score, use_bias=False, name="space_edge")(space_features)
        # Only time edges have a bias: it distinguishes them from space edges.
        time_features = graph_ops.time_edge_features(times_ms, index).astype(h.dtype)
        time_edge = nn.DenseGeneral(score, name="time_edge")(time_features)
        space = attention.space_scores(query, key, jnp.moveaxis(space_edge, -2, 0), weight)
        space = space.astype(jnp.float32) + bias[..., None, :, :]
        time = attention.time_scores(query, attention.windowed(key, index), jnp.swapaxes(time_edge, -3, -2), weight)

        space_mask = jnp.broadcast_to(frame_mask[..., None, None], (*frame_mask.shape, n, n))
        neighbour = jnp.take(frame_mask, index, axis=-1) & jnp.expand_dims(exists, range(frame_mask.ndim - 1))
        time_mask = jnp.broadcast_to(neighbour[..., None, :], (*frame_mask.shape, n, index.shape[1]))
        if train and not is_off(self.edge_dropout):
            space_key, time_key = jax.random.split(self.make_rng("dropout"))
            kept = attention.drop_edges(space_mask, space_key, self.edge_dropout)
            # The edge of a node to itself is always kept, so that no node loses all edges.
            space_mask = kept | (space_mask & jnp.expand_dims(jnp.eye(n, dtype=bool), range(kept.ndim - 2)))
            time_mask = attention.drop_edges(time_mask, time_key, self.edge_dropout)
        space, time = attention.joint_weights(space, time, space_mask=space_mask, time_mask=time_mask)
        message = attention.joint_messages(space, time, value, attention.windowed(value, index))
        message = nn.DenseGeneral(width, axis=(-2, -1), name="out")(jnp.swapaxes(message, -3, -2))
        h = h + Dropout(self.dropout)(message, train=train)
        h = Mlp(self.mlp_ratio, self.dropout, name="mlp")(h, train=train)
        return h, {"space_attention": space, "time_attention": time}


class Attend(nn.Module):
    """Pre-norm residual attention of one set of tokens to another (or to itself, if there is no second set)."""

    heads: int
    mlp_ratio: int
    dropout: Tunable

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*b i d"],
        source: Float[Array, "*b j d"] | None = None,
        mask: Bool[Array, "*b j"] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "*b i d"], Float[Array, "*b h i j"]]:
        width = x.shape[-1]
        shape = (self.heads, width // self.heads)
        z = nn.LayerNorm(name="norm")(x)
        tokens = z if source is None else nn.LayerNorm(name="source_norm")(source)
        query = nn.DenseGeneral(shape, name="query")(z)
        key = nn.DenseGeneral(shape, use_bias=False, name="key")(tokens)
        value = nn.DenseGeneral(shape, name="value")(tokens)
        message, weights = attention.dot_product(query, key, value, mask)
        message = nn.DenseGeneral(width, axis=(-2, -1), name="out")(message)
        x = x + Dropout(self.dropout)(message, train=train)
        return Mlp(self.mlp_ratio, self.dropout, name="mlp")(x, train=train), weights


class Pool(nn.Module):
    """Attention pooling over the last token axis, or the plain mean over unmasked tokens."""

    learned: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b i d"], mask: Bool[Array, "*b i"] | None = None
    ) -> tuple[Float[Array, "*b d"], Float[Array, "*b i"]]:
        if self.learned:
            score = nn.Dense(1, use_bias=False, name="score")(nn.tanh(nn.LayerNorm(name="norm")(x)))[..., 0]
        else:
            score = jnp.zeros(x.shape[:-1])
        return attention.pool(score, x, mask)


def clip_level(frame_logits: Float[Array, "*b t u"], frame_mask: Bool[Array, "*b t"]) -> Float[Array, "*b u"]:
    """Return AU logits of clips: the smooth maximum over frames, since a unit need not be active in every frame."""
    mask = frame_mask[..., None]
    peak = jax.nn.logsumexp(frame_logits, axis=-2, where=mask)
    return peak - jnp.log(jnp.maximum(jnp.sum(mask, axis=-2), 1))
