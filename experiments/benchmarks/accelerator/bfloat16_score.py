"""The part "bfloat16": what a network of bfloat16 activations loses, and gains in speed, on clips of known order."""

import dataclasses
from typing import Any

import numpy as np

from stag_configs import base, synth_me_order
from stag_experiments.benchmarks import random_study
from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator import rendered_clips
from stag_experiments.benchmarks.accelerator.bench import Bench, Clock, Job, Row, Rows
from stag_experiments.benchmarks.accelerator.programs import Compile, Later, Program
from stag_jax.config import from_config_dict
from stag_jax.model import network
from stag_jax.motion import nodes
from stag_jax.protocol import metrics
from stag_jax.protocol.splits import loso
from stag_jax.training import members
from stag_jax.training.roster import by_fold, make_roster, scatter
from stag_jax.types import ClipBatch

TYPES = ("float32", "bfloat16")
SEEN = ("nodes", "times_ms", "magnitude", "frame_mask")


def jobs(bench: Bench) -> list[Job]:
    """Return a job a type of activations: UF1 of the held-out clips, mean over seeds."""
    clips = Program("order clips", lambda later: later(lambda: order_setting(bench)))
    return [_scores(bench, clips, dtype) for dtype in TYPES]


def _scores(bench: Bench, clips: Program, dtype: str) -> Job:
    def build(later: Compile, clips: Later) -> members.Members:
        setting, parallel = _with_type(clips.result(), dtype), bench.parallel()
        planned = members.plan(setting.task, setting.batch, setting.roster, parallel)
        return members.Members(
            setting.task,
            setting.batch,
            setting.roster,
            parallel,
            planned.members,
            compiler=lambda lowered: later(lowered.compile),
        )

    train = Program(f"order {dtype}", build, after=(clips.name,))

    def build_predict(later: Compile, study: members.Members) -> Later:
        return later(lambda: study.predict(study.init()))

    predict = Program(f"order {dtype}, first states and prediction", build_predict, after=(train.name,))

    def measure(clock: Clock, study: members.Members, clips: Later, first: Any) -> Rows:
        setting = _with_type(clips.result(), dtype)
        yield {
            "activations": dtype,
            "clips": len(setting.batch.label),
            "folds x seeds": f"{setting.roster.shape[2]} x {setting.roster.shape[1]}",
            **_score(bench, setting, study, clock.left()),
            "compiled in s": bench.programs.seconds(train.name),
        }

    return Job(dtype, "bfloat16", 25, measure, (train, clips, predict), 60)


def order_setting(bench: Bench) -> random_study.RandomStudy:
    """Render the order corpus at this size, measure its features, and lay out the folds of its people."""
    changes = {**synth_me_order.CHANGES, **bench.size.network}
    if bench.size.order_steps:
        changes["train.steps"] = bench.size.order_steps
        changes["train.warmup_steps"] = bench.size.order_steps // 4
    config = from_config_dict(base.settings(changes))
    subjects, count = bench.size.order
    clips = rendered_clips.order_clips(subjects, count, config)
    graph = nodes.graph(config.graph, config.motion)
    units = np.array([[unit in clip.units for unit in graph.units] for clip in clips], np.float32)
    batch = ClipBatch(
        **{name: np.stack([getattr(clip, name) for clip in clips]) for name in SEEN},
        au=units,
        au_mask=np.ones_like(units, bool),
        label=np.array([clip.label for clip in clips], np.int32),
    )
    splits = loso([clip.subject for clip in clips])
    return random_study.RandomStudy(config, graph, batch, make_roster(splits, range(bench.size.order_seeds)))


def _with_type(setting: random_study.RandomStudy, dtype: str) -> random_study.RandomStudy:
    model = dataclasses.replace(setting.config.model, dtype=dtype)
    return setting._replace(config=dataclasses.replace(setting.config, model=model))


def _score(bench: Bench, setting: random_study.RandomStudy, study: members.Members, seconds: float) -> Row:
    """Train to the last step, or as far as the time goes, and score the clips that each fold held out."""
    wanted = setting.config.train.steps
    states, trained = study.train(study.init(), 1)  # not counted in the rate
    watch, done = bench_lib.Stopwatch(), 1
    while done < wanted and watch.seconds() < seconds:
        count = min(bench.size.steps, wanted - done)
        states, trained = study.train(states, count)
        done += count
    train_s = watch.seconds()
    predictions = study.predict(states)
    probability, _ = network.probabilities(predictions)
    roster = setting.roster
    pooled = scatter(
        by_fold(np.asarray(probability), roster),
        roster.test_rows[: roster.shape[2]],
        roster.test_mask[: roster.shape[2]],
        len(setting.batch.label),
    )[0]
    uf1 = metrics.mean_scores(setting.batch.label, pooled.argmax(axis=-1), len(setting.config.data.classes))["uf1"]
    return {
        "UF1": uf1,
        "steps": done if done == wanted else f"{done} of {wanted}: no time for more",
        "loss of training": float(np.mean(trained["loss"])),
        "member-steps/s": (done - 1) * len(roster.names) / train_s if done > 1 else None,
    }
