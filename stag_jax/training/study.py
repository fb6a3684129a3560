"""Assemble and train one study: the steps that a run and a group of a sweep share, in order."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float

from stag_jax import config as config_lib
from stag_jax.config import Config
from stag_jax.corpora import dataset
from stag_jax.corpora.dataset import Corpus
from stag_jax.model import network
from stag_jax.model.network import Outputs
from stag_jax.protocol import nested
from stag_jax.protocol import splits as splits_lib
from stag_jax.protocol.splits import Splits
from stag_jax.training import fold, history, hosts, stepping, teacher, workdir
from stag_jax.training.roster import Roster, by_fold, make_roster, scatter

NO_TRIALS: Mapping[str, Mapping[str, float]] = {"": {}}


class Study(NamedTuple):
    """The corpus, folds and members that are trained in one program."""

    config: Config
    corpus: Corpus
    outer: Splits  # the reported folds; inner folds come after them in the roster
    roster: Roster
    task: fold.Task


def assemble(
    config: Config,
    corpora: Path | Sequence[Path],
    *,
    tuned: Mapping[str, Mapping[str, float]] = NO_TRIALS,
    inner_folds: int = 0,
) -> Study:
    """Load the corpus, split it, get the teacher's answers, and list the members: trials x seeds x folds.

    Args:
      config: settings of all members.
      corpora: folders of prepared corpora.
      tuned: for each trial, the numbers that differ between trials, by dotted key.
      inner_folds: folds within the training set of each outer fold; 0: none.

    Raises:
      UserError: the corpus or the teacher cannot be used, or clips cannot be split as configured; the cause is named.
    """
    hosts.in_turn(lambda: dataset.require_splits(corpora, config))
    corpus = hosts.in_turn(lambda: dataset.load(corpora, config))
    hosts.agree("the corpus", corpus.fingerprint)
    outer = splits_lib.make_splits(config.protocol, corpus.clips)
    for name, missing in splits_lib.untrained_classes(outer, corpus.batch.label, config.data.classes):
        logging.warning("fold %s has no training clip of class %s and cannot predict it", name, missing)
    folds = outer
    if inner_folds:
        inner = nested.inner_splits(outer, corpus.groups, corpus.batch.label, inner_folds, config.protocol.seed)
        folds = Splits(
            outer.names + inner.names,
            np.concatenate([outer.test_mask, inner.test_mask]),
            np.concatenate([outer.train_mask, inner.train_mask]),
        )
    # The teacher is needed if any trial gives it weight, even if the first trial does not.
    weight = max(values.get("distil.weight", config.distil.weight) for values in tuned.values())
    taught = config_lib.replace(config, {"distil.weight": weight})
    soft = teacher.answers(taught, corpus, folds, corpora)
    roster = make_roster(folds, config.seeds, tuned, soft)
    task = fold.make_task(config, corpus.graph, int(folds.train_mask.sum(axis=1).min()))
    return Study(config, corpus, outer, roster, task)


def train(
    study: Study,
    folder: Path,
    *,
    check: Callable[[], None],
    profile: bool = False,
    recorded: bool = False,
) -> stepping.Trained:
    """Train all members in the workdir `folder`, which is claimed for this study.

    Args:
      study: the members to train.
      folder: the workdir; an unfinished run in it is resumed.
      check: called before anything is written (`lock.held`).
      profile: write a trace of two dispatches.
      recorded: record predictions of held-out clips after every dispatch (`history`).

    Raises:
      UserError: the workdir belongs to another config or other data, or a loss is not finite.
      Preempted: the scheduler has asked the run to stop; the same call resumes it.
    """
    config, corpus, roster = study.config, study.corpus, study.roster
    workdir.keep_programs(folder)
    hosts.say(f"{len(corpus.ids)} clips, {len(study.outer.names)} folds")
    record = history.recorder(folder, roster, len(corpus.ids)) if recorded else None
    with workdir.claimed(folder, config, corpus, study.outer):
        return stepping.train(study.task, corpus.batch, roster, folder, check=check, profile=profile, record=record)


def held_out(
    study: Study, predicted: Outputs
) -> tuple[Float[np.ndarray, "trial seed b k"], Float[np.ndarray, "trial seed b u"]]:
    """Return the probabilities of classes and units from the outer fold that tests a clip; NaN for untested clips."""
    folds, clips = len(study.outer.names), len(study.corpus.ids)
    rows, mask = study.roster.test_rows[:folds], study.roster.test_mask[:folds]
    classes, units = (
        scatter(by_fold(np.asarray(probability), study.roster)[:, :, :folds], rows, mask, clips)
        for probability in network.probabilities(predicted)
    )
    return classes, units
