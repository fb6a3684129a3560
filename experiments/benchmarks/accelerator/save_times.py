"""The part "saving": how long training waits for a save, how long it takes in all, and what a fetch takes."""

import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np

from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator.bench import COMPOSITE, Bench, Job, Rows
from stag_jax.training import checkpoint, layout

FETCHES = 20
METRICS = 7  # numbers a member and dispatch: see fold.loss_fn and fold.train_step


def jobs(bench: Bench) -> list[Job]:
    """Return what needs no program: states are made up."""
    return [Job("saving", "saving", 15, lambda clock: _measure(bench))]


def _measure(bench: Bench) -> Rows:
    """Yield the time of a save and of its parts, then of a fetch; nothing is compiled but a copy."""
    devices = jax.devices()
    count = -(-bench.size.saved // len(devices)) * len(devices)
    over_devices = layout.Sharded(devices)
    states = over_devices.put(bench.states(COMPOSITE, count))
    size = sum(x.nbytes for x in jax.tree.leaves(states)) / 1e6
    jax.block_until_ready(over_devices.copy(states))
    folder = Path(tempfile.mkdtemp(dir=bench.facts.get("_out")))
    try:
        with checkpoint.StateStore(folder, keep=1) as store:
            for step in (1, 2):  # the first save starts threads and makes folders
                watch = bench_lib.Stopwatch()
                store.save(step, [over_devices.copy(states)], 0.0)
                waited_s = watch.seconds()
                store.wait()
                whole_s = watch.seconds()
                yield {
                    "what": f"Orbax save of the stacked state, {('first', 'second')[step - 1]}",
                    "members": count,
                    "MB": size,
                    "training waits ms": 1e3 * waited_s,
                    "ms in all": 1e3 * whole_s,
                }
            watch = bench_lib.Stopwatch()
            member = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), states)
            store.load(member, count)
            yield {
                "what": "Orbax restore to the host",
                "members": count,
                "MB": size,
                "ms in all": 1e3 * watch.seconds(),
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    del states
    metrics = over_devices.put({str(index): np.ones(count, np.float32) for index in range(METRICS)})
    seconds = []
    for _ in range(FETCHES):
        fresh = jax.block_until_ready(over_devices.copy(metrics))  # an array that was fetched keeps its values
        watch = bench_lib.Stopwatch()
        over_devices.fetch(fresh)
        seconds.append(watch.seconds())
    yield {
        "what": "fetch of the metrics of one dispatch",
        "members": count,
        "MB": 4 * METRICS * count / 1e6,
        "ms in all": 1e3 * float(np.median(seconds)),
    }
