"""What a finished run says to each fold of another that learns from it: the soft answers of distillation.

The networks of a fold answer only about clips that the student of that fold trains on, and none of them has seen a
clip that this fold tests: both are looked up in the teacher's own splits, whatever the folds are called.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stag_jax import config as config_lib
from stag_jax.config import Config
from stag_jax.corpora import dataset
from stag_jax.protocol import splits as splits_lib
from stag_jax.training import hosts, naming, workdir
from stag_jax.training.trained import TrainedFolds
from stag_jax.types import UserError

TINY = 1e-12  # probabilities are not taken to be smaller, so that their logarithm is finite


def answers(
    config: Config, corpus: dataset.Corpus, splits: splits_lib.Splits, corpora: Path | Sequence[Path]
) -> Float[np.ndarray, "s b k"] | None:
    """Log-probabilities of every fold's training clips, by the run in `config.distil.teacher`; 0 for other clips.

    The student's fold X learns from the teacher's fold X, the mean of its seeds' probabilities. A fold "all"
    (`config.protocol.split`) learns from the mean over all folds and seeds of the teacher: of each clip most of these
    networks have seen the subject, and those that held it out have their part in the mean like the others. Such a fold
    tests nobody, so nobody's score gains by it. Clips are shown as they were recorded, none of them augmented, in the
    features of the teacher's own settings.

    None where there is no teacher, or its share of the loss is 0. Several processes call this together, and all get
    what the first one was told.

    Raises:
      UserError: the teacher is no finished run, has other classes or units, was trained on other clips, lacks a fold,
        or trained a fold on a clip that the fold of this name tests here; or the processes of this run do not have the
        same teacher. What is at fault is named.
    """
    # A process that had none would leave the others waiting for it.
    hosts.agree("config.distil", f"{wanted(config)} {config.distil.weight} {config.distil.temperature}")
    if not wanted(config):
        return None
    # All that may be wrong is found here, before processes depend on each other: they read checkpoints together.
    teacher, names, theirs = hosts.in_turn(lambda: _opened(config, corpus, splits, corpora))
    hosts.agree("config.distil.teacher", workdir.digest(teacher.folder / workdir.METRICS))
    soft = np.zeros((len(splits.names), len(corpus.ids), len(config.data.classes)), np.float32)
    for index, (folds, rows) in enumerate(zip(names, map(np.flatnonzero, splits.train_mask), strict=True)):
        mean = np.mean([teacher.ask(name, theirs.batch, rows)[0] for name in folds], axis=0)
        soft[index, rows] = np.log(np.maximum(mean, TINY))
    return hosts.same(soft)


def _opened(
    config: Config, corpus: dataset.Corpus, splits: splits_lib.Splits, corpora: Path | Sequence[Path]
) -> tuple[TrainedFolds, list[tuple[str, ...]], dataset.Corpus]:
    """The teacher, the folds of it that each fold learns from, and its view of the clips. Raises as `answers`."""
    check(config)
    folder = Path(config.distil.teacher)
    teacher = TrainedFolds(folder)
    names = _folds(teacher, config, splits)
    # Its settings, but the folders of here: it may have been trained on another machine.
    own = config_lib.replace(
        teacher.config, {f"data.{key}": getattr(config.data, key) for key in ("data_dir", "manual_dir", "workers")}
    )
    theirs = dataset.load(corpora, own)
    _check_clips(folder, corpus, theirs, splits)
    return teacher, names, theirs


def wanted(config: Config) -> bool:
    """Return whether a teacher is named and has a share of the loss."""
    return bool(config.distil.teacher) and not config_lib.is_off(config.distil.weight)


def check(config: Config) -> None:
    """Check that the teacher, where one is wanted, is a finished run about the same classes and units.

    Raises:
      UserError: it is not; the line names the teacher and what differs.
    """
    if not wanted(config):
        return
    folder = Path(config.distil.teacher)
    try:
        teacher = workdir.read_config(folder)
    except UserError as error:
        raise UserError(f"config.distil.teacher: {error}") from error
    if workdir.finished(folder) is None:
        raise UserError(f"config.distil.teacher: {folder} is not finished; run experiments/train.py on it again")
    for key in ("data.classes", "graph.units"):
        theirs, ours = config_lib.get(teacher, key), config_lib.get(config, key)
        if theirs != ours:
            raise UserError(f"config.distil.teacher: {folder} has config.{key} {theirs}, not {ours}")


def _folds(teacher: TrainedFolds, config: Config, splits: splits_lib.Splits) -> list[tuple[str, ...]]:
    """Name the teacher's folds that each fold learns from."""
    folder, names = teacher.folder, teacher.names
    if config.protocol.split == splits_lib.ALL:
        if not names:
            raise UserError(f"config.distil.teacher: {folder} has no trained fold")
        return [tuple(names)]
    for name in splits.names:
        if name not in names:
            raise UserError(f"config.distil.teacher: {folder} has no fold {name}; there are: {', '.join(names)}")
    return [(name,) for name in splits.names]


def _check_clips(folder: Path, corpus: dataset.Corpus, theirs: dataset.Corpus, splits: splits_lib.Splits) -> None:
    """Raises UserError unless the teacher is about these clips, and knows none that a fold of its name tests."""
    with (folder / workdir.SPLITS).open(newline="", encoding="utf-8") as file:
        known = {row["id"]: row for row in csv.DictReader(file)}
    for what, names in (("features", theirs.ids), ("splits", known)):
        if odd := sorted(set(corpus.ids) ^ set(names)):
            side = "has no" if odd[0] in corpus.ids else "has a"
            raise UserError(f"config.distil.teacher: {folder} is about other clips: it {side} clip {odd[0]} ({what})")
    # Both are in the order of their ids.
    for name, label, other in zip(corpus.ids, corpus.batch.label, theirs.batch.label, strict=True):
        if label != other:
            raise UserError(f"config.distil.teacher: {folder} has another label for clip {name}")
    for name, tested in zip(splits.names, splits.test_mask, strict=True):
        for row in np.flatnonzero(tested):
            out = known[corpus.ids[row]]
            if name not in (*naming.split(out["tested_in"]), *naming.split(out["left_out_of"])):
                raise UserError(
                    f"config.distil.teacher: fold {name} of {folder} was trained on clip {corpus.ids[row]}, "
                    "which the fold of this name tests here"
                )
