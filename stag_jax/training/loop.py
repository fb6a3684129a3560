"""A whole run: one study of one trial, its files and its scores."""

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
    """Train and score every fold of `config` on what is prepared in `corpora`, and return the metrics.

    Folds learn from those of `config.distil.teacher` as well, where it names a run (`teacher.answers`).

    Everything is written to the workdir `folder`; what is there is resumed, and a finished run is left as it is. With
    `profile` a trace of two dispatches is written to `<folder>/profile`. Several processes do this together, on a disk
    that they share.

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
        study = study_lib.assemble(config, corpora)
        recorded = config.checkpoint.history
        trained = study_lib.train(study, folder, check=check, profile=profile, recorded=recorded)
        predicted = trained.program.predict(trained.states)
        check()
        _export(study, trained, folder)
        probability, au_probability = (each[0] for each in study_lib.held_out(study, predicted))

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
    """Write one checkpoint a fold; its leaves have a leading axis of seeds."""
    exported = stepping.parameters(trained)
    seeds, folds = len(study.config.seeds), study.outer.names
    for index, name in enumerate(folds):
        members = np.arange(seeds) * len(folds) + index
        checkpoint.save_fold(folder, name, jax.tree.map(lambda x, at=members: x[at], exported))
