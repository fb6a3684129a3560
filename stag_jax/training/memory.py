"""How many members fit on a device at once: reckoned from shapes, before anything is compiled."""

import os
from typing import Any, NamedTuple

import jax
import numpy as np

from stag_jax.training import fold
from stag_jax.types import ClipBatch

# Of the memory that is free, the share that is planned with: the rest is for what XLA needs besides.
SHARE = 0.75
# A backward pass makes gradients of activations beside those that it was given.
BACKWARD = 1.5
# On a CPU a chunk is as large as keeps what its members' steps hold within this many bytes. Measured: see the README.
CPU_CHUNK_BYTES = 64e6


class MemoryNeed(NamedTuple):
    """Bytes of one member on its device."""

    state: int  # parameters, optimiser, statistics
    activations: int  # what a step keeps between its forward and its backward pass

    @property
    def total(self) -> int:
        """While it trains: the state, a copy of it being saved, gradients and updates, activations."""
        return int(3 * self.state + BACKWARD * self.activations)


class Fit(NamedTuple):
    """How many members a device has at once, and why."""

    members: int
    need: MemoryNeed
    reason: str


def need(task: fold.Task, batch: ClipBatch, member: fold.Member) -> MemoryNeed:
    """What one member takes, from shapes alone."""

    def first_step(batch: ClipBatch, member: fold.Member) -> Any:
        state, own = fold.init(task, batch, member), fold.tuned(task, member)
        clips, key = fold.training_clips(own, batch, member, state)
        # What the backward pass is handed is the closure that `vjp` returns.
        _, kept = jax.vjp(lambda params: fold.loss_fn(own, params, clips, state.statistics, key)[0], state.params)
        return state, kept

    state, kept = jax.eval_shape(first_step, batch, member)
    return MemoryNeed(_bytes(state), _bytes(kept))


def plan(required: MemoryNeed, fixed: int, device: jax.Device, wanted: int, count: int, asked: int = 0) -> Fit:
    """How many of `count` members a device takes at once.

    Args:
      required: what each takes.
      fixed: bytes that do not depend on their number, the corpus.
      device: one of those that are used; they are taken to be alike.
      wanted: members that would fall to the device if all went at once.
      count: devices in this process that share its host's memory.
      asked: `config.parallel.members_per_chunk`; 0 leaves the choice to the plan.
    """
    if asked > 0:
        return Fit(min(asked, wanted), required, "as config.parallel.members_per_chunk says")
    room = SHARE * _free(device, count) - fixed
    fitting = max(1, int(room // required.total))
    if device.platform == "cpu":
        quick = max(1, int(CPU_CHUNK_BYTES // max(required.activations, 1)))
        if quick < min(fitting, wanted):
            return Fit(quick, required, "few at once keep to the caches of a CPU")
    if fitting < wanted:
        return Fit(fitting, required, f"{SHARE:.0%} of the memory that is free")
    return Fit(wanted, required, "all at once")


def _free(device: jax.Device, count: int) -> float:
    """Bytes that are free on a device; CPU devices share what the host has left."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return available() / count


def available() -> float:
    """Return the bytes of host memory that can be had. Without psutil, those in disk caches do not count."""
    try:
        import psutil
    except ImportError:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return float(psutil.virtual_memory().available)


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, "dtype"))
