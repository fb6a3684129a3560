"""The part "windows": how long a trained network takes for one window and for many."""

import jax
import numpy as np

from stag_experiments.benchmarks import random_study
from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator.bench import CLIPS, Bench, Clock, Rows
from stag_jax.training import fold
from stag_jax.types import ClipBatch


def measure(bench: Bench, clock: Clock) -> Rows:
    """Yield a row a number of windows at once."""
    setting = bench.setting(CLIPS, 1)
    state = jax.tree.map(lambda x: jax.device_put(x[0]), bench.states(CLIPS, 1))

    @jax.jit
    def answer(clips: ClipBatch, state: fold.MemberState) -> tuple[jax.Array, jax.Array]:
        logits, aux = fold.forward(setting.task, clips, state.params, state.statistics)
        return fold.probabilities(fold.Prediction(logits, aux["au_logits"]))

    for count in bench.size.windows:
        clips = random_study.random_clips(setting.config, setting.graph, count)
        placed = jax.device_put(clips)
        watch = bench_lib.Stopwatch()
        jax.block_until_ready(answer(placed, state))
        compile_s = watch.seconds()
        whole = bench_lib.repeated(lambda c=clips: jax.device_get(answer(c, state)), bench.size.seconds, most=1000)
        inner = bench_lib.repeated(
            lambda c=placed: jax.block_until_ready(answer(c, state)), bench.size.seconds, most=1000
        )
        yield {
            "windows at once": count,
            "ms from host to host": 1e3 * whole,
            "windows/s from host to host": count / whole,
            "ms on the device": 1e3 * inner,
            "windows/s on the device": count / inner,
            "MB sent": sum(np.asarray(x).nbytes for x in clips) / 1e6,
            "compiled in s": compile_s,
        }
        if clock.left() < 0:
            return
