"""Nested selection: the trial for an outer fold is chosen on inner subjects of its training set alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stag_jax.protocol import metrics
from stag_jax.protocol.splits import Splits, stratified_group_kfold
from stag_jax.types import UserError

SELECT = ("uf1", "log_loss")
TINY = 1e-7  # probabilities are not taken to be smaller


class Scores(NamedTuple):
    """How each trial does on the inner subjects of each outer fold, averaged over seeds."""

    uf1: Float[np.ndarray, "trial s"]
    log_loss: Float[np.ndarray, "trial s"]


def inner_splits(outer: Splits, groups: Sequence[str], labels: Int[np.ndarray, " b"], folds: int, seed: int) -> Splits:
    """The training clips of each outer fold dealt over `folds` inner ones by groups of clips, as a rule subjects.

    Folds stand outer fold by outer fold. What an outer fold tests or leaves out is in none of its inner folds.

    Raises:
      UserError: an outer fold trains on fewer groups than there are inner folds; it is named.
    """
    names, test, train = [], [], []
    for name, rows in zip(outer.names, outer.train_mask, strict=True):
        own = [group for group, there in zip(groups, rows, strict=True) if there]
        if len(set(own)) < folds:
            raise UserError(f"fold {name} trains on {len(set(own))} subjects, too few for {folds} inner folds")
        inner = stratified_group_kfold(own, labels[rows], folds, seed)
        for index, held in enumerate(inner.test_mask):
            mask = np.zeros_like(rows)
            mask[np.flatnonzero(rows)[held]] = True
            names.append(f"{name} inner {index + 1}")
            test.append(mask)
            train.append(rows & ~mask)
    return Splits(tuple(names), np.stack(test), np.stack(train))


def score(
    probability: Float[np.ndarray, "trial seed si j k"],
    rows: Int[np.ndarray, "si j"],
    there: Float[np.ndarray, "si j"],
    labels: Int[np.ndarray, " b"],
    outer: int,
) -> Scores:
    """UF1 and log loss of the inner out-of-fold predictions of each outer fold, pooled over its inner folds.

    Args:
      probability: what the inner members say of their held-out clips, padded.
      rows: which clips these are.
      there: 0 on the padding.
      labels: of all clips.
      outer: number of outer folds; `si` counts inner folds of the first, then of the next.
    """
    trials, _, members, _, classes = probability.shape
    uf1, loss = np.zeros((trials, outer)), np.zeros((trials, outer))
    for fold, inner in enumerate(np.split(np.arange(members), outer)):
        index, place = np.nonzero(there[inner] > 0)
        label = labels[rows[inner[index], place]]
        said = probability[:, :, inner[index], place]  # trial seed clip k
        for trial in range(trials):
            uf1[trial, fold] = metrics.mean_scores(label, said[trial].argmax(axis=-1), classes)["uf1"]
        right = np.take_along_axis(said, label[None, None, :, None], axis=-1)
        loss[:, fold] = -np.log(np.maximum(right, TINY)).mean(axis=(1, 2, 3))
    return Scores(uf1, loss)


def choose(scores: Scores, select: str) -> Int[np.ndarray, " s"]:
    """The trial of each outer fold: of highest inner UF1, or of lowest inner log loss; the first of equal ones."""
    return np.argmax(scores.uf1, axis=0) if select == "uf1" else np.argmin(scores.log_loss, axis=0)
