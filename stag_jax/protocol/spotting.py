"""How spotting is scored: which of the found intervals are true, over all recordings, and what is then made of them.

Spotting follows the Micro-Expression Grand Challenges 2020 to 2022: a found interval is a true positive if its
intersection over union with a true one is at least 0.5; precision, recall and F1 come from TP, FP and FN summed over
all recordings. Recognition is scored on the true positives alone. The product of the F1 of either is the
spot-then-recognise score.

Two things differ from the script that the authors of that score publish. It counts frames, with both ends, where here
spans are time from onset to offset: to meet its numbers, add 1 to each offset. And what it calls UAR is a mean
precision; here it is the mean recall.

Sources: Li, Wang, Yap, See, Hong and Li, "MEGC2020 - The Third Facial Micro-Expression Grand Challenge", FG 2020; Li,
Yap, Cheng, See, Hong, Li and Wang, "MEGC2022: ACM Multimedia 2022 Micro-Expression Grand Challenge", ACM MM 2022;
Liong, See and Chan, "Spot-then-recognize: A micro-expression analysis network for seamless evaluation of long videos",
Signal Processing: Image Communication 110, 2023 (STRS).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from stag_jax.protocol import metrics
from stag_jax.protocol.compare import ROUNDING, Difference
from stag_jax.types import UserError

LEAST = 0.5  # intersection over union from which a found interval counts


class Span(NamedTuple):
    """An expression in a recording, true or found. Onset and offset in one unit, frames or ms, the latter no less."""

    onset: float
    offset: float
    emotion: str = ""  # empty where only spotting is asked for


class SpottedRecording(NamedTuple):
    """What is to be found in one recording, and what a method has found in it."""

    subject: str
    truth: Sequence[Span]
    found: Sequence[Span]


class Spotting(NamedTuple):
    """Spotting over all recordings."""

    tp: int
    fp: int
    fn: int
    precision: float  # 0 where nothing is found
    recall: float  # 0 where nothing is there
    f1: float  # 0 where neither


class Analysis(NamedTuple):
    """Recognition of what was spotted: the true positives alone, means over the classes that the truth has."""

    uf1: float
    uar: float
    f1: float  # harmonic mean of the classes' mean precision and mean recall, as STRS has it
    accuracy: float
    confusion: Int[np.ndarray, "k k2"]  # true positives by true class (rows) and recognised class (columns)


class SpottingCounts(NamedTuple):
    """All that the scores are made of; sums of tallies are the tally of all recordings."""

    tp: Int[np.ndarray, " *any"]
    fp: Int[np.ndarray, " *any"]
    fn: Int[np.ndarray, " *any"]
    there: Int[np.ndarray, "*any k"]  # true spans of each class, spotted or not
    confusion: Int[np.ndarray, "*any k k2"]  # as in Analysis


def iou(a: Span, b: Span) -> float:
    """Length of the intersection over that of the union; 0 for spans that only touch, or that have no length.

    Spans are intervals of time, from onset to offset, and not sets of frames: the same in frames and in ms.
    """
    both = min(a.offset, b.offset) - max(a.onset, b.onset)
    either = (a.offset - a.onset) + (b.offset - b.onset) - max(both, 0)
    return float(both / either) if both > 0 else 0.0


def match(truth: Sequence[Span], found: Sequence[Span], least: float = LEAST) -> list[tuple[int, int]]:
    """Indices (true, found) of the pairs that belong together, by true span; each span is in one pair at most.

    The assignment with the most pairs of an IoU of at least `least`, and among those the one with the largest sum of
    IoUs. So a second detection of the same expression has no pair, and is a false positive. Where neither the true
    spans nor the found ones overlap among themselves and `least` is 0.5 there is hardly a choice to make: a span has
    such an IoU with one other only, or with two that are its halves.

    Raises:
      UserError: a span ends before it begins, or `least` is not in (0, 1].
    """
    if not 0 < least <= 1:
        raise UserError(f"least must be in (0, 1], not {least}")
    for span in (*truth, *found):
        if not span.offset >= span.onset:  # also where one of them is NaN
            raise UserError(f"a span ends before it begins: onset {span.onset}, offset {span.offset}")
    if not truth or not found:
        return []
    alike = np.array([[iou(a, b) for b in found] for a in truth])
    fits = alike > least - ROUNDING
    # One more pair outweighs whatever the others could gain by it.
    gain = np.where(fits, alike + 1 + min(alike.shape), 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if fits[i, j]]


def tally(
    recordings: Sequence[SpottedRecording], classes: Sequence[str] = (), *, least: float = LEAST
) -> SpottingCounts:
    """Counts of each recording, on a leading axis. Without `classes` nothing is recognised.

    Raises:
      UserError: the emotion of a true span, or of a found one that belongs to it, is none of the classes; or `match`
        finds fault with a span.
    """
    number = {name: index for index, name in enumerate(classes)}
    pairs = [match(each.truth, each.found, least) for each in recordings]
    hits = np.array([len(each) for each in pairs], np.int64)
    there = np.zeros((len(recordings), len(number)), np.int64)
    confusion = np.zeros((*there.shape, len(number)), np.int64)

    def of(each: SpottedRecording, span: Span) -> int:
        if span.emotion not in number:
            raise UserError(f"{each.subject}: {span.emotion!r} is none of the classes {', '.join(number)}")
        return number[span.emotion]

    for r, each in enumerate(recordings if number else ()):
        for span in each.truth:
            there[r, of(each, span)] += 1
        for i, j in pairs[r]:
            confusion[r, of(each, each.truth[i]), of(each, each.found[j])] += 1
    truths = np.array([len(each.truth) for each in recordings], np.int64)
    finds = np.array([len(each.found) for each in recordings], np.int64)
    return SpottingCounts(hits, finds - hits, truths - hits, there, confusion)


def spotting(recordings: Sequence[SpottedRecording], *, least: float = LEAST) -> Spotting:
    """How well expressions are spotted, whatever they are taken for; pooled over all recordings. Raises as `match`."""
    counts = _pooled(tally(recordings, least=least))
    tp, fp, fn = (int(each) for each in counts[:3])
    precision, recall = (tp / total if total else 0.0 for total in (tp + fp, tp + fn))
    return Spotting(tp, fp, fn, precision, recall, float(_scores(counts)["f1"]))


def analysis(recordings: Sequence[SpottedRecording], classes: Sequence[str], *, least: float = LEAST) -> Analysis:
    """How well that which was spotted is recognised. Raises as `tally`.

    All but accuracy are means over the classes of the true spans. One of which nothing was spotted counts 0, as in the
    published script: else it would pay to miss what is hard to recognise. One that is not there at all is left out.
    """
    counts = _pooled(tally(recordings, classes, least=least))
    found = _scores(counts)
    accuracy = metrics.scores(counts.confusion)["accuracy"]
    uf1, uar, f1 = (float(found[name]) for name in ("uf1", "uar", "f1_analysis"))
    return Analysis(uf1, uar, f1, float(accuracy), counts.confusion)


def strs(recordings: Sequence[SpottedRecording], classes: Sequence[str], *, least: float = LEAST) -> float:
    """Spot-then-recognise score: F1 of spotting times F1 of analysis. Raises as `tally`.

    F1 of analysis is the harmonic mean of the classes' mean precision and mean recall over the true positives
    (`Analysis.f1`), as the script of Liong et al. has it; it is not the classes' mean F1 (`Analysis.uf1`).
    """
    return scores(recordings, classes, least=least)["strs"]


def scores(recordings: Sequence[SpottedRecording], classes: Sequence[str], *, least: float = LEAST) -> dict[str, float]:
    """f1 (of spotting), uf1, uar, f1_analysis and strs, pooled over all recordings. Raises as `tally`."""
    counts = _pooled(tally(recordings, classes, least=least))
    return {name: float(value) for name, value in _scores(counts).items()}


def intervals(
    recordings: Sequence[SpottedRecording],
    classes: Sequence[str],
    *,
    resamples: int,
    seed: int = 0,
    least: float = LEAST,
) -> dict[str, list[float]]:
    """95% interval [low, high] of each of `scores` under resampling of subjects with replacement.

    All recordings of a subject are drawn together, true and found. Raises UserError where there are no recordings, and
    as `tally`.
    """
    drawn = _resampled(recordings, classes, resamples=resamples, seed=seed, least=least)
    return {name: metrics.interval(values) for name, values in drawn.items()}


def differences(
    first: Sequence[SpottedRecording],
    second: Sequence[SpottedRecording],
    classes: Sequence[str],
    *,
    resamples: int,
    seed: int = 0,
    least: float = LEAST,
) -> dict[str, Difference]:
    """How far two methods are apart in each of `scores`, on the same recordings in the same order.

    Every resample holds the same subjects for both, as in `compare.paired_bootstrap`.

    Raises:
      UserError: the recordings are not the same, or there are none; or as `tally`.
    """
    if len(first) != len(second):
        raise UserError(f"two methods were asked for different recordings: {len(first)} and {len(second)} of them")
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        if one.subject != other.subject or list(one.truth) != list(other.truth):
            raise UserError(f"recording {index} of {one.subject} is another one for the second method")
    whole = [scores(each, classes, least=least) for each in (first, second)]
    drawn = [_resampled(each, classes, resamples=resamples, seed=seed, least=least) for each in (first, second)]
    apart = {name: drawn[0][name] - drawn[1][name] for name in whole[0]}
    return {
        name: Difference(whole[0][name] - whole[1][name], *metrics.interval(each), float(np.mean(each <= ROUNDING)))
        for name, each in apart.items()
    }


def _resampled(
    recordings: Sequence[SpottedRecording], classes: Sequence[str], *, resamples: int, seed: int, least: float
) -> dict[str, Float[np.ndarray, " resample"]]:
    if not recordings:
        raise UserError("there are no recordings to resample")
    subject, draws = metrics.resample([each.subject for each in recordings], resamples, seed)
    times = draws[:, subject]  # how often each recording is in each resample
    return _scores(SpottingCounts(*(np.tensordot(times, each, 1) for each in tally(recordings, classes, least=least))))


def _pooled(counts: SpottingCounts) -> SpottingCounts:
    return SpottingCounts(*(np.asarray(each.sum(axis=0)) for each in counts))


def _scores(counts: SpottingCounts) -> dict[str, Float[np.ndarray, "*any"]]:
    hit = np.diagonal(counts.confusion, axis1=-2, axis2=-1)
    true, predicted = counts.confusion.sum(axis=-1), counts.confusion.sum(axis=-2)
    present, classes = counts.there > 0, (counts.there > 0).sum(axis=-1)
    precision = _ratio((_ratio(hit, predicted) * present).sum(axis=-1), classes)
    recall = _ratio(_ratio(hit, true).sum(axis=-1), classes)
    # metrics.scores takes the mean over classes that have clips, here those of which something was spotted.
    share = _ratio((true > 0).sum(axis=-1), classes)
    of_classes = metrics.scores(counts.confusion)
    f1 = _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)
    f1_analysis = _ratio(2 * precision * recall, precision + recall)
    found = {
        "f1": f1,
        "uf1": share * of_classes["uf1"],
        "uar": share * of_classes["uar"],
        "f1_analysis": f1_analysis,
        "strs": f1 * f1_analysis,
    }
    return {name: np.asarray(value) for name, value in found.items()}


def _ratio(part: np.ndarray | np.number, whole: np.ndarray | np.number) -> Float[np.ndarray, "*any"]:
    """0 where there is nothing to divide by."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
