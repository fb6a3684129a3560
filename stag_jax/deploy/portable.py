"""A finished run as one pure function of weights and one clip's raw features: what all formats are made from.

Normalisation, the mirror image, hidden strain, the softmax and the mean over folds and seeds are inside. The weights
are arguments, so that one program serves every fold, and whatever they are stored as.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from stag_jax import config as config_lib
from stag_jax.config import Config
from stag_jax.deploy.artefact import SCALE, restored
from stag_jax.deploy.plain import plain_operations
from stag_jax.model import network as network_lib
from stag_jax.model.network import Statistics, Weights
from stag_jax.motion import nodes
from stag_jax.training.trained import TrainedFolds
from stag_jax.types import ClipBatch, UserError

PRECISIONS = ("f32", "bf16", "int8")
LEVELS = 127
SMALL = 64  # numbers of a member's weight that are not worth a scale
SEPARATOR = "/"

Number = Array | np.ndarray
Stored = dict[str, Shaped[np.ndarray, "m *any"]]  # by path in the network


class Portable(NamedTuple):
    """What is to be written."""

    function: Callable[..., tuple[Array, Array]]  # of restored weights and arrays of `artefact.INPUTS`, to its OUTPUTS
    weights: Stored  # `artefact.restored` makes of them what the function takes
    inputs: tuple[tuple[tuple[int, ...], Any], ...]  # shape without b, dtype
    config: Config  # of the run
    folds: tuple[str, ...]


def load(folder: Path, precision: str = "f32", folds: Sequence[str] = (), *, unrolled: bool = False) -> Portable:
    """Make the mean over seeds and the named folds (all, if none is named) of the run in `folder`; see `of`.

    Raises:
      UserError: no run, no such fold, none trained, or an unknown precision.
    """
    trained = TrainedFolds(folder)
    names, weights = trained.stacked(folds)
    return of(trained.config, weights, precision, unrolled=unrolled)._replace(folds=names)


def of(config: Config, weights: Weights, precision: str, *, unrolled: bool = False) -> Portable:
    """Make the mean over members, the leading axis of all weights; `unrolled`: one after the other.

    The function takes (weights, nodes [b, t, n, d], times_ms [b, t], magnitude [b, t], frame_mask [b, t]) and returns
    (probability [b, k], au_probability [b, t, u]). As from a checkpoint, action units have one frame where a network
    looks at one, and are NaN where it has no head for frames.

    Raises:
      UserError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise UserError(f"--precision={precision} is none of {', '.join(PRECISIONS)}")
    computed = config_lib.replace(config, {"model.dtype": "bfloat16"}) if precision == "bf16" else config
    network = network_lib.make_network(computed, nodes.graph(config.graph, config.motion))
    stored = {"mean": np.asarray(weights.statistics.mean), "scale": np.asarray(weights.statistics.scale)}
    stored |= stored_as(flat(weights.params), precision)
    members, units = len(stored["mean"]), len(config.graph.units)

    def member(arrays: dict[str, Number], clips: ClipBatch) -> tuple[Array, Array]:
        arrays = dict(arrays)
        mean, scale = arrays.pop("mean"), arrays.pop("scale")
        statistics = Statistics(mean, scale, jnp.ones(network.classes))  # class weights are for training
        return network_lib.answer(network, Weights(nested(arrays), statistics), clips)

    def function(
        weights: dict[str, Number], nodes: Number, times_ms: Number, magnitude: Number, frame_mask: Number
    ) -> tuple[Array, Array]:
        b = nodes.shape[0]
        # Labels are part of a batch, and no part of an answer.
        labels = jnp.zeros((b, units)), jnp.zeros((b, units), bool), jnp.zeros(b, jnp.int32)
        clips = ClipBatch(nodes, times_ms, magnitude, frame_mask, *labels)
        if members == 1 or unrolled:  # without an axis of members products stay products of two matrices
            each = [member({name: x[m] for name, x in weights.items()}, clips) for m in range(members)]
            return sum(said[0] for said in each) / members, sum(said[1] for said in each) / members
        probability, au = jax.vmap(member, in_axes=(0, None))(weights, clips)
        return jnp.mean(probability, axis=0), jnp.mean(au, axis=0)

    t = 1 if config.graph.kind == "grid" else config.motion.frames
    n, d = len(network.graph.node_names), len(network.graph.feature_mirror)
    inputs = (((t, n, d), jnp.float32), ((t,), jnp.float32), ((t,), jnp.float32), ((t,), jnp.bool_))
    return Portable(function, stored, inputs, config, ())


def program(network: Portable) -> tuple[Callable[..., list[Array]], list[jax.ShapeDtypeStruct]]:
    """The function of one clip in plain operations, and the shapes of its arguments: all weights, then the inputs.

    Plain, because a program is then half as large, and because writers of other formats know no more. It takes one
    clip, because that is what a stream asks about, and because whatever is compiled is then compiled once.
    """
    weights = restored(network.weights)
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in weights.values()]
    shapes += [jax.ShapeDtypeStruct((1, *shape), dtype) for shape, dtype in network.inputs]

    def function(*arrays: Number) -> tuple[Array, Array]:
        own = dict(zip(weights, arrays[: len(weights)], strict=True))
        return network.function(own, *arrays[len(weights) :])

    return plain_operations(function, shapes), shapes


def flat(params: Any) -> Stored:
    """Parameters by path, in order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {SEPARATOR.join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def nested(weights: dict[str, Number]) -> dict[str, Any]:
    """The parameters of `flat` again."""
    tree: dict[str, Any] = {}
    for name, array in weights.items():
        *parents, last = name.split(SEPARATOR)
        place = tree
        for part in parents:
            place = place.setdefault(part, {})
        place[last] = array
    return tree


def stored_as(weights: Stored, precision: str) -> Stored:
    """Weights as they are kept: in float32, in bfloat16, or those worth it in 8 bits and the others in float16."""
    if precision == "f32":
        return {name: array.astype(np.float32) for name, array in weights.items()}
    if precision == "bf16":
        return {name: array.astype(jnp.bfloat16) for name, array in weights.items()}
    found: Stored = {}
    for name, array in weights.items():
        if array.ndim < 3 or array[0].size < SMALL:
            found[name] = array.astype(np.float16)
        else:
            found[name], found[name + SCALE] = quantised(array, summed(name, array.ndim))
    return found


def summed(name: str, axes: int) -> tuple[int, ...]:
    """The axes over which a product with a weight [m, ...] sums, so that what is left are its channels."""
    # The layers called "out" sum over heads and features; the others over the features that come in.
    return tuple(range(1, axes - 1)) if name.endswith("out/kernel") else (1,)


def quantised(weight: Float[np.ndarray, "*any"], axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric 8-bit numbers and their scales, one a channel, in float16: weight = number * scale, to half a scale."""
    scale = np.max(np.abs(weight), axis=axes, keepdims=True) / LEVELS
    scale = np.maximum(scale, np.finfo(np.float16).smallest_normal).astype(np.float16)
    number = np.rint(weight / scale.astype(np.float32))
    return np.clip(number, -LEVELS, LEVELS).astype(np.int8), scale
