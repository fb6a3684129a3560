"""Nested selection: the trial for an outer fold is chosen only on inner subjects of its training set."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stag_jax.protocol import metrics
from stag_jax.protocol.splits import Splits, stratified_group_kfold
from stag_jax.types import UserError

SELECT = ("uf1", "log_loss")
TINY = 1e-7  # lower limit of probabilities


class Scores(NamedTuple):
    """The scores of each trial on the inner subjects of each outer fold, averaged over seeds."""

    uf1: Float[np.ndarray, "trial s"]
    log_loss: Float[np.ndarray, "trial s"]


def inner_splits(outer: Splits, groups: Sequence[str], labels: Int[np.ndarray, " b"], folds: int, seed: int) -> Splits:
    """Split the training clips of each outer fold into `folds` inner folds by groups of clips, usually subjects.

    The inner folds of the first outer fold come first. Clips that an outer fold tests or leaves out are in none of its
    inner folds.

    Raises:
      UserError: an outer fold trains on fewer groups than there are inner folds; names the fold.
    """
    names, test, train = [], [], []
    for name, rows in zip(outer.names, outer.train_mask, strict=True):
        train_groups = [group for group, in_training in zip(groups, rows, strict=True) if in_training]
        if len(set(train_groups)) < folds:
            raise UserError(f"fold {name} trains on {len(set(train_groups))} subjects, too few for {folds} inner folds")
        inner = stratified_group_kfold(train_groups, labels[rows], folds, seed)
        for index, held_out in enumerate(inner.test_mask):
            mask = np.zeros_like(rows)
            mask[np.flatnonzero(rows)[held_out]] = True
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
    """Compute UF1 and log loss of the inner out-of-fold predictions of each outer fold, pooled over its inner folds.

    Args:
      probability: predictions of the inner members for their held-out clips, padded.
      rows: indices of these clips.
      there: 0 on the padding.
      labels: of all clips.
      outer: number of outer folds; `si` counts inner folds of the first, then of the next.
    """
    trials, _, members, _, classes = probability.shape
    uf1, loss = np.zeros((trials, outer)), np.zeros((trials, outer))
    for fold, inner in enumerate(np.split(np.arange(members), outer)):
        index, place = np.nonzero(there[inner] > 0)
        label = labels[rows[inner[index], place]]
        predicted = probability[:, :, inner[index], place]  # trial seed clip k
        for trial in range(trials):
            uf1[trial, fold] = metrics.mean_scores(label, predicted[trial].argmax(axis=-1), classes)["uf1"]
        true_probability = np.take_along_axis(predicted, label[None, None, :, None], axis=-1)
        loss[:, fold] = -np.log(np.maximum(true_probability, TINY)).mean(axis=(1, 2, 3))
    return Scores(uf1, loss)


def choose(scores: Scores, select: str) -> Int[np.ndarray, " s"]:
    """Return the trial of each outer fold with the highest inner UF1, or the lowest inner log loss; ties: the first."""
    return np.argmax(scores.uf1, axis=0) if select == "uf1" else np.argmin(scores.log_loss, axis=0)
