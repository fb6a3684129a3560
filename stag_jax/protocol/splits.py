"""Who is held out: each split is a name and a mask over clips."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from stag_jax.config import ProtocolConfig
from stag_jax.types import UserError


class Splits(NamedTuple):
    """Folds as masks over one and the same set of clips; a clip that a fold does not test, it trains on."""

    names: tuple[str, ...]
    test_mask: Bool[np.ndarray, "s b"]


def make_splits(protocol: ProtocolConfig, subjects: Sequence[str], datasets: Sequence[str]) -> Splits:
    """The splits that `config.protocol` asks for, given the subject and the corpus of each clip.

    Raises:
      UserError: an unknown kind, or clips that cannot be split so.
    """
    if protocol.split == "loso":
        return loso(subjects)
    if protocol.split == "group":
        return group_kfold(subjects, protocol.folds)
    if protocol.split == "dataset":
        return one_corpus_out(subjects, datasets)
    raise UserError(f"config.protocol.split {protocol.split!r} is none of loso, group, dataset")


def loso(subjects: Sequence[str]) -> Splits:
    """Leave one subject out: one fold a subject, in the order of their names.

    Args:
      subjects: the subject of each clip.

    Raises:
      UserError: fewer than two subjects.
    """
    return _one_out(subjects, "leave-one-subject-out needs two subjects or more")


def group_kfold(subjects: Sequence[str], folds: int) -> Splits:
    """Subjects in `folds` groups of about as many clips, each group held out once: group k-fold.

    The subject with the most clips goes first, each to the group that has the fewest clips so far; nothing is drawn.

    Args:
      subjects: the subject of each clip.
      folds: groups, at least 2.

    Raises:
      UserError: fewer than two folds, or fewer subjects than folds.
    """
    clips = Counter(subjects)
    if not 2 <= folds <= len(clips):
        raise UserError(f"config.protocol.folds must be from 2 to the {len(clips)} subjects, got {folds}")
    size, group = [0] * folds, {}
    for name in sorted(clips, key=lambda name: (-clips[name], name)):
        group[name] = size.index(min(size))
        size[group[name]] += clips[name]
    member = np.asarray([group[name] for name in subjects])
    return Splits(tuple(f"group{index + 1}" for index in range(folds)), member[None, :] == np.arange(folds)[:, None])


def one_corpus_out(subjects: Sequence[str], datasets: Sequence[str]) -> Splits:
    """Leave one corpus out: one fold a corpus, in the order of their names, trained on all the others.

    Args:
      subjects: the subject of each clip.
      datasets: the corpus of each clip.

    Raises:
      UserError: fewer than two corpora, or a subject with clips in several, who would be trained on and tested.
    """
    home = {}
    for subject, name in zip(subjects, datasets, strict=True):
        if home.setdefault(subject, name) != name:
            raise UserError(
                f"subject {subject} is both in {home[subject]} and in {name}: leaving one out is not enough"
            )
    return _one_out(datasets, "leaving one corpus out needs two corpora or more")


def _one_out(groups: Sequence[str], needed: str) -> Splits:
    names = sorted(set(groups))
    if len(names) < 2:
        raise UserError(f"{needed}; there is only {names[0] if names else 'none'}")
    return Splits(tuple(names), np.asarray(groups)[None, :] == np.asarray(names)[:, None])


def untrained_classes(splits: Splits, labels: Int[np.ndarray, " b"], classes: Sequence[str]) -> list[tuple[str, str]]:
    """(fold, class) pairs where the class has no training clip, so that the fold cannot learn it."""
    return [
        (name, class_name)
        for name, test in zip(splits.names, splits.test_mask, strict=True)
        for index, class_name in enumerate(classes)
        if not np.any(~test & (labels == index))
    ]
