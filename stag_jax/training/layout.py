"""Place a chunk of members on the devices of all processes. The only module with meshes.

Members do not exchange data, so with "sharded" and "pmap" the programs have no collectives. With "data" every device
has all members of a chunk and a part of the clips of each step, and gradients are summed over the devices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stag_jax.training import fold
from stag_jax.types import ClipBatch, Device, UserError

MEMBER, CLIP = "member", "clip"


class Sharded:
    """A layout that splits the member axis of every array over the devices, by `jit` of `vmap`."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.mesh = Mesh(np.asarray(devices), (MEMBER,))
        self.everywhere = NamedSharding(self.mesh, PartitionSpec())
        self.by_member = NamedSharding(self.mesh, PartitionSpec(MEMBER))
        self.members_apart = len(devices)  # number of devices that share the members of a chunk

    def place_clips(self, clips: ClipBatch) -> ClipBatch:
        """Place the clips of a step, while it is traced."""
        return fold.leave(clips)

    def map(self, function: Callable, in_axes: Sequence[int | None], donate: tuple[int, ...] = ()) -> Callable:
        """Compile a function of one member for a chunk of them.

        Args:
          function: function of one member.
          in_axes: 0 for an argument that is stacked over members, None for one that all members share.
          donate: indices of donated arguments.
        """
        shardings = tuple(self.everywhere if axis is None else self.by_member for axis in in_axes)
        mapped = jax.vmap(function, in_axes=tuple(in_axes))
        return jax.jit(mapped, in_shardings=shardings, out_shardings=self.by_member, donate_argnums=donate)

    def put(self, tree: Any) -> Any:
        """Put a stacked tree [m, ...] of the host onto the devices."""
        return _put(tree, self.by_member)

    def replicate(self, tree: Any) -> Any:
        """Put a tree of the host onto every device, whole."""
        return _put(tree, self.everywhere)

    def abstract(self, tree: Any) -> Any:
        """Return the shapes and shardings of a stacked tree as `put` places it."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.by_member), tree)

    def copy(self, tree: Any) -> Any:
        """Copy a stacked tree on the devices, with all members on one axis."""
        return _copied(tree)

    def fetch(self, tree: Any) -> Any:
        """Bring a stacked tree of the devices to the host of every process."""
        if jax.process_count() > 1:
            return multihost_utils.process_allgather(tree, tiled=True)
        return jax.device_get(tree)


class SplitClips(Sharded):
    """The layout "data": every device has all members of a chunk, and a part of the clips of each step."""

    def __init__(self, devices: Sequence[Device]) -> None:
        super().__init__(devices)
        self.mesh = Mesh(np.asarray(devices), (CLIP,))
        self.everywhere = self.by_member = NamedSharding(self.mesh, PartitionSpec())
        self.by_clip = NamedSharding(self.mesh, PartitionSpec(CLIP))
        self.members_apart = 1

    def place_clips(self, clips: ClipBatch) -> ClipBatch:
        """Split the clips of a step over the devices, while it is traced."""
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, self.by_clip), clips)


class Pmapped(Sharded):
    """The layout of `Sharded` by `jax.pmap`, which is a wrapper of `jit(shard_map)` since jax 0.10; for one process.

    Stacked arrays have a leading axis of devices, [device, m / devices, ...].
    """

    def __init__(self, devices: Sequence[Device]) -> None:
        if jax.process_count() > 1:
            raise UserError(
                'config.parallel.mode "pmap" is for one process; over several use "sharded", which is the same'
            )
        super().__init__(devices)
        self.devices = list(devices)

    def map(self, function: Callable, in_axes: Sequence[int | None], donate: tuple[int, ...] = ()) -> Callable:
        """Compile a function of one member for a chunk of them; see `Sharded.map`."""
        axes = tuple(in_axes)
        inner = jax.vmap(function, in_axes=axes)
        return jax.pmap(inner, in_axes=axes, axis_name=MEMBER, devices=self.devices, donate_argnums=donate)

    def put(self, tree: Any) -> Any:
        """Put a stacked tree [m, ...] of the host onto the devices."""
        return jax.tree.map(lambda x: jax.device_put(self._by_device(np.asarray(x)), self.by_member), tree)

    def replicate(self, tree: Any) -> Any:
        """Put a tree of the host onto the first device; pmap copies it to the others."""
        return jax.tree.map(jnp.asarray, tree)

    def abstract(self, tree: Any) -> Any:
        """Return the shapes and shardings of a stacked tree as `put` places it."""

        def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            shape = (len(self.devices), x.shape[0] // len(self.devices), *x.shape[1:])
            return jax.ShapeDtypeStruct(shape, x.dtype, sharding=self.by_member)

        return jax.tree.map(placed, tree)

    def copy(self, tree: Any) -> Any:
        """Copy a stacked tree on the devices, with all members on one axis."""
        return _copied_flat(tree)

    def fetch(self, tree: Any) -> Any:
        """Bring a stacked tree of the devices to the host."""
        return jax.tree.map(lambda x: _flat(np.asarray(x)), tree)

    def _by_device(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(self.devices), -1, *x.shape[1:])


LAYOUTS = {"sharded": Sharded, "pmap": Pmapped, "data": SplitClips}  # by config.parallel.mode


def _put(tree: Any, sharding: NamedSharding) -> Any:
    # Each process provides the parts of its own devices; nothing is sent between processes.
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(np.shape(x), sharding, lambda at: np.asarray(x)[at]), tree
    )


@jax.jit
def _copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def _copied_flat(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.copy(_flat(x)), tree)


def _flat(x: Any) -> Any:
    return x.reshape(-1, *x.shape[2:])
