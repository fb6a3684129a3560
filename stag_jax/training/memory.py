"""Plan how many members fit on a device at once, from shapes, before anything is compiled."""

import os
from typing import Any, NamedTuple

import jax
import numpy as np

from stag_jax.training import fold
from stag_jax.types import ClipBatch, Device

# Fraction of the free memory to plan with; the rest is for XLA's temporary buffers.
SHARE = 0.75
# A backward pass holds gradients of activations besides the activations.
BACKWARD = 1.5
# On a CPU, the activations of a chunk of members must fit in these bytes. Measured: docs/scale.md.
CPU_CHUNK_BYTES = 64e6


class MemoryNeed(NamedTuple):
    """Bytes of one member on its device."""

    state: int  # parameters, optimiser, statistics
    activations: int  # stored from the forward to the backward pass of a step

    @property
    def total(self) -> int:
        """Bytes during training: the state, a copy being saved, gradients and updates, activations."""
        return int(3 * self.state + BACKWARD * self.activations)


class Fit(NamedTuple):
    """The number of members that a device trains at once, and the reason for it."""

    members: int
    need: MemoryNeed
    reason: str


def need(task: fold.Task, batch: ClipBatch, member: fold.Member) -> MemoryNeed:
    """Compute the memory need of one member from shapes only."""

    def first_step(batch: ClipBatch, member: fold.Member) -> Any:
        state, member_task = fold.init(task, batch, member), fold.tuned(task, member)
        clips, key = fold.training_clips(member_task, batch, member, state)
        # The closure that `vjp` returns holds the stored activations.
        _, residuals = jax.vjp(
            lambda params: fold.loss_fn(member_task, params, clips, state.statistics, key)[0], state.params
        )
        return state, residuals

    state, residuals = jax.eval_shape(first_step, batch, member)
    return MemoryNeed(_bytes(state), _bytes(residuals))


def plan(required: MemoryNeed, fixed: int, device: Device, wanted: int, count: int, asked: int = 0) -> Fit:
    """Plan how many members a device trains at once.

    Args:
      required: memory need of one member.
      fixed: bytes that do not depend on the number of members: the corpus.
      device: one of the devices in use; all are taken to be alike.
      wanted: members per device if all are trained at once.
      count: devices of this process, which share the memory of the host.
      asked: `config.parallel.members_per_chunk`; 0: as many as fit.
    """
    if asked > 0:
        return Fit(min(asked, wanted), required, "as config.parallel.members_per_chunk says")
    room = SHARE * _free(device, count) - fixed
    fitting = max(1, int(room // required.total))
    if device.platform == "cpu":
        cached = max(1, int(CPU_CHUNK_BYTES // max(required.activations, 1)))
        if cached < min(fitting, wanted):
            return Fit(cached, required, "few at once keep to the caches of a CPU")
    if fitting < wanted:
        return Fit(fitting, required, f"{SHARE:.0%} of the memory that is free")
    return Fit(wanted, required, "all at once")


def _free(device: Device, count: int) -> float:
    """Return the free bytes of a device; CPU devices share the free memory of the host."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return available() / count


def available() -> float:
    """Return the available bytes of host memory. Without psutil, disk caches count as used."""
    try:
        import psutil
    except ImportError:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return float(psutil.virtual_memory().available)


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, "dtype"))
