"""The part "loso": all steps of all folds and seeds of the composite as one program, in chunks that fit."""

import math
from typing import Any

import jax
import numpy as np

from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator.bench import COMPOSITE, SEEDS, Bench, Clock, Job, Rows
from stag_experiments.benchmarks.accelerator.programs import Compile, Later, Program
from stag_jax.training import members


def jobs(bench: Bench) -> list[Job]:
    """Return the training of the whole, and its prediction, which is another program."""
    whole = bench.whole()

    def build(later: Compile, study: members.Members) -> Later:
        states = study.place(bench.states(COMPOSITE, bench.whole_count()))
        return later(lambda: study.predict(states))

    predict = Program(f"prediction of {whole.name}", build, after=(whole.name,))

    def measure(clock: Clock, study: members.Members, first: Any) -> Rows:
        states = study.place(bench.states(COMPOSITE, bench.whole_count()))
        seconds = bench_lib.repeated(lambda: study.predict(states), bench.size.seconds)
        times = _folds() * SEEDS / bench.whole_count()
        yield _what(bench, study, "predicting all test clips") | {
            "seconds": seconds * times,
            "compiled in s": bench.programs.seconds(predict.name),
            "note": f"EXTRAPOLATED from {bench.whole_count()} members" if times != 1 else "measured to the end",
        }

    return [_training(bench, whole), Job("prediction", "whole prediction", 5, measure, (whole, predict))]


def _training(bench: Bench, program: Program) -> Job:
    def measure(clock: Clock, study: members.Members) -> Rows:
        yield (
            _what(bench, study, "training")
            | _timed(bench, study, clock)
            | {"compiled in s": bench.programs.seconds(program.name)}
        )

    def smaller(study: members.Members) -> Job | None:
        return _training(bench, bench.whole(study.per_device // 2)) if study.per_device > 1 else None

    return Job(f"training, {program.name}", "whole study", 20, measure, (program,), 60, smaller)


def _what(bench: Bench, study: members.Members, what: str) -> dict[str, Any]:
    return {
        "what": what,
        "folds x seeds": f"{_folds()} x {SEEDS}",
        "steps": bench.config(COMPOSITE).train.steps,
        "at once a device": study.per_device,
    }


def _timed(bench: Bench, study: members.Members, clock: Clock) -> dict[str, Any]:
    """Train the members from a made-up state, as far as the time goes."""
    count, wanted = bench.whole_count(), bench.config(COMPOSITE).train.steps
    times, most = _folds() * SEEDS / count, min(wanted, bench.size.loso_steps)
    states = study.place(bench.states(COMPOSITE, count))
    states, metrics = study.train(states, 1)  # not counted: whatever is done once is done here
    watch, done, dispatch_s = bench_lib.Stopwatch(), 0, 0.0
    while done == 0 or (done < most and dispatch_s < clock.left()):
        before, steps = watch.seconds(), min(bench.size.steps, most - done)
        states, metrics = study.train(states, steps)
        done += steps
        dispatch_s = watch.seconds() - before
    seconds = watch.seconds() * wanted / done * times
    part = [f"{done} of {wanted} steps"] * (done < wanted)
    part += [f"{count} of {_folds() * SEEDS} members"] * (times != 1)
    loss = float(np.mean(metrics["loss"]))
    return {
        "seconds": seconds,
        "member-steps/s": wanted * times * count / seconds,
        "devices": len(jax.devices()),
        "loss at the end": loss if math.isfinite(loss) else "not finite",
        "note": f"EXTRAPOLATED from {', '.join(part)}" if part else "measured to the end",
    }


def _folds() -> int:
    return bench_lib.KINDS[COMPOSITE][1]
