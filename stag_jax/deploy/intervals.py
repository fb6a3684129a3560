"""Scores of windows over time as expressions with onset, apex and offset, and frames of no use as gaps."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from stag_jax.deploy.results import Gap, Interval, Recogniser, Result, Score

LEAST = 0.5  # score of an expression
SHORTEST, LONGEST = 40.0, 500.0  # ms that a micro-expression lasts: 1/25 to 1/2 second
LEAD = 50.0  # ms of a window in which the face is still
APART = 0.5  # share of the shorter of two movements that may overlap, before they are one

# Of a network that was trained to spot.
AROUND = 50.0  # ms to either side over which its scores are averaged
CONTINUES = 120.0  # ms from one window to the next, beyond which a row of windows is over
TYPICAL = 320.0  # ms from onset to offset of an expression

Scores = Sequence[tuple[int, Score]]  # track and what is said of a window of it, in order of time


def found(scores: Scores, recogniser: Recogniser, least: float = LEAST) -> list[Interval]:
    """The expressions of all tracks, in order of their onsets: by `rows` if the network spots, else by `merged`."""
    return (rows if recogniser.spots else merged)(scores, recogniser.emotions, least)


def rows(scores: Scores, classes: Sequence[str], least: float = LEAST) -> list[Interval]:
    """The expressions of all tracks, in order of their onsets, from windows that were scored by a network.

    A window scores high where it holds an expression whole. So the windows that do are a row, and in the middle of the
    row is the middle of the expression; that is exact, while the ends of a row are blurred, and an expression lasts
    `TYPICAL` here whatever the row says. Two windows in a row at least must reach `least`, after averaging over
    `AROUND`. The apex is that of the largest movement in the surest window, if it lies within.
    """
    # A long recording has too many scores to be held at once: three numbers of each, and those that count.
    tracks, all_ends, expression = np.zeros((3, len(scores)))
    for index, (track, score) in enumerate(scores):
        tracks[index], all_ends[index], expression[index] = track, score.end_ms, score.expression
    intervals = []
    for track in np.unique(tracks):
        places = np.flatnonzero(tracks == track)
        ends, total = all_ends[places], np.cumsum(np.concatenate([[0.0], expression[places]]))
        first, last = np.searchsorted(ends, ends - AROUND), np.searchsorted(ends, ends + AROUND, side="right")
        sure = (total[last] - total[first]) / (last - first)
        high = np.flatnonzero(sure >= least)
        breaks = np.flatnonzero((np.diff(high) > 1) | (np.diff(ends[high]) > CONTINUES)) + 1
        for row in np.split(high, breaks):
            if len(row) > 1:
                windows = [scores[index][1] for index in places[row].tolist()]
                intervals.append(_of_row(int(track), windows, sure[row], classes))
    return sorted(_disjoint(intervals), key=lambda interval: (interval.onset_ms, interval.track))


def _of_row(track: int, row: Sequence[Score], sure: Float[np.ndarray, " row"], classes: Sequence[str]) -> Interval:
    middle = float(np.average([(score.start_ms + score.end_ms) / 2 for score in row], weights=sure))
    onset, offset = middle - TYPICAL / 2, middle + TYPICAL / 2
    apex = row[int(sure.argmax())].apex_ms
    return _interval(track, (onset, apex if onset < apex < offset else middle, offset), row, sure, classes)


def merged(scores: Scores, classes: Sequence[str], least: float = LEAST) -> list[Interval]:
    """The expressions of all tracks, in order of their onsets, from windows that were scored by size of movement.

    Of each window its largest movement counts, if its score reaches `least`, it lasts as long as a micro-expression
    can, begins no sooner than `LEAD` after the window and is over before the window is: a window that itself begins in
    the middle of a movement sees a face that moves at once and does not go back. Movements that overlap are one: that
    of the highest score gives the times, and their answers are averaged, weighted by score.
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
    both = min(one.offset_ms, other.offset_ms) - max(one.onset_ms, other.onset_ms)
    return both / min(one.offset_ms - one.onset_ms, other.offset_ms - other.onset_ms)


def _interval(
    track: int,
    times: tuple[float, float, float],
    windows: Sequence[Score],
    sure: Float[np.ndarray, " row"],
    classes: Sequence[str],
) -> Interval:
    """One expression, from what was said of its windows, weighted by how sure each is."""
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
    """Of those of a track that still overlap the surer one."""
    kept: list[Interval] = []
    for one in sorted(intervals, key=lambda interval: -interval.confidence):
        if all(one.track != other.track or _overlap(one, other) <= 0 for other in kept):
            kept.append(one)
    return kept


def gaps(still_open: Mapping[int | None, Gap], result: Result) -> tuple[dict[int | None, Gap], list[Gap]]:
    """Takes in the next frame: the gaps that are open after it, by track, and those that end with it. Pure.

    A gap is a stretch for which nothing is said: of the recording (track None), or of a face.
    """
    reasons: dict[int | None, str] = {face.track: face.refused for face in result.faces if face.refused}
    if result.dropped or not result.faces:
        reasons[None] = result.dropped or "no face"
    after, ended = {}, []
    for track, gap in still_open.items():
        reached = gap._replace(end_ms=max(gap.end_ms, result.time_ms))
        # Of a frame that was dropped nothing is known, so that a face's gap goes on.
        if reasons.get(track) == gap.reason or (result.dropped and track is not None):
            after[track] = reached
        else:
            ended.append(reached)
    for track, reason in reasons.items():
        after.setdefault(track, Gap(track, result.time_ms, result.time_ms, reason))
    return after, ended
