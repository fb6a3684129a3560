"""Splits into folds: each fold has a name, test clips and training clips."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from stag_jax.config import ProtocolConfig
from stag_jax.types import UserError

ALL = "all"  # the split without test clips, and its only fold


class Clips(NamedTuple):
    """The attributes of the clips that a split may depend on; one entry per clip."""

    subjects: tuple[str, ...]
    datasets: tuple[str, ...]
    groups: tuple[str, ...]  # clips that must stay together; the subject if there is no larger group
    parts: tuple[str, ...]  # the corpus's official parts; empty if there are none
    labels: Int[np.ndarray, " b"]


class Splits(NamedTuple):
    """The folds as masks over the same set of clips. No clip is tested twice."""

    names: tuple[str, ...]
    test_mask: Bool[np.ndarray, "s b"]
    train_mask: Bool[np.ndarray, "s b"]


def make_splits(protocol: ProtocolConfig, clips: Clips) -> Splits:
    """Make the splits of `config.protocol`.

    Raises:
      UserError: the clips cannot be split in this way.
    """
    kinds = {
        "loso": lambda: loso(clips.subjects),
        "group": lambda: group_kfold(clips.groups, protocol.folds),
        "stratified_group": lambda: stratified_group_kfold(clips.groups, clips.labels, protocol.folds, protocol.seed),
        "stratified": lambda: stratified_kfold(clips.labels, protocol.folds, protocol.seed),
        "dataset": lambda: across(clips.datasets, clips.subjects, protocol.test, "corpus"),
        "part": lambda: across(clips.parts, clips.subjects, protocol.test, "part"),
        ALL: lambda: nobody_out(len(clips.subjects)),
    }
    return kinds[protocol.split]()


def nobody_out(clips: int) -> Splits:
    """Make one fold, "all", that trains on every clip and tests none: for a network for use.

    Its performance can be estimated only with the same settings under a split that holds people out.
    """
    return Splits((ALL,), np.zeros((1, clips), bool), np.ones((1, clips), bool))


def loso(subjects: Sequence[str]) -> Splits:
    """Leave one subject out: make one fold per subject, sorted by name.

    Args:
      subjects: the subject of each clip.

    Raises:
      UserError: fewer than two subjects.
    """
    names = _two_or_more(subjects, "leave-one-subject-out needs two subjects or more")
    return _each_of(names, subjects)


def group_kfold(groups: Sequence[str], folds: int) -> Splits:
    """Distribute groups of clips, usually subjects, over `folds` folds of similar size: group k-fold.

    Groups are taken by decreasing size, each to the fold that has the fewest clips so far; nothing is random.

    Raises:
      UserError: fewer than two folds, or fewer groups than folds.
    """
    clips = Counter(groups)
    _check_folds(folds, len(clips), "subjects")
    size, fold = [0] * folds, {}
    for name in sorted(clips, key=lambda name: (-clips[name], name)):
        fold[name] = size.index(min(size))
        size[fold[name]] += clips[name]
    return _numbered(np.asarray([fold[name] for name in groups]), folds)


def stratified_group_kfold(groups: Sequence[str], labels: Int[np.ndarray, " b"], folds: int, seed: int) -> Splits:
    """Distribute groups as `group_kfold` does, but so that every fold has similar class proportions.

    Groups with the most uneven classes go first, ties in random order from `seed`, each to the fold where it makes the
    class proportions most equal.

    Raises:
      UserError: fewer than two folds, or fewer groups than folds.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    _check_folds(folds, len(names), "subjects")
    counts = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(counts, (group, labels), 1)
    total = np.maximum(counts.sum(axis=0), 1)
    order = np.random.default_rng(seed).permutation(len(names))
    fold_counts, fold = np.zeros((folds, counts.shape[1])), np.zeros(len(names), int)
    for index in sorted(order, key=lambda index: -np.std(counts[index])):
        # One candidate per fold: least uneven classes first, then fewest clips.
        candidates = fold_counts[None] + np.eye(folds)[:, :, None] * counts[index]
        imbalance = (candidates / total).std(axis=1).mean(axis=1)
        fold[index] = np.lexsort((fold_counts.sum(axis=1), np.round(imbalance, 12)))[0]
        fold_counts[fold[index]] += counts[index]
    return _numbered(fold[group], folds)


def stratified_kfold(labels: Int[np.ndarray, " b"], folds: int, seed: int) -> Splits:
    """Distribute the clips of each class over `folds` in random order from `seed`. NOT subject-independent.

    The paper lists it; the same person is on both sides, so its scores do not estimate performance on new people.

    Raises:
      UserError: fewer than two folds, or more than there are clips.
    """
    _check_folds(folds, len(labels), "clips")
    fold, start = np.zeros(len(labels), int), 0
    rng = np.random.default_rng(seed)
    for name in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == name))
        # Each class begins where the last one ended, so that fold sizes differ by one clip at most.
        fold[rows] = (start + np.arange(len(rows))) % folds
        start += len(rows)
    return _numbered(fold, folds)


def across(names: Sequence[str], subjects: Sequence[str], test: Sequence[str], what: str) -> Splits:
    """Hold out whole corpora, or parts of one: one fold for each of `test`, all trained on those not in `test`.

    If `test` is empty, each is held out in turn and all others are trained on.

    Args:
      names: the corpus or part of each clip.
      subjects: the subject of each clip.
      test: the names to test.
      what: "corpus" or "part", for messages.

    Raises:
      UserError: fewer than two, one that is unknown, none left to train on, or a subject on both sides.
    """
    all_names = _two_or_more(names, f"leaving one {what} out needs two or more")
    for name in test:
        if name not in all_names:
            raise UserError(f"config.protocol.test: no clip of {what} {name!r}; there are {', '.join(all_names)}")
    name_of: dict[str, str] = {}
    for subject, name in zip(subjects, names, strict=True):
        if name_of.setdefault(subject, name) != name:
            raise UserError(
                f"subject {subject} is both in {name_of[subject]} and in {name}: leaving one {what} out is not enough"
            )
    splits = _each_of(tuple(test) or all_names, names)
    if not test:
        return splits
    train_mask = ~splits.test_mask.any(axis=0)
    if not train_mask.any():
        raise UserError(f"config.protocol.test names every {what}: nothing is left to train on")
    return splits._replace(train_mask=np.tile(train_mask, (len(splits.names), 1)))


def shared_subjects(splits: Splits, subjects: Sequence[str]) -> list[list[str]]:
    """Return for each fold the subjects that it both trains on and tests; all empty if it is subject-independent."""
    subject_names = np.asarray(subjects)
    return [
        sorted(set(subject_names[test]) & set(subject_names[train]))
        for test, train in zip(splits.test_mask, splits.train_mask, strict=True)
    ]


def _two_or_more(groups: Sequence[str], needed: str) -> tuple[str, ...]:
    names = tuple(sorted(set(groups)))
    if len(names) < 2:
        raise UserError(f"{needed}; there is only {(names[0] or 'one without a name') if names else 'none'}")
    return names


def _check_folds(folds: int, most: int, what: str) -> None:
    if not 2 <= folds <= most:
        raise UserError(f"config.protocol.folds must be from 2 to the {most} {what}, got {folds}")


def _each_of(names: Sequence[str], groups: Sequence[str]) -> Splits:
    test = np.asarray(groups)[None, :] == np.asarray(names)[:, None]
    return Splits(tuple(names), test, ~test)


def _numbered(fold: Int[np.ndarray, " b"], folds: int) -> Splits:
    test = fold[None, :] == np.arange(folds)[:, None]
    return Splits(tuple(f"group{index + 1}" for index in range(folds)), test, ~test)


def untrained_classes(splits: Splits, labels: Int[np.ndarray, " b"], classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the (fold, class) pairs where the class has no training clip, so that the fold cannot learn it."""
    return [
        (name, class_name)
        for name, train in zip(splits.names, splits.train_mask, strict=True)
        for index, class_name in enumerate(classes)
        if not np.any(train & (labels == index))
    ]
