"""The part "losses": the first losses of members on the device against those of each member alone on the CPU."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from stag_experiments.benchmarks.accelerator.bench import COMPOSITE, Bench, Clock, Rows
from stag_jax.training import fold

MEMBERS, STEPS = 4, 5  # members at most
TOLERANCE = 1e-4  # of the loss: float32 summed in another order, over so few steps
PRECISION = "highest"

Metrics = dict[str, np.ndarray]


def measure(bench: Bench, clock: Clock) -> Rows:
    """Yield a row a step: the largest difference over members, of the loss and of the norm of the gradient."""
    on_cpu = _on_a_cpu()
    # A CPU has one precision, so there the programs of other parts serve.
    with contextlib.nullcontext() if on_cpu else jax.default_matmul_precision(PRECISION):
        together = _on_the_device(bench)
        alone = _on_the_cpu(bench)
    for index in range(STEPS):
        apart = {
            name: float(np.max(np.abs(together[index][name] / alone[index][name] - 1)))
            for name in ("loss", "grad_norm")
        }
        yield {
            "step": index + 1,
            "loss of the first member, device": float(together[index]["loss"][0]),
            "loss of the first member, CPU": float(alone[index]["loss"][0]),
            "loss, largest relative difference": apart["loss"],
            "norm of the gradient, the same": apart["grad_norm"],
            f"loss within {TOLERANCE:g}": apart["loss"] <= TOLERANCE,
            "note": "the device is the CPU: two programs are compared" if on_cpu else None,
        }


def _on_the_device(bench: Bench) -> list[Metrics]:
    """Return the metrics of the first steps of all members, vmapped."""
    count, study = MEMBERS, None
    if _on_a_cpu():
        count, study = bench.everywhere(COMPOSITE)
    study = study or bench.study(COMPOSITE, count, precision=PRECISION)
    states, found = study.place(bench.states(COMPOSITE, count)), []
    for _ in range(STEPS):
        states, metrics = study.train(states, 1)
        found.append({name: values[:MEMBERS] for name, values in metrics.items()})
    return found


def _on_the_cpu(bench: Bench) -> list[Metrics]:
    """Return the same of each member alone, on the first CPU device."""
    count = min(MEMBERS, bench.everywhere(COMPOSITE)[0]) if _on_a_cpu() else MEMBERS
    setting, cpu = bench.setting(COMPOSITE, count), jax.devices("cpu")[0]
    if _on_a_cpu():
        program = bench.steps(COMPOSITE).run
    else:
        program = jax.jit(lambda *args: fold.train_steps(setting.task, *args))
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


def _on_a_cpu() -> bool:
    return jax.default_backend() == "cpu"
