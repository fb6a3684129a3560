"""All members of a study as one program: vmapped, in chunks, and laid over the devices by `layout`.

`fold` knows nothing of any of this.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from stag_jax.config import ParallelConfig
from stag_jax.training import fold, hosts, memory
from stag_jax.training.layout import make_layout
from stag_jax.training.roster import Roster
from stag_jax.types import ClipBatch


class Study(NamedTuple):
    """The compiled programs, each over a list of chunks of stacked members."""

    init: Callable[[], list[fold.MemberState]]
    train: Callable[[list[fold.MemberState], int], tuple[list[fold.MemberState], dict[str, Any]]]  # uses the states up
    predict: Callable[[list[fold.MemberState]], fold.Prediction]  # of each member's test rows, [m, j, ...]
    gather: Callable[[list[Any]], Any]  # chunks of stacked trees -> one host tree [m, ...] without padding
    copy: Callable[[list[Any]], list[Any]]  # chunks of stacked trees -> copies [m2, ...] on the devices
    place: Callable[[Any], list[Any]]  # a host tree [m, ...] -> chunks
    member: fold.MemberState  # shapes of one
    hlo: Callable[[], str]  # text of the compiled training program
    compile_s: float
    per_device: int
    layout: str


def plan(task: fold.Task, batch: ClipBatch, who: Roster, parallel: ParallelConfig) -> memory.Plan:
    """How many members each device has at once, before anything is compiled."""
    required = memory.need(task, batch, _first(who.members))
    # One model too large for a device is what "data" is for, so there members go one by one unless asked otherwise.
    one_by_one = parallel.mode == "data" and parallel.members_per_chunk <= 0
    share = 1 if parallel.mode == "data" else min(jax.device_count(), len(who.names))
    planned = memory.plan(
        required,
        sum(np.asarray(x).nbytes for x in batch),
        jax.local_devices()[0],
        1 if one_by_one else math.ceil(len(who.names) / share),
        jax.local_device_count(),
        parallel.members_per_chunk,
    )
    # Each process sees its own memory; all must run the same program.
    return planned._replace(members=hosts.smallest(planned.members))


def build(
    task: fold.Task,
    batch: ClipBatch,
    who: Roster,
    parallel: ParallelConfig,
    per_device: int,
    devices: Sequence[jax.Device] | None = None,
    compiler: Callable[[jax.stages.Lowered], Any] = jax.stages.Lowered.compile,
) -> Study:
    """Lays the members over the devices, `per_device` at once, and compiles the training program.

    The member axis is padded to full chunks by repeating the first member; what the copies compute is dropped.
    `compiler` may compile in another thread: its result is not looked at before the first step.

    Raises:
      UserError: unknown `config.parallel.mode`.
    """
    count = len(who.names)
    devices = list(devices or jax.devices())
    if parallel.mode != "data" and jax.process_count() == 1:
        devices = devices[:count]
    lay = make_layout(parallel.mode, devices)
    task = task._replace(lay=lay.lay)
    per_device = min(per_device, math.ceil(count / lay.share))
    chunk = per_device * lay.share
    padded = np.zeros(math.ceil(count / chunk) * chunk, int)
    padded[:count] = np.arange(count)
    batch = lay.replicate(batch)

    def place(tree: Any) -> list[Any]:
        return [lay.place(jax.tree.map(lambda x, rows=rows: x[rows], tree)) for rows in padded.reshape(-1, chunk)]

    chunks, rows = place(who.members), place(who.test_rows)
    init = lay.spread(lambda batch, member: fold.init(task, batch, member), 1)
    train = lay.spread(
        lambda batch, member, state, n: fold.train_steps(task, batch, member, state, n), 2, extra=1, donate=(2,)
    )
    predict = lay.spread(lambda batch, state, rows: fold.predict(task, batch, state, rows), 2)

    start = time.perf_counter()
    one = jax.eval_shape(lambda member: fold.init(task, batch, member), _first(who.members))
    stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((chunk, *x.shape), x.dtype), one)
    lowered = train.lower(batch, chunks[0], lay.abstract(stacked), np.int32(1))
    program = compiler(lowered)
    compile_s = time.perf_counter() - start

    def run(states: list[fold.MemberState], steps: int) -> tuple[list[fold.MemberState], dict[str, Any]]:
        done = [program(batch, member, state, np.int32(steps)) for member, state in zip(chunks, states, strict=True)]
        return [state for state, _ in done], gather([metrics for _, metrics in done])

    def gather(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *map(lay.fetch, trees))

    return Study(
        init=lambda: [init(batch, member) for member in chunks],
        train=run,
        predict=lambda states: gather([predict(batch, s, r) for s, r in zip(states, rows, strict=True)]),
        gather=gather,
        copy=lambda trees: [lay.copy(tree) for tree in trees],
        place=place,
        member=one,
        hlo=lambda: program.as_text(),
        compile_s=compile_s,
        per_device=per_device,
        layout=_describe(count, devices, per_device, len(chunks), parallel.mode),
    )


def _first(members: fold.Member) -> fold.Member:
    """Shapes of one member."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), members)


def _describe(count: int, devices: Sequence[jax.Device], per_device: int, chunks: int, mode: str) -> str:
    plural = "s" * (len(devices) > 1)
    where = f"{len(devices)} {devices[0].platform} device{plural}"
    if mode == "data":
        return f"{count} members, {per_device} at once, the clips of each step over {where} (data)"
    return f"{count} members on {where}, {per_device} a device in {chunks} chunk{'s' * (chunks > 1)} ({mode})"
