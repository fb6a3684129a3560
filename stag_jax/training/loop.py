"""A whole run: corpus, members, steps, predictions, files. Python owns the loop and nothing else."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from stag_jax.config import Config
from stag_jax.protocol import splits as splits_lib
from stag_jax.training import (
    checkpoint,
    dataset,
    fold,
    history,
    hosts,
    lock,
    outcome,
    stepping,
    teacher,
    validation,
    workdir,
)
from stag_jax.training.roster import by_fold, make_roster, pool


def run(config: Config, folder: Path, corpora: Path | Sequence[Path], *, profile: bool = False) -> dict[str, Any]:
    """Trains and scores every fold of `config` on what is prepared in `corpora`, and returns the metrics.

    Folds learn from those of `config.distil.teacher` as well, where it names a run (`teacher.answers`).

    Everything is written to the workdir `folder`; what is there is gone on with, and a finished run is left as it is.
    With `profile` a trace of two dispatches is written to `<folder>/profile`. Several processes do this together, on a
    disk that they share.

    Raises:
      UserError: a setting is wrong, the workdir belongs to another config or other data or is in use, the corpus or the
        teacher cannot be used, or a loss is not finite; the line names the thing at fault.
      Preempted: the machine is wanted for something else; the same call goes on.
      WorkdirGone: the workdir was removed while the run went on.
    """
    validation.validate(config)
    hosts.in_turn(lambda: workdir.check(folder, config))
    done = workdir.finished(folder)
    if hosts.same(np.asarray(done is not None)):
        logging.warning("%s is finished; nothing to do", folder)
        return done or {}
    with lock.held(folder) as check:
        return _run(config, folder, corpora, check=check, profile=profile)


def _run(
    config: Config, folder: Path, corpora: Path | Sequence[Path], *, check: Callable[[], None], profile: bool
) -> dict[str, Any]:
    hosts.in_turn(lambda: dataset.require_splits(corpora, config))
    corpus = hosts.in_turn(lambda: dataset.load(corpora, config))
    hosts.agree("the corpus", corpus.fingerprint)
    splits = splits_lib.make_splits(config.protocol, corpus.clips)
    for name, missing in splits_lib.untrained_classes(splits, corpus.batch.label, config.data.classes):
        logging.warning("fold %s has no training clip of class %s and cannot predict it", name, missing)
    soft = teacher.answers(config, corpus, splits, corpora)
    who = make_roster(splits, config.seeds, soft=soft)
    task = fold.make_task(config, corpus.graph, int(splits.train_mask.sum(axis=1).min()))
    stepping.keep_programs(folder)
    hosts.say(f"{len(corpus.ids)} clips, {len(splits.names)} folds")
    record = history.recorder(folder, who, len(corpus.ids)) if config.checkpoint.history else None
    with workdir.claimed(folder, config, corpus, splits):
        trained = stepping.train(task, corpus.batch, who, folder, check=check, profile=profile, record=record)
    predicted = trained.study.predict(trained.states)
    exported = stepping.parameters(trained)
    check()
    for index, name in enumerate(splits.names):
        # One folder a fold; its leaves have a leading axis of seeds.
        seeds = np.arange(len(config.seeds)) * len(splits.names) + index
        checkpoint.save_fold(folder, name, jax.tree.map(lambda x, seeds=seeds: x[seeds], exported))

    rows, there = who.test_rows[: len(splits.names)], who.test_mask[: len(splits.names)]
    probability, au_probability = (
        pool(by_fold(np.asarray(each), who), rows, there, len(corpus.ids))[0] for each in fold.probabilities(predicted)
    )

    def write() -> dict[str, Any]:
        if not hosts.first():
            return workdir.finished(folder) or {}
        result = outcome.score(config, folder, corpus, splits, probability, au_probability)
        result |= {
            "wall_s": round(trained.wall_s, 3),
            "save_s": round(trained.save_s, 3),
            "compile_s": round(trained.study.compile_s, 3),
        }
        check()
        result = workdir.write_metrics(folder, result)
        checkpoint.remove_state(folder)
        return result

    return hosts.in_turn(write)
