"""What a run would have claimed under the habits of the field, beside what it is worth: the optimism table.

Everything is read from one and the same training, so that rows differ by how they were scored and by nothing else.
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
    """All ways of scoring a run, the honest one first; no rows where nothing was recorded along the way."""

    rows: tuple[OptimismRow, ...]
    ceiling: float  # what nobody can exceed where absent classes count as 0


def table(run: LoadedRun) -> OptimismTable:
    """Scores of one run, honest and not, from what was recorded of its held-out clips after every dispatch.

    Honest is the last step and one pooled score. The step chosen is that of the best accuracy on the fold's own test
    clips, or of the best pooled UF1 for all folds at once, the later one where steps tie; each seed chooses for itself.
    Averaging over folds takes F1 and recall within each fold, over all classes, an absent one counting as 0, or over
    those that the fold has.

    Raises:
      UserError: what was recorded is about other clips than splits.csv.
    """
    tested = run.splits[run.splits["tested_in"] != ""]
    label, classes = loaded.labels(tested, run.classes), len(run.classes)
    _, fold = np.unique(tested["tested_in"].to_numpy(str), return_inverse=True)
    most = ceiling(label, fold, classes)
    if run.history is None:
        return OptimismTable((), most)
    if run.history.probability.shape[2:] != (len(label), classes):
        there = " x ".join(map(str, run.history.probability.shape[2:]))
        raise UserError(
            f"{run.folder}: {there} clips and classes were recorded, and {len(label)} x {classes} are tested"
        )
    found = confusions(label, run.history.probability.argmax(axis=-1), fold, classes)
    last, best = found[-1], best_of_fold(found)
    scored = {
        HONEST: pooled(last),
        BEST_OF_FOLD: pooled(best),
        BEST_OF_ALL: pooled(best_of_all(found)),
        AVERAGED: averaged(last, absent=True),
        AVERAGED_PRESENT: averaged(last, absent=False),
        BEST_AVERAGED: averaged(best, absent=True),
        BEST_AVERAGED_PRESENT: averaged(best, absent=False),
    }
    honest = scored[HONEST]["uf1"]
    rows = (
        OptimismRow(name, *map(each.get, SCORES), each["uf1"] - honest, name == HONEST) for name, each in scored.items()
    )
    return OptimismTable(tuple(rows), most)


def ceiling(label: Int[np.ndarray, " b"], fold: Int[np.ndarray, " b"], classes: int) -> float:
    """Macro-F1 of a perfect classifier, averaged over folds, where a class that a fold does not have counts as 0.

    Args:
      label: of each tested clip.
      fold: the number of the fold that tests it.
      classes: how many there are.
    """
    return averaged(confusions(label, label[None, None], fold, classes)[0], absent=True)["uf1"]


def confusions(
    label: Int[np.ndarray, " b"], said: Int[np.ndarray, "i seed b"], fold: Int[np.ndarray, " b"], classes: int
) -> Int[np.ndarray, "i seed s k k"]:
    """Clips of each fold by true class and predicted class, at each recorded step and of each seed."""
    steps, seeds = said.shape[:2]
    found = np.zeros((steps, seeds, int(fold.max(initial=-1)) + 1, classes, classes), np.int64)
    np.add.at(found, (np.arange(steps)[:, None, None], np.arange(seeds)[None, :, None], fold, label, said), 1)
    return found


def best_of_fold(found: Int[np.ndarray, "i seed s k k"]) -> Int[np.ndarray, "seed s k k"]:
    """The step that gets most test clips of a fold right, chosen by each fold and seed; the later one of a tie."""
    right = np.trace(found, axis1=-2, axis2=-1)
    return np.take_along_axis(found, _latest_best(right)[None, :, :, None, None], axis=0)[0]


def best_of_all(found: Int[np.ndarray, "i seed s k k"]) -> Int[np.ndarray, "seed s k k"]:
    """The step of the best pooled UF1, one for all folds, chosen by each seed; the later one of a tie."""
    # Rounded, so that a tie is one whatever the order of summation.
    uf1 = np.round(metrics.scores(found.sum(axis=2))["uf1"], 12)
    return np.take_along_axis(found, _latest_best(uf1)[None, :, None, None, None], axis=0)[0]


def pooled(confusion: Int[np.ndarray, "seed s k k"]) -> dict[str, float]:
    """Scores of all folds as one, mean over seeds."""
    found = metrics.scores(confusion.sum(axis=1))
    return {name: float(found[name].mean()) for name in SCORES}


def averaged(confusion: Int[np.ndarray, "seed s k k"], *, absent: bool) -> dict[str, float]:
    """Scores of each fold, averaged over folds and seeds.

    Args:
      confusion: of each seed and fold.
      absent: whether a class without a test clip in the fold counts, as 0, or is left out.
    """
    found = metrics.scores(confusion)
    if absent:
        # `metrics.scores` divides by the classes that are there; here all are counted.
        share = (confusion.sum(axis=-1) > 0).mean(axis=-1)
        found |= {name: found[name] * share for name in ("uf1", "uar")}
    return {name: float(found[name].mean()) for name in SCORES}


def _latest_best(score: Float[np.ndarray, "i *any"] | Int[np.ndarray, "i *any"]) -> Int[np.ndarray, "*any"]:
    return len(score) - 1 - score[::-1].argmax(axis=0)
