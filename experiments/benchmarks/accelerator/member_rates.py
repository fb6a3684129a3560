"""The part "members": one member after the other, vmapped, and spread over the devices, in two shapes of network."""

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np

from stag_experiments.benchmarks import random_study
from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator.bench import CLIPS, COMPOSITE, Bench, Clock, Row, Rows
from stag_jax.training import fold, members, memory

ALONE = 4  # members of the loop
FIRST = 0.6  # share of the time that the first shape may take; what it leaves is the second's
REST = 0.4  # and it is begun only if so much of the first's time is left
MEASURING = 0.2  # share of the time that is kept for measuring what has been compiled
SLACK = 1.3  # a program is taken to compile in no more than so many times what the first one took
ROOMY = 1.25  # the memory is tried out where it holds so many times the largest number of members


def measure(bench: Bench, clock: Clock) -> Rows:
    """Yield a row a way of training, for networks of flow images and then of clips."""
    several = bench.threads() > 1  # programs are compiled at a time; else the first network has what time it needs
    watch = bench_lib.Stopwatch()
    yield from _ways(bench, COMPOSITE, Clock((FIRST if several else 1.0) * clock.left()))
    if clock.left() > (REST if several else 1.0) * watch.seconds():
        yield from _ways(bench, CLIPS, clock)
    else:
        yield {"network": CLIPS, "note": "left out: no time to compile anything"}


def _ways(bench: Bench, kind: str, clock: Clock) -> Rows:
    flops = bench_lib.flops(bench.setting(kind, 1))
    first = None
    for row in _one_after_the_other(bench, kind):
        first = first or row["member-steps/s"]
        yield _compared(bench, row, first, flops)
    for row in _together(bench, kind, clock):
        yield _compared(bench, row, first, flops)


def _compared(bench: Bench, row: Row, first: float, flops: float | None) -> Row:
    """Add what the rate is beside the loop and beside the rate of products."""
    rate, products = row.get("member-steps/s"), bench.facts.get("_rate")
    if rate:
        share = f"{100 * rate * flops / products:.2g}%" if flops and products else None
        row |= {"times the loop": rate / first, "share of the matrix rate": share}
    order = ("network", "method", "members", "member-steps/s", "times the loop", "share of the matrix rate")
    return {key: row.get(key) for key in order} | row


def _one_after_the_other(bench: Bench, kind: str) -> Rows:
    """Yield the rates of a loop over members, each by the same compiled program, on the first device."""
    setting, device, program = bench.setting(kind, ALONE), jax.devices()[0], bench.steps(kind)
    batch, roster = jax.device_put((setting.batch, setting.roster.members), device)
    everyone = [jax.tree.map(lambda x, i=i: x[i], roster) for i in range(ALONE)]
    start = jax.tree.map(lambda x: np.array(x[0]), bench.states(kind, 1))
    states = [jax.device_put(start, device) for _ in everyone]

    def run(dispatches: int, steps: int) -> None:
        for index, member in enumerate(everyone):
            for _ in range(dispatches):
                states[index], _ = program.run(batch, member, states[index], np.int32(steps))
        jax.block_until_ready(states)

    for dispatches, steps in ((bench.size.steps, 1), (1, bench.size.steps)):
        seconds = bench_lib.repeated(lambda d=dispatches, s=steps: run(d, s), bench.size.seconds)
        yield {
            "network": kind,
            "method": f"one member after the other, {steps} step{'s' * (steps > 1)} a dispatch",
            "members": 1,
            "member-steps/s": ALONE * bench.size.steps / seconds,
            "compiled in s": program.compile_s,
        }


def _together(bench: Bench, kind: str, clock: Clock) -> Rows:
    """Yield the rates of members in one program: compile all programs at once, then time those that are ready."""
    fits, could = planned(bench, kind)
    plans = _plans(bench, fits, could)
    # Compiled first: what is most wanted where time runs out. No more than can be ready are begun.
    shared = bench.size.shared * len(jax.devices())
    wanted = sorted(plans, key=lambda plan: (abs(np.log(plan[0] / shared)), plan[1] == "pmap", -plan[2]))
    seconds, once = (1 - MEASURING) * clock.left(), SLACK * bench.steps(kind).compile_s
    rounds = int(seconds / once)
    if rounds < 1:  # without one there would be nothing to compare the loop with, and other parts use the first program
        rounds, seconds = 1, once
    if bench.threads() == 1:
        seconds = None  # the part that needs the program next would have to wait for it as well
    with contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(bench.threads())
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        futures = {plan: pool.submit(bench.study, kind, *plan) for plan in wanted[: rounds * bench.threads()]}
        wait(futures.values(), timeout=seconds)  # the rest may be ready when its turn comes
        for plan in plans:
            yield {**_row(kind, plan), **_outcome(bench, kind, plan, futures.get(plan), clock)}
    for count in bench.size.members:
        if count > could:
            note = f"left out: the memory is for {fits}, or {could} at the very most"
            yield {**_row(kind, (count, "sharded", 1)), "note": note}


def _plans(bench: Bench, fits: int, could: int) -> list[tuple[int, str, int]]:
    """Return (members, mode, devices) of every program; see `planned`."""
    counts = [count for count in bench.size.members if count <= could]
    if bench.size.threads == 0 and (not counts or fits >= ROOMY * max(counts)):
        counts.append(max(1, fits // 8 * 8))
    devices = len(jax.devices())
    plans = [(count, "sharded", 1) for count in counts]
    plans += [(bench.size.shared * devices, mode, devices) for mode in ("sharded", "pmap")]
    return list(dict.fromkeys(plans))  # on one device, sharded is vmapped


def planned(bench: Bench, kind: str) -> tuple[int, int]:
    """Return how many members the memory plan of training puts on the first device, and how many might just fit."""
    setting, device = bench.setting(kind, 1), jax.devices()[0]
    required = memory.need(setting.task, setting.batch, random_study.abstract_member(setting))
    fixed = sum(np.asarray(x).nbytes for x in setting.batch)
    most = 4 * max(bench.size.members)
    if device.platform == "cpu":  # the plan of a CPU is about its caches, and here all counts are wanted
        fits = int(memory.SHARE * memory.available() / len(jax.devices()) // required.total)
    else:
        fits = memory.plan(required, fixed, device, most, jax.local_device_count()).members
    fits = max(1, min(most, fits))
    return fits, int(fits / memory.SHARE)


def _row(kind: str, plan: tuple[int, str, int]) -> Row:
    count, mode, devices = plan
    ways = {"sharded": "vmapped" if devices == 1 else "sharded", "pmap": "pmap of vmap"}
    return {"network": kind, "method": f"{ways[mode]}, {devices} device{'s' * (devices > 1)}", "members": count}


def _outcome(bench: Bench, kind: str, plan: tuple[int, str, int], future: Future | None, clock: Clock) -> Row:
    """Return the rate of one program, or a note on why there is none."""
    if future is None or not future.done():
        return {"note": "left out: no time to compile it"}
    if clock.left() < 0 and bench.threads() > 1:
        return {"note": "left out: no time to measure it"}
    try:
        study = future.result()
        rate = dispatch_rate(bench, study, bench.states(kind, plan[0]), clock.left() / 2)
    except Exception as error:  # most likely there is too little memory; the other programs go on
        return {"note": bench_lib.reason(error)}
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats["peak_bytes_in_use"] / 1e9 if "peak_bytes_in_use" in stats else None
    return {"member-steps/s": rate, "compiled in s": study.compile_s, "peak memory so far, GB": peak}


def dispatch_rate(bench: Bench, study: members.Study, start: Any, most_s: float) -> float:
    """Return the member-steps per second of whole dispatches, metrics fetched after each as training does it.

    A dispatch has fewer steps than those of training where two would take longer than `most_s`.
    """
    states, count = study.place(start), len(jax.tree.leaves(start)[0])
    _run(study, states, 1)
    watch = bench_lib.Stopwatch()
    _run(study, states, 1)
    steps = max(1, min(bench.size.steps, int(most_s / 2 / watch.seconds())))
    seconds = bench_lib.repeated(lambda: _run(study, states, steps), bench.size.seconds)
    return count * steps / seconds


def _run(study: members.Study, states: list[fold.MemberState], steps: int) -> None:
    states[:], _ = study.train(states, steps)  # the metrics come to the host, so it waits
