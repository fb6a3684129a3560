"""A run from start to end: one study of one trial, its files and its scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from stag_jax.config import Config
from stag_jax.training import checkpoint, hosts, lock, outcome, stepping, validation, workdir
from stag_jax.training import study as study_lib


def run(config: Config, folder: Path, corpora: Path | Sequence[Path], *, profile: bool = False) -> dict[str, Any]:
    """Train and score every fold of `config` on the corpora prepared in `corpora`, and return the metrics.

    If `config.distil.teacher` names a run, folds also learn from its folds (`teacher.answers`).

    Everything is written to the workdir `folder`. An unfinished run there is resumed; a finished one is not changed.
    With `profile` a trace of two dispatches is written to `<folder>/profile`. Several processes may call this together,
    on a disk that they share.

    Raises:
      UserError: a setting is wrong, the workdir belongs to another config or other data or is in use, the corpus or the
        teacher cannot be used, or a loss is not finite; the message names the cause.
      Preempted: the scheduler has asked the run to stop; the same call resumes it.
      WorkdirGone: the workdir was removed during the run.
    """
    validation.validate(config)
    hosts.in_turn(lambda: workdir.check(folder, config))
    done = workdir.finished(folder)
    if hosts.same(np.asarray(done is not None)):
        logging.warning("%s is finished; nothing to do", folder)
        return done or {}
    with lock.held(folder) as check:
        study = study_lib.assemble(config, corpora)
        recorded = config.checkpoint.history
        trained = study_lib.train(study, folder, check=check, profile=profile, recorded=recorded)
        predicted = trained.program.predict(trained.states)
        check()
        _export(study, trained, folder)
        probability, au_probability = (by_trial[0] for by_trial in study_lib.held_out(study, predicted))

        def score() -> dict[str, Any]:
            if not hosts.first():
                return workdir.finished(folder) or {}
            result = outcome.score(config, folder, study.corpus, study.outer, probability, au_probability)
            result |= {
                "wall_s": round(trained.wall_s, 3),
                "save_s": round(trained.save_s, 3),
                "compile_s": round(trained.program.compile_s, 3),
            }
            check()
            result = workdir.write_metrics(folder, result)
            checkpoint.remove_state(folder)
            return result

        return hosts.in_turn(score)


def _export(study: study_lib.Study, trained: stepping.Trained, folder: Path) -> None:
    """Write one checkpoint for each fold; its leaves have a leading axis of seeds."""
    exported = stepping.parameters(trained)
    seeds, folds = len(study.config.seeds), study.outer.names
    for index, name in enumerate(folds):
        members = np.arange(seeds) * len(folds) + index
        checkpoint.save_fold(folder, name, jax.tree.map(lambda x, at=members: x[at], exported))
