"""The part "members": one member after the other, vmapped, and spread over the devices, in two shapes of network."""

from typing import Any

import jax
import numpy as np

from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator.bench import CLIPS, COMPOSITE, Bench, Clock, Job, Row, Rows
from stag_experiments.benchmarks.accelerator.programs import Compile, Later, Program
from stag_jax.training import fold, members, memory
from stag_jax.types import UserError

ALONE = 4  # members of the loop
ROOMY = 1.25  # the memory is tried out where it holds so many times the largest number of members
LARGEST = "as many as the memory is planned for"


def jobs(bench: Bench) -> list[Job]:
    """Return the rates of networks of flow images and then of clips."""
    devices, shared, whole = len(jax.devices()), bench.shared_count(), bench.whole_count()
    over = "vmapped, 1 device" if devices == 1 else f"sharded, {devices} devices"
    found = []
    for kind in (COMPOSITE, CLIPS):
        first = kind == COMPOSITE
        found.append(_loop(bench, kind, "loop" if first else "clips"))
        if first:
            found.append(_together(bench, kind, over, whole, "whole study", bench.whole()))
        found.append(_together(bench, kind, over, shared, "shared" if first else "clips", bench.shared(kind)))
        counts = [c for c in bench.size.members if devices > 1 or c not in (shared, whole if first else 0)]
        for count in sorted(counts, key=lambda count: abs(np.log(count / bench.size.shared))):
            wanted = "most members" if count == max(bench.size.members) else "other members"
            program = _that_may_fit(bench, kind, count)
            found.append(
                _together(bench, kind, "vmapped, 1 device", count, wanted if first else "other clips", program)
            )
    method = f"pmap of vmap, {devices} device{'s' * (devices > 1)}"
    found.append(_together(bench, COMPOSITE, method, shared, "pmap", bench.shared(COMPOSITE, "pmap")))
    if bench.size.fill:
        method = f"vmapped, 1 device, {LARGEST}"
        found.append(_together(bench, COMPOSITE, method, 0, "memory", _largest(bench, COMPOSITE)))
    order = {kind: index for index, kind in enumerate((COMPOSITE, CLIPS))}
    return sorted(found, key=lambda job: order[job.name.partition(" ")[0]])


def _that_may_fit(bench: Bench, kind: str, count: int) -> Program:
    """Return the training of `count` members at once on one device, if its memory is not sure to be too small."""
    program = bench.training(kind, count, at_once=count)

    def build(later: Compile) -> members.Members:
        fits = bench.fits(kind)
        if count > fits / memory.SHARE:
            raise UserError(f"the memory is for {fits}, or {int(fits / memory.SHARE)} at the very most")
        return program.build(later)

    return Program(f"{kind} {count}", build)


def _largest(bench: Bench, kind: str) -> Program:
    def build(later: Compile) -> members.Members:
        fits = bench.fits(kind)
        if fits < ROOMY * max(bench.size.members):
            raise UserError(f"the memory is for {fits}, which is little more than what is measured, or less")
        count = max(1, fits // 8 * 8)
        return bench.training(kind, count, at_once=count).build(later)

    return Program(f"{kind}, {LARGEST}", build)


def _loop(bench: Bench, kind: str, wanted: str) -> Job:
    program, flops = bench.loop(kind), bench.flops(kind)

    def measure(clock: Clock, train: Later, flop: float | None) -> Rows:
        for row in _one_after_the_other(bench, kind, train):
            bench.facts.setdefault(f"_loop_{kind}", row["member-steps/s"])
            yield _compared(bench, kind, row | {"compiled in s": bench.programs.seconds(program.name)}, flop)

    return Job(f"{kind} loop", wanted, 10, measure, (program, flops))


def _one_after_the_other(bench: Bench, kind: str, train: Later) -> Rows:
    """Yield the rates of a loop over members, each by the same compiled program, on the first device."""
    setting, device = bench.setting(kind, ALONE), jax.devices()[0]
    batch, roster = jax.device_put((setting.batch, setting.roster.members), device)
    everyone = [jax.tree.map(lambda x, i=i: x[i], roster) for i in range(ALONE)]
    start = jax.tree.map(lambda x: np.array(x[0]), bench.states(kind, 1))
    states = [jax.device_put(start, device) for _ in everyone]

    def run(dispatches: int, steps: int) -> None:
        for index, member in enumerate(everyone):
            for _ in range(dispatches):
                states[index], _ = train(batch, member, states[index], np.int32(steps))
        jax.block_until_ready(states)

    for dispatches, steps in ((bench.size.steps, 1), (1, bench.size.steps)):
        seconds = bench_lib.repeated(lambda d=dispatches, s=steps: run(d, s), bench.size.seconds)
        yield {
            "network": kind,
            "method": f"one member after the other, {steps} step{'s' * (steps > 1)} a dispatch",
            "members": 1,
            "member-steps/s": ALONE * bench.size.steps / seconds,
        }


def _together(bench: Bench, kind: str, method: str, count: int, wanted: str, program: Program) -> Job:
    """Return the rate of members in one program."""
    flops = bench.flops(kind)

    def measure(clock: Clock, study: members.Members, flop: float | None) -> Rows:
        rows = count or study.per_device
        rate = dispatch_rate(bench, study, bench.states(kind, rows))
        stats = jax.devices()[0].memory_stats() or {}
        peak = stats["peak_bytes_in_use"] / 1e9 if "peak_bytes_in_use" in stats else None
        row = {"network": kind, "method": method, "members": rows, "member-steps/s": rate}
        yield _compared(bench, kind, row, flop) | {
            "compiled in s": bench.programs.seconds(program.name),
            "peak memory so far, GB": peak,
        }

    def smaller(study: members.Members, flop: float | None) -> Job | None:
        """Return the same with half as many at once, where all that the memory holds was the aim."""
        half = study.per_device // 2
        tried = bench.training(kind, count or half, devices=len(jax.devices()) if count else 1, at_once=half)
        wished = wanted in ("whole study", "memory") and half > 0
        return _together(bench, kind, f"{method}, {half} at once", count or half, wanted, tried) if wished else None

    name = " ".join([kind, method, str(count)])
    return Job(name, wanted, 15 if wanted in ("most members", "memory") else 8, measure, (program, flops), 0, smaller)


def _compared(bench: Bench, kind: str, row: Row, flop: float | None) -> Row:
    """Add what the rate is beside the loop and beside the rate of products."""
    rate, products, loop = row["member-steps/s"], bench.facts.get("_rate"), bench.facts.get(f"_loop_{kind}")
    return row | {
        "times the loop": rate / loop if loop else None,
        "share of the matrix rate": f"{100 * rate * flop / products:.2g}%" if flop and products else None,
    }


def dispatch_rate(bench: Bench, study: members.Members, start: Any) -> float:
    """Return the member-steps per second of whole dispatches, metrics fetched after each as training does it.

    A dispatch has fewer steps than those of training where it would take longer than two timings.
    """
    states, count = study.place(start), len(jax.tree.leaves(start)[0])
    _run(study, states, 1)
    watch = bench_lib.Stopwatch()
    _run(study, states, 1)
    steps = max(1, min(bench.size.steps, int(2 * bench.size.seconds / watch.seconds())))
    seconds = bench_lib.repeated(lambda: _run(study, states, steps), bench.size.seconds)
    return count * steps / seconds


def _run(study: members.Members, states: list[fold.MemberState], steps: int) -> None:
    states[:], _ = study.train(states, steps)  # the metrics come to the host, so it waits
