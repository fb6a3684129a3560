"""The part "saving": how long training waits for a save, how long it takes in all, and what a fetch takes."""

import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np

from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator.bench import COMPOSITE, Bench, Clock, Rows
from stag_jax.training import checkpoint, layout

METRICS = 7  # numbers a member and dispatch: see fold.loss_fn and fold.train_step


def measure(bench: Bench, clock: Clock) -> Rows:
    """Yield the time of a save and of its parts, then of a fetch; nothing is compiled but a copy."""
    devices = jax.devices()
    count = -(-bench.size.saved // len(devices)) * len(devices)
    lay = layout.make_layout("sharded", devices)
    states = lay.place(bench.states(COMPOSITE, count))
    size = sum(x.nbytes for x in jax.tree.leaves(states)) / 1e6
    jax.block_until_ready(lay.copy(states))
    folder = Path(tempfile.mkdtemp(dir=bench.facts.get("_out")))
    try:
        with checkpoint.StateStore(folder, keep=1) as store:
            for step in (1, 2):  # the first save starts threads and makes folders
                watch = bench_lib.Stopwatch()
                store.save(step, [lay.copy(states)], 0.0)
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
    metrics = lay.place({str(index): np.ones(count, np.float32) for index in range(METRICS)})
    fetch_s = bench_lib.repeated(lambda: lay.fetch(jax.tree.map(lambda x: x + 1, metrics)), bench.size.seconds / 4)
    yield {
        "what": "fetch of the metrics of one dispatch",
        "members": count,
        "MB": 4 * METRICS * count / 1e6,
        "ms in all": 1e3 * fetch_s,
    }
