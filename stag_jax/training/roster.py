"""The list of members of a study: trials x seeds x folds, in this order."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from stag_jax.protocol.splits import Splits
from stag_jax.training import fold


class Roster(NamedTuple):
    """The members of a study on the host. Folds change fastest, then seeds, then trials."""

    members: fold.Member  # stacked, [m, ...]
    names: tuple[str, ...]  # "<fold> seed <seed>", after the trial if there are several; for messages
    test_rows: Int[np.ndarray, "m j"]  # clips to predict, padded by repeating a row
    test_mask: Float[np.ndarray, "m j"]  # 0 on the padding
    shape: tuple[int, int, int]  # trials, seeds, folds


def make_roster(
    splits: Splits,
    seeds: Sequence[int],
    trials: Mapping[str, Mapping[str, float]] | None = None,
    soft: Float[np.ndarray, "s b k"] | None = None,
) -> Roster:
    """Make one member for each trial, seed and fold.

    Args:
      splits: the folds.
      seeds: the seeds.
      trials: each trial's values by dotted key of the config; all trials must have the same keys. None: one trial
        without values.
      soft: a teacher's answers for each fold, as in `fold.Member`; None without a teacher.
    """
    plan = dict(trials or {"": {}})
    folds, repeats = len(splits.names), len(plan) * len(seeds)
    # A fold that tests nothing predicts one padding clip, so that no program has empty arrays.
    longest = max(1, int(splits.test_mask.sum(axis=1).max()))
    rows = np.stack([np.resize(np.flatnonzero(mask), longest) for mask in splits.test_mask])
    real = np.stack([np.arange(longest) < mask.sum() for mask in splits.test_mask])
    keys = next(iter(plan.values()))
    return Roster(
        members=fold.Member(
            train_mask=np.tile(splits.train_mask.astype(np.float32), (repeats, 1)),
            seed=np.tile(np.repeat(np.asarray(seeds, np.int32), folds), len(plan)),
            fold=np.tile(np.arange(folds, dtype=np.int32), repeats),
            tuned={
                key: np.repeat(np.asarray([values[key] for values in plan.values()], np.float32), len(seeds) * folds)
                for key in keys
            },
            soft=None if soft is None else np.tile(soft, (repeats, 1, 1)),
        ),
        names=tuple(
            " ".join(filter(None, (f"trial {trial}," if trial else "", name, f"seed {seed}")))
            for trial in plan
            for seed in seeds
            for name in splits.names
        ),
        test_rows=np.tile(rows.astype(np.int32), (repeats, 1)),
        test_mask=np.tile(real.astype(np.float32), (repeats, 1)),
        shape=(len(plan), len(seeds), folds),
    )


def by_fold(stacked: Shaped[np.ndarray, "m *x"], roster: Roster) -> Shaped[np.ndarray, "trial seed s *x"]:
    """Split the member axis into trials, seeds and folds."""
    return stacked.reshape(*roster.shape, *stacked.shape[1:])


def scatter(
    predicted: Float[np.ndarray, "*lead s j x"],
    rows: Int[np.ndarray, "s j"],
    mask: Float[np.ndarray, "s j"],
    clips: int,
) -> Float[np.ndarray, "*lead {clips} x"]:
    """Scatter per-fold predictions into clip order; NaN where a clip is untested.

    Args:
      predicted: predictions for the test rows of each fold.
      rows: clips of the predictions.
      mask: 0 on padding, which is left out.
      clips: number of clips.
    """
    ordered = np.full((*predicted.shape[:-3], clips, predicted.shape[-1]), np.nan, np.float32)
    fold, position = np.nonzero(mask)
    ordered[..., rows[fold, position], :] = predicted[..., fold, position, :]
    return ordered
