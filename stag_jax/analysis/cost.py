"""Cost of the network: parameters and floating-point operations of each block, and the time of one clip."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from stag_jax.config import Config
from stag_jax.model import network as network_lib
from stag_jax.model.network import Network, Statistics, Weights
from stag_jax.motion import nodes
from stag_jax.types import ClipBatch, FaceGraph

REPEATS = 300


class Block(NamedTuple):
    """The cost of one block of the network, for one clip."""

    name: str
    parameters: int
    flops: float  # one forward pass, a multiplication and an addition counted as two


def one_clip(graph: FaceGraph, config: Config) -> ClipBatch:
    """Return a clip without motion, in the shapes that the settings give; K = 1 on a grid, which is for flow images."""
    t = 1 if config.graph.kind == "grid" else config.motion.frames
    n, d, u = len(graph.node_names), len(graph.feature_sign), len(graph.units)
    return ClipBatch(
        nodes=jnp.zeros((1, t, n, d)),
        times_ms=jnp.zeros((1, t)),
        magnitude=jnp.ones((1, t)),
        frame_mask=jnp.ones((1, t), bool),
        au=jnp.zeros((1, u)),
        au_mask=jnp.zeros((1, u), bool),
        label=jnp.zeros(1, jnp.int32),
    )


def blocks(config: Config) -> list[Block]:
    """Return the blocks of the network in the order in which a clip passes them; the last, "all", is the whole network.

    Operations are those that XLA counts before it optimises; those between the blocks are in "all" only.
    """
    network, clip = _setting(config)
    params = _params(network, clip)
    depth = 2 if config.model.name == "apex_only" else 1  # apex_only holds the whole of STAG as one block
    calls = []

    def note(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if context.method_name == "__call__" and len(context.module.path) == depth:
            calls.append((context.module.path, context.module.clone(parent=None), args, kwargs))
        return call(*args, **kwargs)

    def forward(params: Any, clip: ClipBatch) -> Array:
        return network.module.apply({"params": params}, clip, network.graph, train=False)[0]

    with nn.intercept_methods(note):
        jax.eval_shape(forward, params, clip)
    rows = []
    for path, module, args, kwargs in calls:
        block_params = functools.reduce(lambda tree, key: tree.get(key, {}), path, params)
        rows.append(Block(path[-1], _size(block_params), _block_flops(module, block_params, args, kwargs)))
    rows = [row for row in rows if row.parameters or row.flops]  # dropout does nothing here
    return [*rows, Block("all", _size(params), _flops(forward, params, clip))]


class Forward(NamedTuple):
    """The cost of the answer to one clip: normalisation, network, mirror image if it is averaged."""

    ms: float  # median time
    temporary: int | None  # bytes that XLA reserves for intermediate values; None if it does not tell


def forward(config: Config) -> Forward:
    """Measure what one answer costs on the first device."""
    network, clip = _setting(config)
    d = clip.nodes.shape[-1]
    statistics = Statistics(jnp.zeros(d), jnp.ones(d), jnp.ones(network.classes))
    params = _params(network, clip)
    forward = jax.jit(lambda params, clip: network_lib.forward(network, Weights(params, statistics), clip)[0])
    answer = forward.lower(params, clip).compile()
    answer(params, clip).block_until_ready()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        answer(params, clip).block_until_ready()
        times.append(time.perf_counter() - start)
    memory = answer.memory_analysis()
    return Forward(float(np.median(times)) * 1e3, memory and int(memory.temp_size_in_bytes))


def parameters(config: Config) -> int:
    """Return the number of parameters of the network."""
    return _size(jax.eval_shape(lambda: _params(*_setting(config))))


def _setting(config: Config) -> tuple[Network, ClipBatch]:
    graph = nodes.graph(config.graph, config.motion)
    return network_lib.make_network(config, graph), one_clip(graph, config)


def _params(network: Network, clip: ClipBatch) -> Any:
    return network_lib.init(network, jax.random.key(0), clip)


def _size(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def _block_flops(module: nn.Module, params: Any, args: tuple, kwargs: dict) -> float:
    """Count the operations of one traced call; arrays of the trace are its inputs, all else is fixed."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    traced = [index for index, leaf in enumerate(leaves) if isinstance(leaf, jax.core.Tracer)]

    def call(params: Any, arrays: list[Array]) -> Any:
        filled = dict(enumerate(leaves)) | dict(zip(traced, arrays, strict=True))
        args, kwargs = jax.tree.unflatten(structure, filled.values())
        return module.apply({"params": params}, *args, **kwargs)

    return _flops(call, params, [jax.ShapeDtypeStruct(leaves[i].shape, leaves[i].dtype) for i in traced])


def _flops(function: Callable, *args: Any) -> float:
    return float(jax.jit(function).lower(*args).cost_analysis().get("flops", 0.0))
