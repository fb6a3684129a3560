"""Baselines for STAG: the key frame alone, and separate streams for space and time. Also the table of models."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from stag_jax.config import ModelConfig
from stag_jax.model import graph as graph_ops
from stag_jax.model import layers
from stag_jax.model.stag import CODE_WIDTH, NodeReadout, Stag
from stag_jax.types import ClipBatch, FaceGraph, UserError


def key_frame(batch: ClipBatch) -> ClipBatch:
    """Reduce each clip to its frame of largest magnitude (K = 1), as apex-based methods do."""
    magnitude = jnp.where(batch.frame_mask, batch.magnitude, -jnp.inf)
    best = jnp.argmax(magnitude, axis=1, keepdims=True)
    cut = {
        "nodes": jnp.take_along_axis(batch.nodes, best[:, :, None, None], axis=1),
        # The time of the key frame in the clip is not used.
        "times_ms": jnp.zeros_like(batch.times_ms[:, :1]),
        "magnitude": jnp.take_along_axis(batch.magnitude, best, axis=1),
        "frame_mask": jnp.ones_like(batch.frame_mask[:, :1]),
    }
    return batch._replace(**cut)


class ApexOnly(nn.Module):
    """The full STAG network on the key frame only."""

    config: ModelConfig
    classes: int

    @nn.compact
    def __call__(
        self, batch: ClipBatch, graph: FaceGraph, *, train: bool
    ) -> tuple[Float[Array, "b k"], dict[str, Array]]:
        return Stag(self.config, self.classes, name="stag")(key_frame(batch), graph, train=train)


class TwoStream(nn.Module):
    """Two streams, space pooled over time and time pooled over space, with a classifier each; the logits are added.

    Samples of a patch are spatial positions too, so the time stream pools the patch statistics over nodes.
    """

    config: ModelConfig
    classes: int

    @nn.compact
    def __call__(
        self, batch: ClipBatch, graph: FaceGraph, *, train: bool
    ) -> tuple[Float[Array, "b k"], dict[str, Array]]:
        c = self.config
        mask = batch.frame_mask.astype(batch.nodes.dtype)
        weight = mask / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
        time_mean = jnp.einsum("bt,btnd->bnd", weight, batch.nodes)
        space = nn.Dense(c.width, name="patch")(time_mean)
        space = space + self.param("node", nn.initializers.normal(0.02), space.shape[1:])[None]
        au_logits = layers.ActionUnitHead(name="au")(space[:, None], graph.incidence)[:, 0]
        for index in range(c.gat_layers):
            attend = layers.Attend(c.heads, c.mlp_ratio, c.dropout, name=f"space_{index}")
            space, _ = attend(space, train=train)
        space = NodeReadout(c.readout_dim, name="readout")(space)
        readout = space
        space = layers.Dropout(c.dropout, locked=False)(space, train=train)

        time = nn.Dense(c.width, name="frame")(jnp.mean(batch.nodes[..., -graph.pooled :], axis=2))
        code = graph_ops.time_code(batch.times_ms, CODE_WIDTH).astype(batch.nodes.dtype)
        time = time + nn.Dense(c.width, name="time_code")(code)
        for index in range(c.transformer_layers):
            encoder = layers.Attend(c.heads, c.mlp_ratio, c.dropout, name=f"encoder_{index}")
            time, _ = encoder(time, mask=batch.frame_mask, train=train)
        pooled, attention = layers.Pool(name="pool")(time, batch.frame_mask)
        aux = {"au_logits": au_logits, "temporal_attention": attention}
        aux["features"] = jnp.concatenate([readout, pooled], axis=-1).astype(jnp.float32)
        pooled = layers.Dropout(c.dropout, locked=False)(pooled, train=train)
        logits = nn.Dense(self.classes, name="space_logits")(space) + nn.Dense(self.classes, name="time_logits")(pooled)
        return logits.astype(jnp.float32), aux


MODELS = {"stag": Stag, "apex_only": ApexOnly, "two_stream": TwoStream}


def make_model(config: ModelConfig, classes: int) -> nn.Module:
    """Make the network named `config.name`.

    Raises:
      UserError: the width is not a multiple of the heads.
    """
    if config.width % config.heads:
        raise UserError(f"config.model.width must be a multiple of heads ({config.heads}), got {config.width}")
    return MODELS[config.name](config, classes)
