"""The part "losses": the first losses of members on the device against those of each member alone on the CPU."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from stag_experiments.benchmarks.accelerator.bench import COMPOSITE, Bench, Clock, Job, Rows
from stag_experiments.benchmarks.accelerator.programs import Later
from stag_jax.training import members

MEMBERS, STEPS = 4, 5  # members at most
# Of the loss, over so few steps: float32 summed in another order, and products of accelerators at their default, for
# which an NVIDIA device rounds to 10 bits.
TOLERANCE, ROUNDED = 1e-4, 1e-2
PRECISE = "highest"

Metrics = dict[str, np.ndarray]


def jobs(bench: Bench) -> list[Job]:
    """Return the comparison at the default precision and, on an accelerator, at the highest."""
    if jax.default_backend() == "cpu":
        return [_job(bench, "losses", None, TOLERANCE)]
    return [_job(bench, "losses", None, ROUNDED), _job(bench, "highest", PRECISE, TOLERANCE)]


def _job(bench: Bench, wanted: str, precision: str | None, tolerance: float) -> Job:
    on_cpu = jax.default_backend() == "cpu"
    count = MEMBERS if precision else bench.shared_count()
    together = bench.training(COMPOSITE, count, precision=precision) if precision else bench.shared(COMPOSITE)
    alone = bench.loop(COMPOSITE) if on_cpu else bench.loop(COMPOSITE, "cpu")

    def measure(clock: Clock, study: members.Members, program: Later) -> Rows:
        device = _on_the_device(bench, study, count)
        cpu = _on_the_cpu(bench, program, min(MEMBERS, count))
        for index in range(STEPS):
            loss, norm = (
                float(np.max(np.abs(device[index][name] / cpu[index][name] - 1))) for name in ("loss", "grad_norm")
            )
            yield {
                "precision on the device": precision or "default",
                "step": index + 1,
                "loss of the first member, device": float(device[index]["loss"][0]),
                "loss of the first member, CPU": float(cpu[index]["loss"][0]),
                "loss, largest relative difference": loss,
                "norm of the gradient, the same": norm,
                "loss within": tolerance,
                "it is": loss <= tolerance,
                "note": "the device is the CPU: two programs are compared" if on_cpu else None,
            }

    return Job(wanted, wanted, 10, measure, (together, alone))


def _on_the_device(bench: Bench, study: members.Members, count: int) -> list[Metrics]:
    """Return the metrics of the first steps of all members, vmapped."""
    states, found = study.place(bench.states(COMPOSITE, count)), []
    for _ in range(STEPS):
        states, metrics = study.train(states, 1)
        found.append({name: values[:MEMBERS] for name, values in metrics.items()})
    return found


def _on_the_cpu(bench: Bench, program: Callable, count: int) -> list[Metrics]:
    """Return the same of each member alone, on the first CPU device."""
    setting, cpu = bench.setting(COMPOSITE, count), jax.devices("cpu")[0]
    start = bench.states(COMPOSITE, count)
    each = [_steps(program, setting.batch, (setting.roster.members, start), index, cpu) for index in range(count)]
    return [jax.tree.map(lambda *values: np.stack(values), *metrics) for metrics in zip(*each, strict=True)]


def _steps(program: Callable, batch: Any, stacked: tuple, index: int, device: jax.Device) -> list[Metrics]:
    """Return the metrics of the first steps of one member, on the host."""
    member, state = jax.tree.map(lambda x: np.array(x[index]), stacked)
    batch, member, state = jax.device_put((batch, member, state), device)
    found = []
    for _ in range(STEPS):
        state, metrics = program(batch, member, state, np.int32(1))
        found.append(jax.device_get(metrics))
    return found
