"""Ways of training all members of a study, side by side, and what members and clips cost: `benchmark.py members`.

Every way trains the same members on the same clips, from the state in which the first member starts: a step costs the
same whatever its numbers are. Padding of the last chunk is paid for, but not counted as work.
"""

import dataclasses
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil

from stag_jax.analysis import cost
from stag_jax.config import Config, ParallelConfig
from stag_jax.motion import nodes
from stag_jax.protocol.splits import Splits, loso, make_splits
from stag_jax.training import fold, hosts, layout, members, memory
from stag_jax.training.dataset import Corpus
from stag_jax.training.roster import Roster, make_roster
from stag_jax.types import ClipBatch, FaceGraph, UserError

CHUNKS = (1, 2, 4, 8, 16, 0)  # members at once on one device; 0 = all of them
PRODUCTS, CPU_SIDE, SIDE = 8, 2048, 8192  # products timed, and their side on a CPU and on an accelerator
REPEATS, MOST_REPEATS, ENOUGH_S = 3, 30, 2.0  # at least so many repetitions; more, up to so many, until so long
TORCH_MEMBERS = 4
SUBJECTS = 20
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


class Table(NamedTuple):
    """Numbers and words under a header; `text` prints them."""

    name: str
    header: Sequence[str]
    rows: list[Sequence[Any]]


class Setting(NamedTuple):
    """What is trained; all of it on the host, so that it can be sent to another process."""

    config: Config
    graph: FaceGraph
    batch: ClipBatch
    who: Roster

    @property
    def task(self) -> fold.Task:
        """As `training.loop` makes it."""
        return fold.make_task(self.config, self.graph, int(self.who.members.train_mask.sum(axis=1).min()))


class Way(NamedTuple):
    """One way, measured: member-steps per second of each repetition; none where it could not be run."""

    name: str
    at_once: int | None
    rates: list[float]
    compile_s: float | None


def setting(config: Config, corpus: Corpus) -> Setting:
    """The whole study of `config` on `corpus`. Raises UserError where the clips cannot be split so."""
    return Setting(
        config, corpus.graph, corpus.batch, make_roster(make_splits(config.protocol, corpus.clips), config.seeds)
    )


def synthetic(config: Config, clips: int, count: int) -> Setting:
    """`count` members, folds of `SUBJECTS` subjects with as many seeds as it takes, on so many random clips."""
    graph, rng = nodes.graph(config.graph, config.motion), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: cost.one_clip(graph, config))
    drawn = {
        name: rng.standard_normal((clips, *x.shape[1:]), np.float32).astype(x.dtype)
        for name, x in shapes._asdict().items()
    }
    batch = ClipBatch(**drawn)._replace(
        times_ms=np.cumsum(np.abs(drawn["times_ms"]) * 40, axis=1),
        magnitude=np.abs(drawn["magnitude"]),
        frame_mask=np.ones_like(drawn["frame_mask"]),
        au=np.float32(drawn["au"] > 0),
        au_mask=np.ones_like(drawn["au_mask"]),
        label=np.arange(clips, dtype=np.int32) % len(config.data.classes),
    )
    splits: Splits = loso([f"s{index % SUBJECTS:02d}" for index in range(clips)])
    who = make_roster(splits, range(-(-count // len(splits.names))))
    first = jax.tree.map(lambda x: x[:count], (who.members, who.test_rows, who.test_mask))
    who = who._replace(members=first[0], names=who.names[:count], test_rows=first[1], test_mask=first[2])
    return Setting(config, graph, batch, who)


def read_chunks(texts: Sequence[str] | None) -> tuple[int, ...]:
    """The sizes of --chunks, 0 for "all"; all of `CHUNKS` where there is none. Raises UserError for another word."""
    if not texts:
        return CHUNKS
    if not all(text == "all" or (text.isdecimal() and int(text) > 0) for text in texts):
        raise UserError(f"--chunks must be numbers from 1 or the word all, by commas; got {','.join(texts)!r}")
    return tuple(0 if text == "all" else int(text) for text in texts)


def matrix_rate(side: int = 0) -> float:
    """FLOP/s of float32 products of square matrices, one on each local device at the same time; the best of several.

    At the precision that jax has by default, which is also that of training.
    """
    devices = jax.local_devices()
    side = side or (CPU_SIDE if devices[0].platform == "cpu" else SIDE)
    lay = layout.make_layout("sharded", devices)
    rng = np.random.default_rng(0)
    right = lay.replicate(rng.standard_normal((side, side), np.float32))
    left = lay.place(rng.standard_normal((len(devices), side, side), np.float32))
    product = lay.spread(lambda right, left: left @ right, 1)
    product(right, left).block_until_ready()
    seconds = []
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        product(right, left).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 * len(devices) / min(seconds)


def step_flops(task: fold.Task, batch: ClipBatch, who: Roster) -> float:
    """FLOP of one step of one member, as XLA counts them before it optimises."""
    member = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), who.members)
    state = jax.eval_shape(lambda batch, member: fold.init(task, batch, member), batch, member)
    lowered = jax.jit(lambda *args: fold.train_step(task, *args)).lower(batch, member, state)
    return float(lowered.cost_analysis()["flops"])


def measure(
    what: Setting, *, steps: int, chunks: Sequence[int] = CHUNKS, pmap: bool = False, side: int = 0
) -> tuple[Table, Table]:
    """The device, and all ways of training `what`. `side` is that of the matrices, 0 = as the device has it."""
    rate = matrix_rate(side)
    flops = step_flops(what.task, what.batch, what.who)
    if jax.default_backend() == "cpu":
        # The number of CPU devices is fixed for a process: in its own, one device has all the cores.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            ways = pool.submit(_alone, what, steps, chunks).result()
    else:
        ways = list(one_device(what, steps, chunks))
    ways += [*all_devices(what, steps, pmap=pmap), *eager_torch(what, steps)]
    trials, seeds, folds = what.who.shape
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
    return Table("members_device", ("what", "figure"), device), Table("members_ways", WAYS, rows)


def curves(
    config: Config, *, steps: int, counts: Sequence[int] = CURVE_MEMBERS, clips: Sequence[int] = CURVE_CLIPS
) -> Table:
    """A table of the cost against the number of members, then of clips, on random clips, as training plans it."""
    points = [(count, FIXED_CLIPS) for count in counts] + [(FIXED_MEMBERS, size) for size in clips]
    rows = []
    for count, size in dict.fromkeys(points):  # the curves share a point
        what = synthetic(config, size, count)
        per_device = members.plan(what.task, what.batch, what.who, config.parallel).members
        study = members.build(what.task, what.batch, what.who, config.parallel, per_device)
        states = study.place(_stacked(what))
        held = sum(x.nbytes for x in jax.tree.leaves(states))
        rates = _timed(_dispatch(study, states), count, steps, 1 if count >= ONCE_FROM else REPEATS)
        rate = float(np.median(rates))
        rows.append((count, size, study.per_device, steps, count * steps / rate, rate, study.compile_s, held / 1e6))
        _say(f"{count} members, {size} clips: {rate:.4g} member-steps/s")
    return Table("members_curves", CURVES, rows)


def text(table: Table) -> list[list[str]]:
    """The rows as they are printed."""
    return [[_cell(value) for value in row] for row in table.rows]


def one_device(what: Setting, steps: int, chunks: Sequence[int]) -> Iterator[Way]:
    """Member after member by one program, then vmapped in chunks; all on the first device."""
    count, start = len(what.who.names), _stacked(what)
    yield _sequential(what, start, steps)
    parallel = dataclasses.replace(what.config.parallel, mode="sharded")
    needed = members.plan(what.task, what.batch, what.who, parallel).need.total
    for size in sorted({size or count for size in chunks if size <= count}):
        name = f"vmapped, {'all' if size == count else size} at once, one device"
        too_large = Way(f"{name}: too large for the memory", size, [], None)
        if jax.default_backend() == "cpu" and size * needed > memory.SHARE * psutil.virtual_memory().available:
            yield too_large
            continue
        try:
            yield _built(what, start, steps, name, parallel, size, jax.devices()[:1])
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            yield too_large


def all_devices(what: Setting, steps: int, *, pmap: bool) -> Iterator[Way]:
    """As training does it, and with `pmap` by that too."""
    devices, start, parallel = jax.devices(), _stacked(what), what.config.parallel
    where = f"{len(devices)} device{'s' * (len(devices) > 1)}"
    plans = [("training's own plan", parallel)]
    if pmap:
        plans.append(("the same by pmap", dataclasses.replace(parallel, mode="pmap")))
    for name, parallel in plans:
        size = members.plan(what.task, what.batch, what.who, parallel).members
        yield _built(what, start, steps, f"{name}, {where} ({parallel.mode})", parallel, size, devices)


def eager_torch(what: Setting, steps: int) -> Iterator[Way]:
    """A few members in PyTorch, on the GPU where jax and torch both have one; else with one thread and with all.

    Threads that wait for each other can cost more than they bring where the arrays are small or the machine is busy.
    """
    from stag_experiments import torch_reference  # takes seconds to import

    if not torch_reference.available():
        yield Way("eager PyTorch: not installed", None, [], None)
        return
    torch, masks = torch_reference.torch, what.who.members.train_mask[:TORCH_MEMBERS]
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


def _alone(what: Setting, steps: int, chunks: Sequence[int]) -> list[Way]:
    """`one_device` in a process that has done nothing yet."""
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_enable_compilation_cache", False)
    return list(one_device(what, steps, chunks))


def _sequential(what: Setting, start: fold.MemberState, steps: int) -> Way:
    task, device = what.task, jax.devices()[0]
    batch = jax.device_put(what.batch, device)

    def each(tree: Any) -> list[Any]:
        count = len(what.who.names)
        return [jax.device_put(jax.tree.map(lambda x, i=i: np.array(x[i]), tree), device) for i in range(count)]

    everyone, states = each(what.who.members), each(start)
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
    what: Setting,
    start: fold.MemberState,
    steps: int,
    name: str,
    parallel: ParallelConfig,
    size: int,
    devices: Sequence[jax.Device],
) -> Way:
    study = members.build(what.task, what.batch, what.who, parallel, size, devices)
    rates = _timed(_dispatch(study, study.place(start)), len(what.who.names), steps)
    return _said(Way(name, study.per_device, rates, study.compile_s))


def _stacked(what: Setting) -> fold.MemberState:
    """The first member's first state, once for each member; on the host, where the copies share their memory."""
    task, count = what.task, len(what.who.names)
    member = jax.tree.map(lambda x: x[0], what.who.members)
    state = jax.jit(lambda batch, member: fold.init(task, batch, member))(what.batch, member)
    return jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (count, *x.shape)), state)


def _dispatch(study: members.Study, states: list[fold.MemberState]) -> Callable[[int], None]:
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
