"""STAG: joint space-time graph attention over facial regions, guided by action units (arXiv 2606.28083)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stag_jax.config import ModelConfig
from stag_jax.model import graph as graph_ops
from stag_jax.model import layers
from stag_jax.types import ClipBatch, FaceGraph

CODE_WIDTH = 16  # width of the time code before it is projected


class Stag(nn.Module):
    """The network. Call it on a ClipBatch with normalised node features.

    Returns logits [b, k] and `aux`, a flat dict of named intermediates:

        au_logits            [b, u]            clip level, for the loss
        au_probability       [b, t, u]         per frame
        connectivity         [b, t, n, n2]     B[t], the bias of the space edges
        space_attention_<l>  [b, t, h, n, n2]  E-GAT layer l; with time_attention it sums to 1 over n2 and w
        time_attention_<l>   [b, t, h, n, w]
        node_over_time       [b, n, t]         weights that make the spatial tokens
        frame_over_nodes     [b, t, n]         weights that make the temporal tokens
        encoder_attention_<l>[b, h, t, t2]     transformer
        space_from_time_<l>  [b, h, n, t]      cross-attention, each direction
        time_from_space_<l>  [b, h, t, n]
        temporal_attention   [b, t]            final pooling over frames
        features             [b, d]            input of the classifier
    """

    config: ModelConfig
    classes: int

    @nn.compact
    def __call__(
        self, batch: ClipBatch, graph: FaceGraph, *, train: bool
    ) -> tuple[Float[Array, "b k"], dict[str, Array]]:
        c = self.config
        aux = {}
        code = graph_ops.time_code(batch.times_ms, CODE_WIDTH).astype(batch.nodes.dtype)
        h = Embed(c.width, name="embed")(batch.nodes, code)

        frame_logits = layers.ActionUnitHead(name="au")(h, graph.incidence)
        aux["au_logits"] = layers.clip_level(frame_logits, batch.frame_mask)
        au_prob = jax.nn.sigmoid(frame_logits)
        aux["au_probability"] = au_prob
        guide = au_prob if c.au_guidance else jnp.ones_like(au_prob)
        bias = layers.Connectivity(c.dynamic, name="connectivity")(guide, graph)
        aux["connectivity"] = bias
        for index in range(c.gat_layers):
            layer = layers.GraphAttention(
                c.heads, c.score_dim, c.window, c.mlp_ratio, c.dropout, c.edge_dropout, name=f"gat_{index}"
            )
            h, weights = layer(h, bias, batch.times_ms, batch.frame_mask, graph, train=train)
            aux |= {f"{name}_{index}": value for name, value in weights.items()}

        over_time = jnp.broadcast_to(batch.frame_mask[:, None, :], (h.shape[0], h.shape[2], h.shape[1]))
        space, aux["node_over_time"] = layers.Pool(c.temporal_attention, name="over_time")(
            jnp.swapaxes(h, 1, 2), over_time
        )
        time, aux["frame_over_nodes"] = layers.Pool(name="over_nodes")(h)
        time = time + nn.Dense(c.width, name="time_code")(code)
        for index in range(c.transformer_layers):
            encoder = layers.Attend(c.heads, c.mlp_ratio, c.dropout, name=f"encoder_{index}")
            time, aux[f"encoder_attention_{index}"] = encoder(time, mask=batch.frame_mask, train=train)

        for index in range(c.cross_layers):
            # Both directions read the other stream before its update, so that the order does not matter.
            space_before, time_before = space, time
            if c.cross_to_space:
                cross = layers.Attend(c.heads, c.mlp_ratio, c.dropout, name=f"to_space_{index}")
                space, aux[f"space_from_time_{index}"] = cross(space_before, time_before, batch.frame_mask, train=train)
            if c.cross_to_time:
                cross = layers.Attend(c.heads, c.mlp_ratio, c.dropout, name=f"to_time_{index}")
                time, aux[f"time_from_space_{index}"] = cross(time_before, space_before, train=train)

        pooled, aux["temporal_attention"] = layers.Pool(c.temporal_attention, name="pool")(time, batch.frame_mask)
        features = jnp.concatenate([NodeReadout(c.readout_dim, name="readout")(space), pooled], axis=-1)
        aux["features"] = features.astype(jnp.float32)
        features = layers.Dropout(c.dropout, locked=False)(features, train=train)
        return nn.Dense(self.classes, name="logits")(features).astype(jnp.float32), aux


class Embed(nn.Module):
    """The embedding of node features: h0 = W x + e[n] + time code."""

    width: int

    @nn.compact
    def __call__(self, nodes: Float[Array, "*b t n d"], code: Float[Array, "*b t d2"]) -> Float[Array, "*b t n d3"]:
        h = nn.Dense(self.width, name="patch")(nodes)
        identity = self.param("node", nn.initializers.normal(0.02), (nodes.shape[-2], self.width))
        time = nn.Dense(self.width, use_bias=False, name="time")(code)
        return h + time[..., None, :] + jnp.expand_dims(identity, range(h.ndim - 2))


class NodeReadout(nn.Module):
    """The readout: a few features per node, concatenated; pooling over nodes would lose their regions."""

    width: int

    @nn.compact
    def __call__(self, space: Float[Array, "*b n d"]) -> Float[Array, "*b nd"]:
        features = nn.gelu(nn.Dense(self.width, name="node")(nn.LayerNorm(name="norm")(space)))
        return features.reshape(*features.shape[:-2], -1)
