"""The part "resume": whether training that goes on from a saved state ends in the same bytes on this device."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stag_experiments.benchmarks.accelerator.bench import COMPOSITE, Bench, Job, Row, Rows
from stag_jax.training import checkpoint, members


def jobs(bench: Bench) -> list[Job]:
    """Return how two undisturbed trainings compare, then an undisturbed one and one that was resumed."""
    return [Job("resume", "resume", 15, lambda clock, study: _measure(bench, study), (bench.shared(COMPOSITE),))]


def _measure(bench: Bench, study: members.Members) -> Rows:
    count, steps = bench.shared_count(), bench.size.steps
    whole = _train(bench, study, count, steps)
    yield {"compared": "two trainings that nothing disturbs", **_compared(whole, _train(bench, study, count, steps))}
    states, _ = study.train(study.place(bench.states(COMPOSITE, count)), steps)
    with tempfile.TemporaryDirectory() as folder, checkpoint.StateStore(Path(folder), keep=1) as store:
        store.save(steps, study.copy(states), 0.0)
        store.wait()
        _, stacked, _ = store.load(study.member, count)
    resumed, _ = study.train(study.place(stacked), steps)
    yield {
        "compared": f"one of them and one resumed after {steps} of {2 * steps} steps",
        **_compared(whole, study.gather(resumed)),
    }


def _train(bench: Bench, study: members.Members, count: int, steps: int) -> Any:
    """Return the members on the host after two dispatches."""
    states = study.place(bench.states(COMPOSITE, count))
    for _ in range(2):
        states, _ = study.train(states, steps)
    return study.gather(states)


def _compared(one: Any, other: Any) -> Row:
    leaves = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    differ = sum(np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in leaves)
    apart = max(float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()) for a, b in leaves)
    return {
        "members": len(leaves[0][0]),
        "same bytes": differ == 0,
        "arrays that differ": f"{differ} of {len(leaves)}",
        "largest difference": apart,
    }
