"""Scores of spotting and of recognition after spotting, over all recordings.

Spotting follows the Micro-Expression Grand Challenges 2020 to 2022: a found interval is a true positive if its
intersection over union with a true one is at least 0.5; precision, recall and F1 come from TP, FP and FN summed over
all recordings. Recognition is scored on the true positives only. The product of the two F1 is the
spot-then-recognise score. `least` is everywhere the smallest intersection over union of a true positive, 0 to 1.

Two things differ from the script that the authors of that score publish. It counts frames, both ends included; here
spans are time from onset to offset: to get its numbers, add 1 to each offset. What it calls UAR is a mean precision;
here it is the mean recall.

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
from stag_jax.protocol.compare import ROUNDING, Difference, with_interval
from stag_jax.types import UserError

LEAST = 0.5  # smallest intersection over union of a true positive


class Span(NamedTuple):
    """One expression in a recording, true or found. Onset <= offset, both in frames or both in ms."""

    onset: float
    offset: float
    emotion: str = ""  # empty if only spotting is scored


class SpottedRecording(NamedTuple):
    """The true spans of one recording, and the spans that a method has found."""

    subject: str
    truth: Sequence[Span]
    found: Sequence[Span]


class Spotting(NamedTuple):
    """Spotting scores over all recordings."""

    tp: int
    fp: int
    fn: int
    precision: float  # 0 if nothing is found
    recall: float  # 0 if there is nothing to find
    f1: float  # 0 if neither


class Analysis(NamedTuple):
    """Recognition scores on the true positives only; means over the classes of the true spans."""

    uf1: float
    uar: float
    f1: float  # harmonic mean of the classes' mean precision and mean recall, as STRS has it
    accuracy: float
    confusion: Int[np.ndarray, "k k2"]  # true positives by true class (rows) and recognised class (columns)


class SpottingCounts(NamedTuple):
    """The counts behind the scores; sums over recordings are the counts of all recordings."""

    tp: Int[np.ndarray, " *any"]
    fp: Int[np.ndarray, " *any"]
    fn: Int[np.ndarray, " *any"]
    there: Int[np.ndarray, "*any k"]  # true spans of each class, spotted or not
    confusion: Int[np.ndarray, "*any k k2"]  # as in Analysis


def iou(a: Span, b: Span) -> float:
    """Return intersection over union; 0 for spans that only touch or have no length.

    Spans are intervals of time from onset to offset, not sets of frames: the result is the same in frames and in ms.
    """
    intersection = min(a.offset, b.offset) - max(a.onset, b.onset)
    union = (a.offset - a.onset) + (b.offset - b.onset) - max(intersection, 0)
    return float(intersection / union) if intersection > 0 else 0.0


def match(truth: Sequence[Span], found: Sequence[Span], least: float = LEAST) -> list[tuple[int, int]]:
    """Match true and found spans: return index pairs (true, found), sorted by true span; a span is in one pair at most.

    This is the assignment with the most pairs of an IoU of at least `least`, and among those the one with the largest
    sum of IoUs. So a second detection of the same expression has no pair and is a false positive. If neither the true
    nor the found spans overlap each other and `least` is 0.5, there is hardly a choice: a span has such an IoU with
    only one other, or with two that are its halves.

    Raises:
      UserError: a span ends before it begins, or `least` is not in (0, 1].
    """
    if not 0 < least <= 1:
        raise UserError(f"least must be in (0, 1], not {least}")
    for span in (*truth, *found):
        if not span.offset >= span.onset:  # also true if one of them is NaN
            raise UserError(f"a span ends before it begins: onset {span.onset}, offset {span.offset}")
    if not truth or not found:
        return []
    overlaps = np.array([[iou(a, b) for b in found] for a in truth])
    fits = overlaps > least - ROUNDING
    # One more pair outweighs any possible gain in the sum of IoUs.
    gain = np.where(fits, overlaps + 1 + min(overlaps.shape), 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if fits[i, j]]


def tally(
    recordings: Sequence[SpottedRecording], classes: Sequence[str] = (), *, least: float = LEAST
) -> SpottingCounts:
    """Count hits and errors of each recording, on a leading axis. Without `classes` there are no class counts.

    Raises:
      UserError: the emotion of a true span, or of a found span matched to it, is none of the classes; and as `match`.
    """
    class_index = {name: index for index, name in enumerate(classes)}
    pairs = [match(recording.truth, recording.found, least) for recording in recordings]
    hits = np.array([len(matched) for matched in pairs], np.int64)
    there = np.zeros((len(recordings), len(class_index)), np.int64)
    confusion = np.zeros((*there.shape, len(class_index)), np.int64)

    def of(each: SpottedRecording, span: Span) -> int:
        if span.emotion not in class_index:
            raise UserError(f"{each.subject}: {span.emotion!r} is none of the classes {', '.join(class_index)}")
        return class_index[span.emotion]

    for r, recording in enumerate(recordings if class_index else ()):
        for span in recording.truth:
            there[r, of(recording, span)] += 1
        for i, j in pairs[r]:
            confusion[r, of(recording, recording.truth[i]), of(recording, recording.found[j])] += 1
    truths = np.array([len(recording.truth) for recording in recordings], np.int64)
    finds = np.array([len(recording.found) for recording in recordings], np.int64)
    return SpottingCounts(hits, finds - hits, truths - hits, there, confusion)


def spotting(recordings: Sequence[SpottedRecording], *, least: float = LEAST) -> Spotting:
    """Score spotting regardless of the emotion, pooled over all recordings. Raises as `match`."""
    counts = _pooled(tally(recordings, least=least))
    tp, fp, fn = (int(count) for count in counts[:3])
    precision, recall = (tp / total if total else 0.0 for total in (tp + fp, tp + fn))
    return Spotting(tp, fp, fn, precision, recall, float(_scores(counts)["f1"]))


def analysis(recordings: Sequence[SpottedRecording], classes: Sequence[str], *, least: float = LEAST) -> Analysis:
    """Score recognition of the spotted expressions. Raises as `tally`.

    All scores but accuracy are means over the classes of the true spans. A class of which nothing was spotted counts 0,
    as in the published script: otherwise missing what is hard to recognise would raise the score. A class without true
    spans is left out.
    """
    counts = _pooled(tally(recordings, classes, least=least))
    values = _scores(counts)
    accuracy = metrics.scores(counts.confusion)["accuracy"]
    uf1, uar, f1 = (float(values[name]) for name in ("uf1", "uar", "f1_analysis"))
    return Analysis(uf1, uar, f1, float(accuracy), counts.confusion)


def strs(recordings: Sequence[SpottedRecording], classes: Sequence[str], *, least: float = LEAST) -> float:
    """Return the spot-then-recognise score: F1 of spotting times F1 of analysis. Raises as `tally`.

    F1 of analysis is the harmonic mean of the classes' mean precision and mean recall over the true positives
    (`Analysis.f1`), as the script of Liong et al. has it; it is not the classes' mean F1 (`Analysis.uf1`).
    """
    return scores(recordings, classes, least=least)["strs"]


def scores(recordings: Sequence[SpottedRecording], classes: Sequence[str], *, least: float = LEAST) -> dict[str, float]:
    """Compute f1 (of spotting), uf1, uar, f1_analysis and strs, pooled over all recordings. Raises as `tally`."""
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
    """Return the 95% interval [low, high] of each of `scores` under resampling of subjects with replacement.

    All recordings of a subject are drawn together, true and found spans.

    Raises:
      UserError: no recordings; and as `tally`.
    """
    resampled = _resampled(recordings, classes, resamples=resamples, seed=seed, least=least)
    return {name: metrics.interval(values) for name, values in resampled.items()}


def differences(
    first: Sequence[SpottedRecording],
    second: Sequence[SpottedRecording],
    classes: Sequence[str],
    *,
    resamples: int,
    seed: int = 0,
    least: float = LEAST,
) -> dict[str, Difference]:
    """Return the difference of two methods in each of `scores`, on the same recordings in the same order.

    Every resample has the same subjects for both, as in `compare.paired_bootstrap`.

    Raises:
      UserError: the recordings are not the same, or there are none; or as `tally`.
    """
    if len(first) != len(second):
        raise UserError(f"two methods were asked for different recordings: {len(first)} and {len(second)} of them")
    for index, (recording, other) in enumerate(zip(first, second, strict=True)):
        if recording.subject != other.subject or list(recording.truth) != list(other.truth):
            raise UserError(f"recording {index} of {recording.subject} is another one for the second method")
    means = [scores(recordings, classes, least=least) for recordings in (first, second)]
    resampled = [
        _resampled(recordings, classes, resamples=resamples, seed=seed, least=least) for recordings in (first, second)
    ]
    return {
        name: with_interval(means[0][name] - means[1][name], resampled[0][name] - resampled[1][name])
        for name in means[0]
    }


def _resampled(
    recordings: Sequence[SpottedRecording], classes: Sequence[str], *, resamples: int, seed: int, least: float
) -> dict[str, Float[np.ndarray, " resample"]]:
    if not recordings:
        raise UserError("there are no recordings to resample")
    subject, draws = metrics.resample([each.subject for each in recordings], resamples, seed)
    times = draws[:, subject]  # number of times that each recording is in each resample
    return _scores(SpottingCounts(*(np.tensordot(times, each, 1) for each in tally(recordings, classes, least=least))))


def _pooled(counts: SpottingCounts) -> SpottingCounts:
    return SpottingCounts(*(np.asarray(each.sum(axis=0)) for each in counts))


def _scores(counts: SpottingCounts) -> dict[str, Float[np.ndarray, "*any"]]:
    hit = np.diagonal(counts.confusion, axis1=-2, axis2=-1)
    true, predicted = counts.confusion.sum(axis=-1), counts.confusion.sum(axis=-2)
    present, classes = counts.there > 0, (counts.there > 0).sum(axis=-1)
    precision = _ratio((_ratio(hit, predicted) * present).sum(axis=-1), classes)
    recall = _ratio(_ratio(hit, true).sum(axis=-1), classes)
    # metrics.scores averages over classes that have clips: here, those of which something was spotted.
    share = _ratio((true > 0).sum(axis=-1), classes)
    of_classes = metrics.scores(counts.confusion)
    f1 = _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)
    f1_analysis = _ratio(2 * precision * recall, precision + recall)
    result = {
        "f1": f1,
        "uf1": share * of_classes["uf1"],
        "uar": share * of_classes["uar"],
        "f1_analysis": f1_analysis,
        "strs": f1 * f1_analysis,
    }
    return {name: np.asarray(value) for name, value in result.items()}


def _ratio(part: np.ndarray | np.number, whole: np.ndarray | np.number) -> Float[np.ndarray, "*any"]:
    """Divide; 0 where the denominator is 0."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
