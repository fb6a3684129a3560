"""The part "windows": how long a trained network takes for one window and for many."""

import jax
import numpy as np

from stag_experiments.benchmarks import random_study
from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator.bench import CLIPS, Bench, Clock, Job, Rows
from stag_experiments.benchmarks.accelerator.programs import Compile, Later, Program
from stag_jax.model import network
from stag_jax.training import fold
from stag_jax.types import ClipBatch


def jobs(bench: Bench) -> list[Job]:
    """Return a job a number of windows at once."""
    wanted = ("prediction", "more prediction", "most windows")
    return [_rate(bench, count, name) for count, name in zip(bench.size.windows, wanted, strict=False)]


def _rate(bench: Bench, count: int, wanted: str) -> Job:
    def build(later: Compile) -> Later:
        setting = bench.setting(CLIPS, 1)

        def answer(clips: ClipBatch, state: fold.MemberState) -> tuple[jax.Array, jax.Array]:
            weights = network.Weights(state.params, state.statistics)
            return network.probabilities(network.outputs(setting.task.network, weights, clips))

        return later(jax.jit(answer).lower(_clips(bench, count), _state(bench)).compile)

    program = Program(f"prediction of {count} windows", build)

    def measure(clock: Clock, answer: Later) -> Rows:
        clips, state = _clips(bench, count), jax.device_put(_state(bench))
        placed, seconds = jax.device_put(clips), bench.size.seconds
        whole = bench_lib.repeated(lambda: jax.device_get(answer(clips, state)), seconds, most=1000)
        inner = bench_lib.repeated(lambda: jax.block_until_ready(answer(placed, state)), seconds, most=1000)
        yield {
            "windows at once": count,
            "ms from host to host": 1e3 * whole,
            "windows/s from host to host": count / whole,
            "ms on the device": 1e3 * inner,
            "windows/s on the device": count / inner,
            "MB sent": sum(np.asarray(x).nbytes for x in clips) / 1e6,
            "compiled in s": bench.programs.seconds(program.name),
        }

    return Job(f"{count} windows", wanted, 5, measure, (program,))


def _clips(bench: Bench, count: int) -> ClipBatch:
    setting = bench.setting(CLIPS, 1)
    return random_study.random_clips(setting.config, setting.graph, count)


def _state(bench: Bench) -> fold.MemberState:
    return jax.tree.map(lambda x: np.array(x[0]), bench.states(CLIPS, 1))
