"""Turn a finished run into one pure function of weights and one clip's raw features, from which all formats are made.

The function includes normalisation, the mirror image, hidden strain, the softmax and the mean over folds and seeds. The
weights are arguments, so that one program serves every fold and every stored precision.
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
SMALL = 64  # a weight with fewer numbers per member is not worth a scale
SEPARATOR = "/"

Number = Array | np.ndarray
Stored = dict[str, Shaped[np.ndarray, "m *any"]]  # path in the network -> array


class Portable(NamedTuple):
    """A network to be written to a file."""

    function: Callable[..., tuple[Array, Array]]  # (restored weights, *`artefact.INPUTS`) -> OUTPUTS
    weights: Stored  # `artefact.restored` turns them into the function's argument
    inputs: tuple[tuple[tuple[int, ...], Any], ...]  # shape without b, dtype
    config: Config  # of the run
    folds: tuple[str, ...]


def load(folder: Path, precision: str = "f32", folds: Sequence[str] = (), *, unrolled: bool = False) -> Portable:
    """Make the mean over seeds and the named folds (default: all) of the run in `folder`; see `of`.

    Raises:
      UserError: no run, no such fold, none trained, or an unknown precision.
    """
    trained = TrainedFolds(folder)
    names, weights = trained.stacked(folds)
    return of(trained.config, weights, precision, unrolled=unrolled)._replace(folds=names)


def of(config: Config, weights: Weights, precision: str, *, unrolled: bool = False) -> Portable:
    """Make the mean over members, the leading axis of all weights; if `unrolled`, one after the other.

    The function takes (weights, nodes [b, t, n, d], times_ms [b, t], magnitude [b, t], frame_mask [b, t]) and returns
    (probability [b, k], au_probability [b, t, u]). As with a checkpoint, au_probability has t = 1 if the network looks
    at one frame, and is NaN if it has no per-frame head.

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
        statistics = Statistics(mean, scale, jnp.ones(network.classes))  # class weights matter in training only
        return network_lib.answer(network, Weights(nested(arrays), statistics), clips)

    def function(
        weights: dict[str, Number], nodes: Number, times_ms: Number, magnitude: Number, frame_mask: Number
    ) -> tuple[Array, Array]:
        b = nodes.shape[0]
        # A batch contains labels, but the answers do not depend on them.
        labels = jnp.zeros((b, units)), jnp.zeros((b, units), bool), jnp.zeros(b, jnp.int32)
        clips = ClipBatch(nodes, times_ms, magnitude, frame_mask, *labels)
        if members == 1 or unrolled:  # without an axis of members products stay products of two matrices
            answers = [member({name: x[m] for name, x in weights.items()}, clips) for m in range(members)]
            return sum(answer[0] for answer in answers) / members, sum(answer[1] for answer in answers) / members
        probability, au = jax.vmap(member, in_axes=(0, None))(weights, clips)
        return jnp.mean(probability, axis=0), jnp.mean(au, axis=0)

    t = 1 if config.graph.kind == "grid" else config.motion.frames
    n, d = len(network.graph.node_names), len(network.graph.feature_mirror)
    inputs = (((t, n, d), jnp.float32), ((t,), jnp.float32), ((t,), jnp.float32), ((t,), jnp.bool_))
    return Portable(function, stored, inputs, config, ())


def program(network: Portable) -> tuple[Callable[..., list[Array]], list[jax.ShapeDtypeStruct]]:
    """Return the function of one clip in plain operations, and its arguments' shapes: all weights, then the inputs.

    Plain operations make a program half as large, and writers of other formats support nothing else. It takes one clip,
    because a stream asks about one at a time, and so it is compiled only once.
    """
    weights = restored(network.weights)
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in weights.values()]
    shapes += [jax.ShapeDtypeStruct((1, *shape), dtype) for shape, dtype in network.inputs]

    def function(*arrays: Number) -> tuple[Array, Array]:
        named = dict(zip(weights, arrays[: len(weights)], strict=True))
        return network.function(named, *arrays[len(weights) :])

    return plain_operations(function, shapes), shapes


def flat(params: Any) -> Stored:
    """Return parameters by path, in order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {SEPARATOR.join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def nested(weights: dict[str, Number]) -> dict[str, Any]:
    """Undo `flat`."""
    tree: dict[str, Any] = {}
    for name, array in weights.items():
        *parents, last = name.split(SEPARATOR)
        parent = tree
        for part in parents:
            parent = parent.setdefault(part, {})
        parent[last] = array
    return tree


def stored_as(weights: Stored, precision: str) -> Stored:
    """Return weights as stored: in float32, in bfloat16, or for int8 large ones in 8 bits and the others in float16."""
    if precision == "f32":
        return {name: array.astype(np.float32) for name, array in weights.items()}
    if precision == "bf16":
        return {name: array.astype(jnp.bfloat16) for name, array in weights.items()}
    stored: Stored = {}
    for name, array in weights.items():
        if array.ndim < 3 or array[0].size < SMALL:
            stored[name] = array.astype(np.float16)
        else:
            stored[name], stored[name + SCALE] = quantised(array, summed(name, array.ndim))
    return stored


def summed(name: str, axes: int) -> tuple[int, ...]:
    """Return the axes over which a product with a weight [m, ...] sums; the remaining ones are its channels."""
    # Layers called "out" sum over heads and features; the others over input features.
    return tuple(range(1, axes - 1)) if name.endswith("out/kernel") else (1,)


def quantised(weight: Float[np.ndarray, "*any"], axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return symmetric 8-bit numbers and a float16 scale per channel: weight = number * scale, within half a scale.

    The numbers, int8, have the shape of the weight; the scale has length 1 along `axes`, over which it is shared.
    """
    scale = np.max(np.abs(weight), axis=axes, keepdims=True) / LEVELS
    scale = np.maximum(scale, np.finfo(np.float16).smallest_normal).astype(np.float16)
    number = np.rint(weight / scale.astype(np.float32))
    return np.clip(number, -LEVELS, LEVELS).astype(np.int8), scale
