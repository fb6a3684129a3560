"""Turn window scores into expressions with onset, apex and offset, and unusable frames into gaps."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from stag_jax.deploy.results import Gap, Interval, Recogniser, Result, Score

LEAST = 0.5  # minimum score of an expression
SHORTEST, LONGEST = 40.0, 500.0  # ms that a micro-expression lasts: 1/25 to 1/2 second
LEAD = 50.0  # ms at the start of a window in which the face must be still
APART = 0.5  # largest overlap, as a fraction of the shorter movement, of two separate movements

# For a network that was trained to spot.
AROUND = 50.0  # ms to either side over which scores are averaged
CONTINUES = 120.0  # largest distance in ms between consecutive windows of one row
TYPICAL = 320.0  # ms from onset to offset of an expression

Scores = Sequence[tuple[int, Score]]  # (track, score of a window), in order of time


def found(scores: Scores, recogniser: Recogniser, least: float = LEAST) -> list[Interval]:
    """Return the expressions of all tracks, ordered by onset: by `rows` if the network spots, else by `merged`.

    `least` is the smallest score of a window, 0 to 1, that counts as an expression.
    """
    return (rows if recogniser.spots else merged)(scores, recogniser.emotions, least)


def rows(scores: Scores, classes: Sequence[str], least: float = LEAST) -> list[Interval]:
    """Return the expressions of all tracks, ordered by onset, from windows scored by a spotting network.

    A window scores high if it contains a whole expression. Consecutive high windows form a row, whose middle is the
    middle of the expression. The middle is exact but the ends of a row are blurred, so the duration is fixed to
    `TYPICAL`. At least two consecutive windows must reach `least`, after averaging over `AROUND`. The apex is that of
    the largest movement in the window with the highest score, if it lies inside the expression, else the middle.
    """
    # A long recording has too many scores to hold in memory: keep three numbers of each, and read the hits again.
    tracks, all_ends, expression = np.zeros((3, len(scores)))
    for index, (track, score) in enumerate(scores):
        tracks[index], all_ends[index], expression[index] = track, score.end_ms, score.expression
    intervals = []
    for track in np.unique(tracks):
        indices = np.flatnonzero(tracks == track)
        ends, total = all_ends[indices], np.cumsum(np.concatenate([[0.0], expression[indices]]))
        first, last = np.searchsorted(ends, ends - AROUND), np.searchsorted(ends, ends + AROUND, side="right")
        smoothed = (total[last] - total[first]) / (last - first)
        high = np.flatnonzero(smoothed >= least)
        breaks = np.flatnonzero((np.diff(high) > 1) | (np.diff(ends[high]) > CONTINUES)) + 1
        for row in np.split(high, breaks):
            if len(row) > 1:
                windows = [scores[index][1] for index in indices[row].tolist()]
                intervals.append(_of_row(int(track), windows, smoothed[row], classes))
    return sorted(_disjoint(intervals), key=lambda interval: (interval.onset_ms, interval.track))


def _of_row(track: int, row: Sequence[Score], sure: Float[np.ndarray, " row"], classes: Sequence[str]) -> Interval:
    middle = float(np.average([(score.start_ms + score.end_ms) / 2 for score in row], weights=sure))
    onset, offset = middle - TYPICAL / 2, middle + TYPICAL / 2
    apex = row[int(sure.argmax())].apex_ms
    return _interval(track, (onset, apex if onset < apex < offset else middle, offset), row, sure, classes)


def merged(scores: Scores, classes: Sequence[str], least: float = LEAST) -> list[Interval]:
    """Return the expressions of all tracks, ordered by onset, from windows scored by the size of the movement.

    The largest movement of a window counts if its score reaches `least`, its duration is that of a micro-expression,
    it begins at least `LEAD` after the window begins, and it ends before the window ends. (In a window that begins in
    the middle of a movement the face moves at once and does not return.) Overlapping movements are merged: the one with
    the highest score gives the times, and their probabilities are averaged, weighted by score.
    """
    counted: dict[int, list[Score]] = {}
    for track, score in scores:
        if _counts(score, least):
            counted.setdefault(track, []).append(score)
    intervals = []
    for track, windows in sorted(counted.items()):
        while windows:
            best = max(windows, key=lambda score: score.expression)
            same = [score for score in windows if _overlap(best, score) > APART]
            windows = [score for score in windows if _overlap(best, score) <= APART]
            times = float(best.onset_ms), float(best.apex_ms), float(best.offset_ms)
            sure = np.array([score.expression for score in same])
            intervals.append(_interval(track, times, same, sure, classes))
    return sorted(_disjoint(intervals), key=lambda interval: (interval.onset_ms, interval.track))


def _counts(score: Score, least: float) -> bool:
    inside = score.start_ms + LEAD <= score.onset_ms and score.offset_ms < score.end_ms
    return score.expression >= least and inside and SHORTEST <= score.offset_ms - score.onset_ms <= LONGEST


def _overlap(one: Score | Interval, other: Score | Interval) -> float:
    common_ms = min(one.offset_ms, other.offset_ms) - max(one.onset_ms, other.onset_ms)
    return common_ms / min(one.offset_ms - one.onset_ms, other.offset_ms - other.onset_ms)


def _interval(
    track: int,
    times: tuple[float, float, float],
    windows: Sequence[Score],
    sure: Float[np.ndarray, " row"],
    classes: Sequence[str],
) -> Interval:
    """Return one expression; its probabilities are the mean over its windows, weighted by score."""
    probability = np.average([score.probability for score in windows], axis=0, weights=sure)
    return Interval(
        track,
        *times,
        emotion=classes[int(np.argmax(probability))],
        confidence=float(sure.max()),
        probability=probability,
        au_probability=np.average([score.au_probability for score in windows], axis=0, weights=sure),
    )


def _disjoint(intervals: Sequence[Interval]) -> list[Interval]:
    """Drop intervals that overlap a more confident one of the same track."""
    kept: list[Interval] = []
    for interval in sorted(intervals, key=lambda interval: -interval.confidence):
        if all(interval.track != other.track or _overlap(interval, other) <= 0 for other in kept):
            kept.append(interval)
    return kept


def gaps(still_open: Mapping[int | None, Gap], result: Result) -> tuple[dict[int | None, Gap], list[Gap]]:
    """Update the gaps with the next frame; return those still open, by track, and those that have ended. Pure.

    A gap is a stretch without predictions, of the whole recording (track None) or of one face.
    """
    reasons: dict[int | None, str] = {face.track: face.refused for face in result.faces if face.refused}
    if result.dropped or not result.faces:
        reasons[None] = result.dropped or "no face"
    now_open, ended = {}, []
    for track, gap in still_open.items():
        extended = gap._replace(end_ms=max(gap.end_ms, result.time_ms))
        # A dropped frame tells nothing about a face, so a face's gap continues.
        if reasons.get(track) == gap.reason or (result.dropped and track is not None):
            now_open[track] = extended
        else:
            ended.append(extended)
    for track, reason in reasons.items():
        now_open.setdefault(track, Gap(track, result.time_ms, result.time_ms, reason))
    return now_open, ended
