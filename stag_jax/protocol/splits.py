"""Who is held out: each fold is a name, the clips that it tests, and those that it trains on."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from stag_jax.config import ProtocolConfig
from stag_jax.types import UserError

ALL = "all"  # the split that holds nobody out, and its one fold


class Clips(NamedTuple):
    """What a split may depend on; one entry a clip."""

    subjects: tuple[str, ...]
    datasets: tuple[str, ...]
    groups: tuple[str, ...]  # what must not be separated; the subject where nothing larger
    parts: tuple[str, ...]  # as the owners of the corpus divide it; empty where they do not
    labels: Int[np.ndarray, " b"]


class Splits(NamedTuple):
    """Folds as masks over one and the same set of clips. No clip is tested twice."""

    names: tuple[str, ...]
    test_mask: Bool[np.ndarray, "s b"]
    train_mask: Bool[np.ndarray, "s b"]


def make_splits(protocol: ProtocolConfig, clips: Clips) -> Splits:
    """The splits that `config.protocol` asks for.

    Raises:
      UserError: clips that cannot be split so.
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
    """One fold, "all", that trains on every clip and tests none: for a network that is to be used.

    There is no estimate of it but that of the same settings under a split that holds people out.
    """
    return Splits((ALL,), np.zeros((1, clips), bool), np.ones((1, clips), bool))


def loso(subjects: Sequence[str]) -> Splits:
    """Leave one subject out: one fold a subject, in the order of their names.

    Args:
      subjects: the subject of each clip.

    Raises:
      UserError: fewer than two subjects.
    """
    names = _two_or_more(subjects, "leave-one-subject-out needs two subjects or more")
    return _each_of(names, subjects)


def group_kfold(groups: Sequence[str], folds: int) -> Splits:
    """Groups of clips, as a rule the subjects, dealt into `folds` of about as many clips: group k-fold.

    The group with the most clips goes first, each to the fold that has the fewest clips so far; nothing is drawn.

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
    """The same with classes shared out alike: no group is separated, and every fold has about the same classes.

    Groups of the most uneven classes go first, in an order drawn from `seed` where they tie, each to the fold where it
    leaves the shares of the classes most alike.

    Raises:
      UserError: fewer than two folds, or fewer groups than folds.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    _check_folds(folds, len(names), "subjects")
    counts = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(counts, (group, labels), 1)
    total = np.maximum(counts.sum(axis=0), 1)
    drawn = np.random.default_rng(seed).permutation(len(names))
    held, fold = np.zeros((folds, counts.shape[1])), np.zeros(len(names), int)
    for index in sorted(drawn, key=lambda index: -np.std(counts[index])):
        # One candidate a fold: how uneven each class would be, and then how many clips.
        after = held[None] + np.eye(folds)[:, :, None] * counts[index]
        uneven = (after / total).std(axis=1).mean(axis=1)
        fold[index] = np.lexsort((held.sum(axis=1), np.round(uneven, 12)))[0]
        held[fold[index]] += counts[index]
    return _numbered(fold[group], folds)


def stratified_kfold(labels: Int[np.ndarray, " b"], folds: int, seed: int) -> Splits:
    """Clips of each class dealt over `folds` in an order drawn from `seed`. NOT subject-independent.

    The paper lists it; the same person is on both sides, so what it gives is no estimate for new people.

    Raises:
      UserError: fewer than two folds, or more than there are clips.
    """
    _check_folds(folds, len(labels), "clips")
    fold, start = np.zeros(len(labels), int), 0
    rng = np.random.default_rng(seed)
    for name in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == name))
        # Each class begins where the last one ended, so that folds differ by one clip at most.
        fold[own] = (start + np.arange(len(own))) % folds
        start += len(own)
    return _numbered(fold, folds)


def across(names: Sequence[str], subjects: Sequence[str], test: Sequence[str], what: str) -> Splits:
    """Whole corpora, or parts of one, held out: trained on those that are not in `test`, one fold for each that is.

    With no `test`, each is held out in turn and all the others are trained on. With it, none of `test` is trained on.

    Args:
      names: the corpus or part of each clip.
      subjects: the subject of each clip.
      test: those to be tested.
      what: "corpus" or "part", for messages.

    Raises:
      UserError: fewer than two, one that is unknown, none left to train on, or a subject on both sides.
    """
    known = _two_or_more(names, f"leaving one {what} out needs two or more")
    for name in test:
        if name not in known:
            raise UserError(f"config.protocol.test: no clip of {what} {name!r}; there are {', '.join(known)}")
    home: dict[str, str] = {}
    for subject, name in zip(subjects, names, strict=True):
        if home.setdefault(subject, name) != name:
            raise UserError(
                f"subject {subject} is both in {home[subject]} and in {name}: leaving one {what} out is not enough"
            )
    made = _each_of(tuple(test) or known, names)
    if not test:
        return made
    trained = ~made.test_mask.any(axis=0)
    if not trained.any():
        raise UserError(f"config.protocol.test names every {what}: nothing is left to train on")
    return made._replace(train_mask=np.tile(trained, (len(made.names), 1)))


def shared_subjects(splits: Splits, subjects: Sequence[str]) -> list[list[str]]:
    """Of each fold, the subjects that it both trains on and tests; all empty where it is subject-independent."""
    who = np.asarray(subjects)
    return [
        sorted(set(who[test]) & set(who[train]))
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
    """(fold, class) pairs where the class has no training clip, so that the fold cannot learn it."""
    return [
        (name, class_name)
        for name, train in zip(splits.names, splits.train_mask, strict=True)
        for index, class_name in enumerate(classes)
        if not np.any(train & (labels == index))
    ]
