"""All members of a study as one program: vmapped, in chunks, and placed on the devices by `layout`.

`fold` is independent of this.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from stag_jax.config import ParallelConfig
from stag_jax.model.network import Outputs
from stag_jax.training import fold, hosts, memory
from stag_jax.training.layout import LAYOUTS
from stag_jax.training.roster import Roster
from stag_jax.types import ClipBatch, Device


def plan(task: fold.Task, batch: ClipBatch, roster: Roster, parallel: ParallelConfig) -> memory.Fit:
    """Plan how many members each device trains at once, before anything is compiled."""
    required = memory.need(task, batch, _first(roster.members))
    # "data" is for a model that is too large for one device, so its members run one by one unless configured otherwise.
    one_by_one = parallel.mode == "data" and parallel.members_per_chunk <= 0
    devices = 1 if parallel.mode == "data" else min(jax.device_count(), len(roster.names))
    planned = memory.plan(
        required,
        sum(np.asarray(x).nbytes for x in batch),
        jax.local_devices()[0],
        1 if one_by_one else math.ceil(len(roster.names) / devices),
        jax.local_device_count(),
        parallel.members_per_chunk,
    )
    # Each process sees its own memory; all must run the same program.
    return planned._replace(members=hosts.smallest(planned.members))


class Members:
    """The compiled programs of all members. States are lists of chunks, each stacked over its members.

    The member axis is padded to full chunks by repeating the first member; results of these copies are dropped.
    """

    def __init__(
        self,
        task: fold.Task,
        batch: ClipBatch,
        roster: Roster,
        parallel: ParallelConfig,
        per_device: int,
        devices: Sequence[Device] | None = None,
        compiler: Callable[[jax.stages.Lowered], Any] = jax.stages.Lowered.compile,
    ) -> None:
        """Place the members on the devices, `per_device` at a time, and compile the training program.

        `compiler` may return a program that compiles in another thread: it is not used before the first step.
        """
        count = len(roster.names)
        devices = list(devices or jax.devices())
        if parallel.mode != "data" and jax.process_count() == 1:
            devices = devices[:count]
        self._layout = layout = LAYOUTS[parallel.mode](devices)
        task = task._replace(place=layout.place_clips)
        self.count = count
        self.per_device = min(per_device, math.ceil(count / layout.members_apart))
        chunk = self.per_device * layout.members_apart
        self._padded = np.zeros(math.ceil(count / chunk) * chunk, int).reshape(-1, chunk)
        self._padded.ravel()[:count] = np.arange(count)
        self._batch = layout.replicate(batch)
        self._chunks, self._rows = self.place(roster.members), self.place(roster.test_rows)

        self._init = layout.map(lambda batch, member: fold.init(task, batch, member), (None, 0))
        self._predict = layout.map(lambda batch, state, rows: fold.predict(task, batch, state, rows), (None, 0, 0))
        train = layout.map(
            lambda batch, member, state, steps: fold.train_steps(task, batch, member, state, steps),
            (None, 0, 0, None),
            donate=(2,),
        )
        start = time.perf_counter()
        self.member = jax.eval_shape(lambda *args: fold.init(task, *args), batch, _first(roster.members))
        stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((chunk, *x.shape), x.dtype), self.member)
        self._train = compiler(train.lower(self._batch, self._chunks[0], layout.abstract(stacked), np.int32(1)))
        self.compile_s = time.perf_counter() - start
        self.layout = _describe(count, devices, self.per_device, len(self._chunks), parallel.mode)

    def init(self) -> list[fold.MemberState]:
        """Return the states before the first step."""
        return [self._init(self._batch, member) for member in self._chunks]

    def train(self, states: list[fold.MemberState], steps: int) -> tuple[list[fold.MemberState], dict[str, Any]]:
        """Take steps; the memory of `states` is donated. Metrics [m] are means over the steps, on the host."""
        results = [
            self._train(self._batch, member, state, np.int32(steps))
            for member, state in zip(self._chunks, states, strict=True)
        ]
        return [state for state, _ in results], self.gather([metrics for _, metrics in results])

    def predict(self, states: list[fold.MemberState]) -> Outputs:
        """Predict each member's test rows: [m, j, ...] on the host."""
        pairs = zip(states, self._rows, strict=True)
        return self.gather([self._predict(self._batch, state, rows) for state, rows in pairs])

    def place(self, tree: Any) -> list[Any]:
        """Put a tree of the host [m, ...] onto the devices, in chunks."""
        return [self._layout.put(jax.tree.map(lambda x, rows=rows: x[rows], tree)) for rows in self._padded]

    def gather(self, chunks: list[Any]) -> Any:
        """Bring chunks to the host as one tree [m, ...], without padding."""
        fetched = map(self._layout.fetch, chunks)
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: self.count], *fetched)

    def copy(self, chunks: list[Any]) -> list[Any]:
        """Copy chunks on the devices, each with all members on one axis."""
        return [self._layout.copy(chunk) for chunk in chunks]

    def hlo(self) -> str:
        """Return the text of the compiled training program."""
        return self._train.as_text()


def _first(members: fold.Member) -> fold.Member:
    """Return the shapes of one member."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), members)


def _describe(count: int, devices: Sequence[Device], per_device: int, chunks: int, mode: str) -> str:
    plural = "s" * (len(devices) > 1)
    hardware = f"{len(devices)} {devices[0].platform} device{plural}"
    if mode == "data":
        return f"{count} members, {per_device} at once, the clips of each step over {hardware} (data)"
    return f"{count} members on {hardware}, {per_device} a device in {chunks} chunk{'s' * (chunks > 1)} ({mode})"
