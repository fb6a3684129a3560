"""Ways of training all members of a study, side by side, and what members and clips cost: `benchmark.py members`.

Every way trains the same members on the same clips, from the state in which the first member starts: a step costs the
same whatever its numbers are. Padding of the last chunk is paid for, but not counted as work.
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from stag_experiments import cli
from stag_experiments.benchmarks import output
from stag_experiments.benchmarks.matrix_rate import matrix_rate
from stag_experiments.benchmarks.random_study import RandomStudy, random_setting, stacked_states, step_flops
from stag_jax import files, processes
from stag_jax.analysis import comparison
from stag_jax.config import Config, ParallelConfig
from stag_jax.corpora import dataset
from stag_jax.protocol.splits import make_splits
from stag_jax.training import fold, hosts, members, memory
from stag_jax.training.roster import make_roster
from stag_jax.types import UserError

CHUNKS = (1, 2, 4, 8, 16, 0)  # members at once on one device; 0 = all of them
REPEATS, MOST_REPEATS, ENOUGH_S = 3, 30, 2.0  # at least so many repetitions; more, up to so many, until so long
TORCH_MEMBERS = 4
CURVE_MEMBERS, CURVE_CLIPS = (1, 4, 16, 64, 256, 1024), (300, 1000, 10_000)
FIXED_MEMBERS, FIXED_CLIPS = 16, 300  # along the other curve
ONCE_FROM = 256  # a row of so many members or more is timed once

WAYS = (
    "way", "at once on a device", "member-steps/s", "slowest", "fastest", "ratio to the first",
    "share of the matrix rate", "compiled in s",
)  # fmt: skip
CURVES = (
    "members", "clips", "at once on a device", "steps", "s a dispatch", "member-steps/s", "compiled in s", "state MB",
)  # fmt: skip


class SpeedTable(NamedTuple):
    """Numbers and words under a header; `text` prints them."""

    name: str
    header: Sequence[str]
    rows: list[Sequence[Any]]


class Way(NamedTuple):
    """One way, measured: member-steps per second of each repetition; none where it could not be run."""

    name: str
    at_once: int | None
    rates: list[float]
    compile_s: float | None


def define_flags() -> None:
    """Define the flags of `benchmark.py members`."""
    cli.config_flag()
    flags.DEFINE_integer("steps", 8, "Steps a dispatch.", lower_bound=1)
    flags.DEFINE_list("chunks", None, "Sizes of chunks on one device, e.g. 1,4,all; all sizes if missing.")
    flags.DEFINE_bool("pmap", False, "By pmap as well.")
    flags.DEFINE_bool("curves", False, "The cost against the number of members and of clips instead.")
    flags.DEFINE_integer("curve_steps", 2, "Steps a dispatch of --curves.", lower_bound=1)
    output.define_out("Folder for the tables as CSV.")


def main() -> None:
    """Print each table, and write it into --out where there is one, as soon as it is measured."""
    given = flags.FLAGS
    config, chunks = cli.read_config(given["config"]), read_chunks(given.chunks)
    cli.connect(config)
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is timed
    with tempfile.TemporaryDirectory() as folder:
        config, _, corpora = cli.set_up(config, Path(folder))
    if given.curves:
        _show(curves(config, steps=given.curve_steps))
        return
    what = setting(config, dataset.load(corpora, config))
    for table in measure(what, steps=given.steps, chunks=chunks, pmap=given.pmap):
        _show(table)


def _show(table: SpeedTable) -> None:
    print(comparison.markdown(table.header, text(table)) + "\n", flush=True)
    if folder := output.out_folder():
        print(files.write_table(folder / f"{table.name}.csv", table.header, table.rows))


def setting(config: Config, corpus: dataset.Corpus) -> RandomStudy:
    """The whole study of `config` on `corpus`. Raises UserError where the clips cannot be split so."""
    return RandomStudy(
        config, corpus.graph, corpus.batch, make_roster(make_splits(config.protocol, corpus.clips), config.seeds)
    )


def read_chunks(texts: Sequence[str] | None) -> tuple[int, ...]:
    """The sizes of --chunks, 0 for "all"; all of `CHUNKS` where there is none. Raises UserError for another word."""
    if not texts:
        return CHUNKS
    if not all(text == "all" or (text.isdecimal() and int(text) > 0) for text in texts):
        raise UserError(f"--chunks must be numbers from 1 or the word all, by commas; got {','.join(texts)!r}")
    return tuple(0 if text == "all" else int(text) for text in texts)


def measure(
    what: RandomStudy, *, steps: int, chunks: Sequence[int] = CHUNKS, pmap: bool = False, side: int = 0
) -> tuple[SpeedTable, SpeedTable]:
    """The device, and all ways of training `what`. `side` is that of the matrices, 0 = as the device has it."""
    rate = matrix_rate(side)
    flops = step_flops(what)
    if jax.default_backend() == "cpu":
        # The number of CPU devices is fixed for a process: in its own, one device has all the cores.
        with processes.pool(1) as pool:
            ways = pool.submit(_alone, what, steps, chunks).result()
    else:
        ways = list(one_device(what, steps, chunks))
    ways += [*all_devices(what, steps, pmap=pmap), *eager_torch(what, steps)]
    trials, seeds, folds = what.roster.shape
    device = [
        ("devices", hosts.describe()),
        ("float32 products on all of them at once, best of several, summed, GFLOP/s", rate / 1e9),
        ("members", f"{folds} folds x {seeds * trials} seeds"),
        ("clips", len(what.batch.label)),
        ("clips a step", what.task.batch_size),
        ("a step of a member, MFLOP before optimisation", flops / 1e6),
        ("steps a dispatch", steps),
    ]
    rows = [_row(way, ways[0], flops / rate) for way in ways]
    return SpeedTable("members_device", ("what", "figure"), device), SpeedTable("members_ways", WAYS, rows)


def curves(
    config: Config, *, steps: int, counts: Sequence[int] = CURVE_MEMBERS, clips: Sequence[int] = CURVE_CLIPS
) -> SpeedTable:
    """A table of the cost against the number of members, then of clips, on random clips, as training plans it."""
    points = [(count, FIXED_CLIPS) for count in counts] + [(FIXED_MEMBERS, size) for size in clips]
    rows = []
    for count, size in dict.fromkeys(points):  # the curves share a point
        what = random_setting(config, size, count)
        per_device = members.plan(what.task, what.batch, what.roster, config.parallel).members
        study = members.Members(what.task, what.batch, what.roster, config.parallel, per_device)
        states = study.place(stacked_states(what))
        held = sum(x.nbytes for x in jax.tree.leaves(states))
        rates = _timed(_dispatch(study, states), count, steps, 1 if count >= ONCE_FROM else REPEATS)
        rate = float(np.median(rates))
        rows.append((count, size, study.per_device, steps, count * steps / rate, rate, study.compile_s, held / 1e6))
        _say(f"{count} members, {size} clips: {rate:.4g} member-steps/s")
    return SpeedTable("members_curves", CURVES, rows)


def text(table: SpeedTable) -> list[list[str]]:
    """The rows as they are printed."""
    return [[_cell(value) for value in row] for row in table.rows]


def one_device(what: RandomStudy, steps: int, chunks: Sequence[int]) -> Iterator[Way]:
    """Member after member by one program, then vmapped in chunks; all on the first device."""
    count, start = len(what.roster.names), stacked_states(what)
    yield _sequential(what, start, steps)
    parallel = dataclasses.replace(what.config.parallel, mode="sharded")
    needed = members.plan(what.task, what.batch, what.roster, parallel).need.total
    for size in sorted({size or count for size in chunks if size <= count}):
        name = f"vmapped, {'all' if size == count else size} at once, one device"
        too_large = Way(f"{name}: too large for the memory", size, [], None)
        if jax.default_backend() == "cpu" and size * needed > memory.SHARE * memory.available():
            yield too_large
            continue
        try:
            yield _built(what, start, steps, name, parallel, size, jax.devices()[:1])
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            yield too_large


def all_devices(what: RandomStudy, steps: int, *, pmap: bool) -> Iterator[Way]:
    """As training does it, and with `pmap` by that too."""
    devices, start, parallel = jax.devices(), stacked_states(what), what.config.parallel
    where = f"{len(devices)} device{'s' * (len(devices) > 1)}"
    plans = [("training's own plan", parallel)]
    if pmap:
        plans.append(("the same by pmap", dataclasses.replace(parallel, mode="pmap")))
    for name, parallel in plans:
        size = members.plan(what.task, what.batch, what.roster, parallel).members
        yield _built(what, start, steps, f"{name}, {where} ({parallel.mode})", parallel, size, devices)


def eager_torch(what: RandomStudy, steps: int) -> Iterator[Way]:
    """A few members in PyTorch, on the GPU where jax and torch both have one; else with one thread and with all.

    Threads that wait for each other can cost more than they bring where the arrays are small or the machine is busy.
    """
    from stag_experiments.benchmarks import torch_reference  # takes seconds to import

    if not torch_reference.available():
        yield Way("eager PyTorch: not installed", None, [], None)
        return
    torch, masks = torch_reference.torch, what.roster.members.train_mask[:TORCH_MEMBERS]
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    before = torch.get_num_threads()
    try:
        for threads in sorted({before} if device == "cuda" else {1, before}):
            torch.set_num_threads(threads)
            rates = [
                torch_reference.steps_per_second(what.config, what.graph, what.batch, masks, steps=steps, device=device)
                for _ in range(REPEATS)
            ]
            where = device if device == "cuda" else f"{device}, {threads} thread{'s' * (threads > 1)}"
            yield _said(Way(f"eager PyTorch on {where}, {len(masks)} members one after the other", 1, rates, None))
    except UserError as error:
        yield Way(f"eager PyTorch: {error}", None, [], None)
    finally:
        torch.set_num_threads(before)


def _alone(what: RandomStudy, steps: int, chunks: Sequence[int]) -> list[Way]:
    """`one_device` in a process that has done nothing yet."""
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_enable_compilation_cache", False)
    return list(one_device(what, steps, chunks))


def _sequential(what: RandomStudy, start: fold.MemberState, steps: int) -> Way:
    task, device = what.task, jax.devices()[0]
    batch = jax.device_put(what.batch, device)

    def each(tree: Any) -> list[Any]:
        count = len(what.roster.names)
        return [jax.device_put(jax.tree.map(lambda x, i=i: np.array(x[i]), tree), device) for i in range(count)]

    everyone, states = each(what.roster.members), each(start)
    begin = time.perf_counter()
    train = jax.jit(lambda *args: fold.train_steps(task, *args), donate_argnums=2)
    program = train.lower(batch, everyone[0], states[0], np.int32(1)).compile()
    compile_s = time.perf_counter() - begin

    def dispatch(steps: int) -> None:
        for index, member in enumerate(everyone):
            # Waited for, as each dispatch of a member waits for the one before it.
            states[index], metrics = jax.block_until_ready(program(batch, member, states[index], np.int32(steps)))
            jax.device_get(metrics)

    rates = _timed(dispatch, len(everyone), steps)
    return _said(Way("one member after the other, one device", 1, rates, compile_s))


def _built(
    what: RandomStudy,
    start: fold.MemberState,
    steps: int,
    name: str,
    parallel: ParallelConfig,
    size: int,
    devices: Sequence[jax.Device],
) -> Way:
    study = members.Members(what.task, what.batch, what.roster, parallel, size, devices)
    rates = _timed(_dispatch(study, study.place(start)), len(what.roster.names), steps)
    return _said(Way(name, study.per_device, rates, study.compile_s))


def _dispatch(study: members.Members, states: list[fold.MemberState]) -> Callable[[int], None]:
    def dispatch(steps: int) -> None:
        states[:], _ = study.train(states, steps)  # metrics come to the host, so it waits

    return dispatch


def _timed(dispatch: Callable[[int], None], count: int, steps: int, repeats: int = REPEATS) -> list[float]:
    """Member-steps per second of each repetition, after a first step that is not timed."""
    dispatch(1)
    seconds: list[float] = []
    while len(seconds) < repeats or (1 < repeats and len(seconds) < MOST_REPEATS and sum(seconds) < ENOUGH_S):
        start = time.perf_counter()
        dispatch(steps)
        seconds.append(time.perf_counter() - start)
    return [count * steps / each for each in seconds]


def _row(way: Way, first: Way, seconds_at_best: float) -> tuple[Any, ...]:
    if not way.rates:
        return way.name, way.at_once, *[None] * (len(WAYS) - 2)
    rate = float(np.median(way.rates))
    ratio = rate / float(np.median(first.rates))
    return way.name, way.at_once, rate, min(way.rates), max(way.rates), ratio, rate * seconds_at_best, way.compile_s


def _said(way: Way) -> Way:
    _say(f"{way.name}: {np.median(way.rates):.4g} member-steps/s")
    return way


def _say(line: str) -> None:
    # It takes minutes; the tables alone go to the standard output.
    print(line, file=sys.stderr, flush=True)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)
