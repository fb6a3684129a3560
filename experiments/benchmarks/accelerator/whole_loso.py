"""The part "loso": all steps of all folds and seeds of the composite as one program, in chunks that fit."""

import math

import jax
import numpy as np

from stag_experiments.benchmarks import random_study
from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator.bench import COMPOSITE, Bench, Clock, Row, Rows
from stag_jax.training import members

SEEDS = 5


def measure(bench: Bench, clock: Clock) -> Rows:
    """Yield the seconds of the whole, extrapolated where it does not fit in the time; compiling is apart."""
    _, folds, _ = bench_lib.KINDS[COMPOSITE]
    whole, devices = folds * SEEDS, len(jax.devices())
    count = min(bench.size.loso_members or whole, whole)
    setting = bench.setting(COMPOSITE, count)
    planned = members.plan(setting.task, setting.batch, setting.roster, bench.parallel())
    largest = planned.members if jax.default_backend() != "cpu" else count  # few at once is a matter of caches

    def run(per_device: int) -> Row:
        study = bench.study(COMPOSITE, count, devices=devices, per_device=per_device)
        return _timed(bench, setting, study, whole / count, clock)

    at_once, row = bench_lib.largest_that_fits(run, min(largest, -(-count // devices)))
    yield {
        "folds x seeds": f"{folds} x {SEEDS}",
        "clips": len(setting.batch.label),
        "steps": setting.config.train.steps,
        "at once a device": at_once,
        **row,
    }


def _timed(bench: Bench, setting: random_study.RandomStudy, study: members.Study, times: float, clock: Clock) -> Row:
    """Train the members of `setting`, predict their test clips; `times` is how much more work the whole study is."""
    watch = bench_lib.Stopwatch()
    # To start from one state costs no program; it is done where the figures are extrapolated anyway.
    states = study.init() if times == 1 else study.place(bench.states(COMPOSITE, len(setting.roster.names)))
    jax.block_until_ready(states)
    init_s = watch.seconds() if times == 1 else 0.0
    wanted, steps = setting.config.train.steps, min(bench.size.steps, bench.size.loso_steps)
    states, metrics = study.train(states, 1)  # not counted: whatever is done once is done here
    watch, done, dispatch_s = bench_lib.Stopwatch(), 0, 0.0
    most = min(wanted, bench.size.loso_steps)
    while done == 0 or (done < most and dispatch_s < clock.left()):
        before, count = watch.seconds(), min(steps, wanted - done)
        states, metrics = study.train(states, count)
        done += count
        dispatch_s = watch.seconds() - before
    train_s = watch.seconds() * wanted / done * times
    watch = bench_lib.Stopwatch()
    study.predict(states)
    predict_first_s = watch.seconds()
    watch = bench_lib.Stopwatch()
    study.predict(states)
    predict_s = watch.seconds() * times
    part = [f"{done} of {wanted} steps"] * (done < wanted)
    part += [f"{len(setting.roster.names)} of {round(times * len(setting.roster.names))} members"] * (times > 1)
    return {
        "training s": train_s,
        "predicting s": predict_s,
        "whole s": train_s + predict_s,
        "member-steps/s": wanted * times * len(setting.roster.names) / train_s,
        "compiled in s": study.compile_s
        + (init_s if times == 1 else 0.0)
        + max(0.0, predict_first_s - predict_s / times),
        "loss at the end": float(np.mean(metrics["loss"])) if math.isfinite(np.mean(metrics["loss"])) else "not finite",
        "note": f"EXTRAPOLATED from {', '.join(part)}" if part else "measured to the end",
    }
