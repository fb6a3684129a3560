"""Input and output of a network, shared by training, reports, video and export.

Raw node features, in pixels, are set to zero where the settings hide them, normalised by statistics of training clips,
and evaluated together with their mirror image. All functions take one set of weights; callers with several, of seeds or
folds, map over them.
"""

from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from stag_jax.config import Config, ModelConfig
from stag_jax.model import baselines, losses
from stag_jax.model.graph import mirror
from stag_jax.types import AnyArray, ClipBatch, FaceGraph

EPSILON = 1e-6  # of a variance


class Statistics(NamedTuple):
    """The statistics of the training clips, learned without gradients."""

    mean: Float[Array, "*m d"]
    scale: Float[Array, "*m d"]
    class_weight: Float[Array, "*m k"]


class Weights(NamedTuple):
    """Everything learned: of one network, or stacked along leading axes."""

    params: optax.Params
    statistics: Statistics


class Network(NamedTuple):
    """A network without its weights; a constant in compiled functions, never traced."""

    config: ModelConfig
    module: nn.Module
    graph: FaceGraph
    classes: int


class Outputs(NamedTuple):
    """Logits for clips, before softmax and sigmoid."""

    logits: Float[Array, "*b k"]
    au_logits: Float[Array, "*b u"]  # of the clip as a whole


def make_network(config: Config, graph: FaceGraph) -> Network:
    """Make the network of a config on a graph.

    Raises:
      UserError: the width is not a multiple of the heads.
    """
    classes = len(config.data.classes)
    return Network(config.model, baselines.make_model(config.model, classes), graph, classes)


def init(network: Network, key: Array, example: ClipBatch) -> optax.Params:
    """Draw parameters; `example` gives the shapes."""
    return network.module.init(key, example, network.graph, train=False)["params"]


def measure(
    network: Network, batch: ClipBatch, train_mask: Float[Array, " b"], class_balance: Float[Array, ""] | float
) -> Statistics:
    """Measure mean and scale of each feature, and class weights, over the clips of `train_mask`.

    Mean and scale are averaged with their mirror image, so that a flipped face is normalised in the same way.
    `class_balance` is the exponent of `losses.class_weights`.
    """
    nodes = hide(network, batch.nodes)
    weight = jnp.where(batch.frame_mask, train_mask[:, None], 0.0)[:, :, None, None]
    total = jnp.sum(weight) * nodes.shape[2]
    index = network.graph.feature_mirror
    sign = jnp.asarray(network.graph.feature_sign, nodes.dtype)
    mean = jnp.sum(jnp.where(weight > 0, nodes, 0.0), axis=(0, 1, 2)) / total
    mean = (mean + sign * mean[index]) / 2
    squares = jnp.where(weight > 0, (nodes - mean[None, None, None]) ** 2, 0.0)
    variance = jnp.sum(squares, axis=(0, 1, 2)) / total
    scale = jnp.sqrt((variance + variance[index]) / 2 + EPSILON)
    return Statistics(mean, scale, losses.class_weights(batch.label, train_mask, network.classes, class_balance))


def hide(network: Network, nodes: Float[Array, "b t n d"]) -> Float[Array, "b t n d"]:
    """Set strain features to zero where `config.model.strain` is off."""
    if network.config.strain:
        return nodes
    return jnp.where(network.graph.strain[None, None, None], jnp.zeros((), nodes.dtype), nodes)


def normalise(network: Network, clips: ClipBatch, statistics: Statistics) -> ClipBatch:
    """Return node features in units of the training clips' spread; hidden frames are zero."""
    nodes = hide(network, clips.nodes)
    nodes = (nodes - statistics.mean[None, None, None]) / statistics.scale[None, None, None]
    return clips._replace(nodes=jnp.where(clips.frame_mask[:, :, None, None], nodes, 0.0))


def apply(network: Network, params: optax.Params, clips: ClipBatch, **how: Any) -> tuple[Array, dict[str, Array]]:
    """Apply the module to normalised clips, at the precision of `config.model.dtype`.

    Stored parameters and gradients are float32. `how` is passed to the module: train, rngs.
    """
    dtype = jnp.dtype(network.config.dtype)
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    clips = clips._replace(nodes=clips.nodes.astype(dtype))
    output = network.module.apply({"params": cast(Any, params)}, clips, network.graph, **how)
    return cast(tuple[Array, dict[str, Array]], output)


def forward(network: Network, weights: Weights, clips: ClipBatch) -> tuple[Float[Array, "b k"], dict[str, Array]]:
    """Return logits and named intermediates for raw clips.

    With `config.model.symmetric` the logits of classes and of action units are the mean over each clip and its mirror
    image, so a flipped face gets exactly the same result; the other intermediates are of the clip alone.
    """
    params, statistics = weights
    if not network.config.symmetric:
        return apply(network, params, normalise(network, clips, statistics), train=False)
    b = clips.nodes.shape[0]
    flipped = clips._replace(nodes=mirror(clips.nodes, network.graph))
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), clips, flipped)
    logits, aux = apply(network, params, normalise(network, both, statistics), train=False)
    aux = {name: (value[:b] + value[b:]) / 2 if name == "au_logits" else value[:b] for name, value in aux.items()}
    return (logits[:b] + logits[b:]) / 2, aux


def outputs(network: Network, weights: Weights, clips: ClipBatch) -> Outputs:
    """Return the logits of classes and of action units for raw clips."""
    logits, aux = forward(network, weights, clips)
    return Outputs(logits, aux["au_logits"])


def probabilities(predicted: Outputs) -> tuple[Float[Array, "*b k"], Float[Array, "*b u"]]:
    """Return the probabilities of the classes, and of the action units."""
    return jax.nn.softmax(predicted.logits), jax.nn.sigmoid(predicted.au_logits)


def answer(network: Network, weights: Weights, clips: ClipBatch) -> tuple[Float[Array, "b k"], Float[Array, "b t2 u"]]:
    """Return probabilities of the classes, and of the action units in each frame, for raw clips.

    A network on the key frame alone gives one frame (t2 = 1); one without a head for frames gives NaN.
    """
    logits, aux = forward(network, weights, clips)
    blank = jnp.full((clips.nodes.shape[0], 1, len(network.graph.units)), jnp.nan)
    return jax.nn.softmax(logits), aux.get("au_probability", blank).astype(jnp.float32)


def frames_seen(t2: int, frame_mask: Bool[AnyArray, "b t"]) -> Bool[AnyArray, "b t2"]:
    """Return which of the `t2` output frames are frames of the clip: unmasked ones, or its key frame."""
    return frame_mask if t2 == frame_mask.shape[1] else frame_mask[:, :1] | True
