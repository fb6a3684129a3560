"""How a chunk of members lies over the devices of all processes. The only meshes are here.

Members never talk to each other, so with "sharded" and "pmap" the programs hold no collective. With "data" every
device has all members of a chunk and a part of the clips of each step; there gradients are summed over the devices.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stag_jax.training import fold
from stag_jax.types import ClipBatch, UserError

MEMBER, CLIP = "member", "clip"


class Layout(NamedTuple):
    """A mode of `config.parallel.mode`, as functions."""

    share: int  # so many devices share the members of a chunk
    lay: Callable[[ClipBatch], ClipBatch]  # for `fold.Task`
    # (function of one member, number of stacked arguments after the corpus, further ones, donated ones) -> of a chunk
    spread: Callable[..., Callable]
    place: Callable[[Any], Any]  # a stacked tree [m, ...] of the host, onto the devices
    replicate: Callable[[Any], Any]  # a tree of the host, whole on every device
    abstract: Callable[[Any], Any]  # shapes of a stacked tree, as `place` lays it
    copy: Callable[[Any], Any]  # a stacked tree of the devices, copied, its members on one axis
    fetch: Callable[[Any], Any]  # the same on the host of every process


def make_layout(mode: str, devices: Sequence[jax.Device]) -> Layout:
    """The layout of `config.parallel.mode` over `devices`.

    Raises:
      UserError: a mode that does not reach over several processes.
    """
    if mode == "pmap":
        return _pmap(devices)
    mesh = Mesh(np.asarray(devices), (CLIP if mode == "data" else MEMBER,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_member = everywhere if mode == "data" else NamedSharding(mesh, PartitionSpec(MEMBER))
    by_clip = NamedSharding(mesh, PartitionSpec(CLIP)) if mode == "data" else None

    def lay(clips: ClipBatch) -> ClipBatch:
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, by_clip), clips)

    def spread(function: Callable, members: int, extra: int = 0, donate: tuple[int, ...] = ()) -> Callable:
        mapped = jax.vmap(function, in_axes=(None, *[0] * members, *[None] * extra))
        shardings = (everywhere, *[by_member] * members, *[everywhere] * extra)
        return jax.jit(mapped, in_shardings=shardings, out_shardings=by_member, donate_argnums=donate)

    def put(sharding: NamedSharding) -> Callable[[Any], Any]:
        # Each process hands over the parts that its own devices hold; nothing is sent.
        return lambda tree: jax.tree.map(
            lambda x: jax.make_array_from_callback(np.shape(x), sharding, lambda at: np.asarray(x)[at]), tree
        )

    return Layout(
        share=1 if mode == "data" else len(devices),
        lay=lay if mode == "data" else fold.stay,
        spread=spread,
        place=put(by_member),
        replicate=put(everywhere),
        abstract=lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=by_member), tree),
        copy=jax.jit(lambda tree: jax.tree.map(jnp.copy, tree)),
        fetch=_fetch,
    )


def _fetch(tree: Any) -> Any:
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)


def _pmap(devices: Sequence[jax.Device]) -> Layout:
    if jax.process_count() > 1:
        raise UserError('config.parallel.mode "pmap" is for one process; over several use "sharded", which is the same')
    sharding = NamedSharding(Mesh(np.asarray(devices), (MEMBER,)), PartitionSpec(MEMBER))

    def spread(function: Callable, members: int, extra: int = 0, donate: tuple[int, ...] = ()) -> Callable:
        axes = (None, *[0] * members, *[None] * extra)
        inner = jax.vmap(function, in_axes=axes)
        return jax.pmap(inner, in_axes=axes, axis_name=MEMBER, devices=devices, donate_argnums=donate)

    def fold_axes(x: Any) -> Any:
        return x.reshape(len(devices), -1, *x.shape[1:])

    def flat(x: Any) -> Any:
        return x.reshape(-1, *x.shape[2:])

    def abstract(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = (len(devices), x.shape[0] // len(devices), *x.shape[1:])
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding)

    return Layout(
        share=len(devices),
        lay=fold.stay,
        spread=spread,
        place=lambda tree: jax.tree.map(lambda x: jax.device_put(fold_axes(np.asarray(x)), sharding), tree),
        replicate=lambda tree: jax.tree.map(jnp.asarray, tree),
        abstract=lambda tree: jax.tree.map(abstract, tree),
        copy=jax.jit(lambda tree: jax.tree.map(lambda x: jnp.copy(flat(x)), tree)),
        fetch=lambda tree: jax.tree.map(lambda x: flat(np.asarray(x)), tree),
    )
