"""Compute the soft labels that a finished run, the teacher, gives to each fold of another run: distillation.

A teacher's networks are evaluated only on training clips of the student's fold, and must not have been trained on a
clip that this fold tests: this is checked in the teacher's splits, not by the names of folds.
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

TINY = 1e-12  # lower bound of probabilities, so that their logarithm is finite


def answers(
    config: Config, corpus: dataset.Corpus, splits: splits_lib.Splits, corpora: Path | Sequence[Path]
) -> Float[np.ndarray, "s b k"] | None:
    """Return the log-probabilities of the run `config.distil.teacher` for each fold's training clips; 0 for others.

    The student's fold X learns from the teacher's fold X, by the mean probability over its seeds. A fold "all"
    (`config.protocol.split`) learns from the mean over all folds and seeds of the teacher: most of these networks were
    trained on the subject of a given clip, and the others count equally. Such a fold tests nobody, so no score gains
    from it. Clips are not augmented, and have the features of the teacher's settings.

    None if there is no teacher, or its weight is 0. Several processes call this together, and all get the answers of
    the first.

    Raises:
      UserError: the teacher is not a finished run, has other classes or units, was trained on other clips, lacks a
        fold, or trained a fold on a clip that the fold of this name tests here; or the processes of this run do not
        have the same teacher. The cause is named.
    """
    # A process without a teacher would leave the others waiting.
    hosts.agree("config.distil", f"{wanted(config)} {config.distil.weight} {config.distil.temperature}")
    if not wanted(config):
        return None
    # Find all errors here, before processes depend on each other: they read checkpoints together.
    teacher, names, teacher_corpus = hosts.in_turn(lambda: _opened(config, corpus, splits, corpora))
    hosts.agree("config.distil.teacher", workdir.digest(teacher.folder / workdir.METRICS))
    soft = np.zeros((len(splits.names), len(corpus.ids), len(config.data.classes)), np.float32)
    for index, (folds, rows) in enumerate(zip(names, map(np.flatnonzero, splits.train_mask), strict=True)):
        mean = np.mean([teacher.ask(name, teacher_corpus.batch, rows)[0] for name in folds], axis=0)
        soft[index, rows] = np.log(np.maximum(mean, TINY))
    return hosts.same(soft)


def _opened(
    config: Config, corpus: dataset.Corpus, splits: splits_lib.Splits, corpora: Path | Sequence[Path]
) -> tuple[TrainedFolds, list[tuple[str, ...]], dataset.Corpus]:
    """Return the teacher, its folds for each fold, and the corpus with its features. Raise as `answers`."""
    check(config)
    folder = Path(config.distil.teacher)
    teacher = TrainedFolds(folder)
    names = _folds(teacher, config, splits)
    # The teacher's settings with the folders of this run: it may have been trained on another machine.
    teacher_config = config_lib.replace(
        teacher.config, {f"data.{key}": getattr(config.data, key) for key in ("data_dir", "manual_dir", "workers")}
    )
    teacher_corpus = dataset.load(corpora, teacher_config)
    _check_clips(folder, corpus, teacher_corpus, splits)
    return teacher, names, teacher_corpus


def wanted(config: Config) -> bool:
    """Return whether a teacher is named and its weight in the loss is not 0."""
    return bool(config.distil.teacher) and not config_lib.is_off(config.distil.weight)


def check(config: Config) -> None:
    """Check that the teacher, if wanted, is a finished run with the same classes and units.

    Raises:
      UserError: it is not; the message names the teacher and the difference.
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
    """Return the names of the teacher's folds that each fold learns from."""
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
    """Raise UserError unless the teacher has the same clips, and no fold was trained on a clip its namesake tests."""
    with (folder / workdir.SPLITS).open(newline="", encoding="utf-8") as file:
        rows_by_clip = {row["id"]: row for row in csv.DictReader(file)}
    for what, names in (("features", theirs.ids), ("splits", rows_by_clip)):
        if extra := sorted(set(corpus.ids) ^ set(names)):
            side = "has no" if extra[0] in corpus.ids else "has a"
            raise UserError(f"config.distil.teacher: {folder} is about other clips: it {side} clip {extra[0]} ({what})")
    # Both are sorted by id.
    for name, label, other in zip(corpus.ids, corpus.batch.label, theirs.batch.label, strict=True):
        if label != other:
            raise UserError(f"config.distil.teacher: {folder} has another label for clip {name}")
    for name, tested in zip(splits.names, splits.test_mask, strict=True):
        for row in np.flatnonzero(tested):
            listed = rows_by_clip[corpus.ids[row]]
            if name not in (*naming.split(listed["tested_in"]), *naming.split(listed["left_out_of"])):
                raise UserError(
                    f"config.distil.teacher: fold {name} of {folder} was trained on clip {corpus.ids[row]}, "
                    "which the fold of this name tests here"
                )
