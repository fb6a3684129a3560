"""Who is held out: each split is a name and a mask over clips."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from stag_jax.types import UserError


class Splits(NamedTuple):
    """Folds as masks over one and the same set of clips; a clip that a fold does not test, it trains on."""

    names: tuple[str, ...]
    test_mask: Bool[np.ndarray, "s b"]


def make_splits(kind: str, subjects: Sequence[str]) -> Splits:
    """The splits that `config.protocol.split` asks for. Raises UserError for an unknown kind."""
    if kind != "loso":
        raise UserError(f"config.protocol.split {kind!r} is none of loso")
    return loso(subjects)


def loso(subjects: Sequence[str]) -> Splits:
    """Leave one subject out: one fold a subject, in the order of their names.

    Args:
      subjects: the subject of each clip.

    Raises:
      UserError: fewer than two subjects.
    """
    names = sorted(set(subjects))
    if len(names) < 2:
        raise UserError(
            f"leave-one-subject-out needs two subjects or more; there is only {names[0] if names else 'none'}"
        )
    return Splits(tuple(names), np.asarray(subjects)[None, :] == np.asarray(names)[:, None])


def untrained_classes(splits: Splits, labels: Int[np.ndarray, " b"], classes: Sequence[str]) -> list[tuple[str, str]]:
    """(fold, class) pairs where the class has no training clip, so that the fold cannot learn it."""
    return [
        (name, class_name)
        for name, test in zip(splits.names, splits.test_mask, strict=True)
        for index, class_name in enumerate(classes)
        if not np.any(~test & (labels == index))
    ]
