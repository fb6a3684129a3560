"""The optimism table: what a run would have claimed under common habits of scoring, beside its honest score.

All rows are from one and the same training, so they differ only in how they were scored.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stag_jax.analysis import loaded
from stag_jax.analysis.loaded import LoadedRun
from stag_jax.protocol import metrics
from stag_jax.types import UserError

SCORES = ("uf1", "uar", "accuracy")
HONEST = "pooled over folds, last step"
BEST_OF_FOLD = "best test step of each fold, pooled"
BEST_OF_ALL = "best test step of all folds, pooled"
AVERAGED = "averaged over folds, last step, absent classes count as 0"
AVERAGED_PRESENT = "averaged over folds, last step, classes of the fold"
BEST_AVERAGED = "best test step of each fold, averaged over folds, absent classes count as 0"
BEST_AVERAGED_PRESENT = "best test step of each fold, averaged over folds, classes of the fold"


class OptimismRow(NamedTuple):
    """One way of scoring the run; scores are means over seeds."""

    name: str
    uf1: float
    uar: float
    accuracy: float
    excess: float  # UF1 above that of the honest row
    honest: bool


class OptimismTable(NamedTuple):
    """All ways of scoring a run, the honest one first; no rows if nothing was recorded during training."""

    rows: tuple[OptimismRow, ...]
    ceiling: float  # highest possible score if absent classes count as 0


def table(run: LoadedRun) -> OptimismTable:
    """Score one run, honestly and not, from predictions of its held-out clips recorded after every dispatch.

    The honest score is one pooled score after the last step. A chosen step is the one with the best accuracy on the
    fold's own test clips, or with the best pooled UF1 for all folds at once; of steps that tie, the later one. Each
    seed chooses for itself. Averaging over folds takes F1 and recall within each fold, over all classes, an absent one
    counting as 0, or over the classes that the fold has.

    Raises:
      UserError: the recorded predictions are about other clips than splits.csv.
    """
    tested = run.splits[run.splits["tested_in"] != ""]
    label, classes = loaded.labels(tested, run.classes), len(run.classes)
    _, fold = np.unique(tested["tested_in"].to_numpy(str), return_inverse=True)
    highest = ceiling(label, fold, classes)
    if run.history is None:
        return OptimismTable((), highest)
    if run.history.probability.shape[2:] != (len(label), classes):
        shape = " x ".join(map(str, run.history.probability.shape[2:]))
        raise UserError(
            f"{run.folder}: {shape} clips and classes were recorded, and {len(label)} x {classes} are tested"
        )
    counts = confusions(label, run.history.probability.argmax(axis=-1), fold, classes)
    last, best = counts[-1], best_of_fold(counts)
    scored = {
        HONEST: pooled(last),
        BEST_OF_FOLD: pooled(best),
        BEST_OF_ALL: pooled(best_of_all(counts)),
        AVERAGED: averaged(last, absent=True),
        AVERAGED_PRESENT: averaged(last, absent=False),
        BEST_AVERAGED: averaged(best, absent=True),
        BEST_AVERAGED_PRESENT: averaged(best, absent=False),
    }
    honest = scored[HONEST]["uf1"]
    rows = (
        OptimismRow(name, *map(scores.get, SCORES), scores["uf1"] - honest, name == HONEST)
        for name, scores in scored.items()
    )
    return OptimismTable(tuple(rows), highest)


def ceiling(label: Int[np.ndarray, " b"], fold: Int[np.ndarray, " b"], classes: int) -> float:
    """Return the macro-F1 of a perfect classifier, averaged over folds, if classes absent from a fold count as 0.

    Args:
      label: class of each tested clip.
      fold: number of the fold that tests it.
      classes: number of classes.
    """
    return averaged(confusions(label, label[None, None], fold, classes)[0], absent=True)["uf1"]


def confusions(
    label: Int[np.ndarray, " b"], said: Int[np.ndarray, "i seed b"], fold: Int[np.ndarray, " b"], classes: int
) -> Int[np.ndarray, "i seed s k k"]:
    """Count the clips of each fold by true and predicted class, at each recorded step and for each seed."""
    steps, seeds = said.shape[:2]
    counts = np.zeros((steps, seeds, int(fold.max(initial=-1)) + 1, classes, classes), np.int64)
    np.add.at(counts, (np.arange(steps)[:, None, None], np.arange(seeds)[None, :, None], fold, label, said), 1)
    return counts


def best_of_fold(found: Int[np.ndarray, "i seed s k k"]) -> Int[np.ndarray, "seed s k k"]:
    """Return the counts at the step with most test clips right, chosen per fold and seed; the later one of a tie."""
    correct = np.trace(found, axis1=-2, axis2=-1)
    return np.take_along_axis(found, _latest_best(correct)[None, :, :, None, None], axis=0)[0]


def best_of_all(found: Int[np.ndarray, "i seed s k k"]) -> Int[np.ndarray, "seed s k k"]:
    """Return the counts at the step of the best pooled UF1, one for all folds, chosen per seed; the later of a tie."""
    # Rounded, so that ties do not depend on the order of summation.
    uf1 = np.round(metrics.scores(found.sum(axis=2))["uf1"], 12)
    return np.take_along_axis(found, _latest_best(uf1)[None, :, None, None, None], axis=0)[0]


def pooled(confusion: Int[np.ndarray, "seed s k k"]) -> dict[str, float]:
    """Return the scores of all folds pooled, mean over seeds."""
    scores = metrics.scores(confusion.sum(axis=1))
    return {name: float(scores[name].mean()) for name in SCORES}


def averaged(confusion: Int[np.ndarray, "seed s k k"], *, absent: bool) -> dict[str, float]:
    """Return the scores of each fold, averaged over folds and seeds.

    Args:
      confusion: counts of each seed and fold.
      absent: whether a class without a test clip in the fold counts as 0; otherwise it is left out.
    """
    scores = metrics.scores(confusion)
    if absent:
        # `metrics.scores` divides by the number of classes present; here all classes count.
        share_present = (confusion.sum(axis=-1) > 0).mean(axis=-1)
        scores |= {name: scores[name] * share_present for name in ("uf1", "uar")}
    return {name: float(scores[name].mean()) for name in SCORES}


def _latest_best(score: Float[np.ndarray, "i *any"] | Int[np.ndarray, "i *any"]) -> Int[np.ndarray, "*any"]:
    return len(score) - 1 - score[::-1].argmax(axis=0)
