"""Scores of windows over time as expressions with onset, apex and offset, and frames of no use as gaps."""

from collections.abc import Mapping, Sequence

import numpy as np

from stag_jax.deploy.results import Gap, Interval, Result, Score

LEAST = 0.5  # score of an expression
SHORTEST, LONGEST = 40.0, 500.0  # ms that a micro-expression lasts: 1/25 to 1/2 second
LEAD = 50.0  # ms of a window in which the face is still
APART = 0.5  # share of the shorter of two movements that may overlap, before they are one


def merged(scores: Sequence[tuple[int, Score]], classes: Sequence[str], least: float = LEAST) -> list[Interval]:
    """The expressions of all tracks, in order of their onsets.

    Of each window its largest movement counts, if its score reaches `least`, it lasts as long as a micro-expression
    can, begins no sooner than `LEAD` after the window and is over before the window is: a window that itself begins in
    the middle of a movement sees a face that moves at once and does not go back. Movements that overlap are one: that
    of the highest score gives the times, and their answers are averaged, weighted by score.
    """
    found = []
    for track in sorted({track for track, _ in scores}):
        own = [score for other, score in scores if other == track and _counts(score, least)]
        while own:
            best = max(own, key=lambda score: score.expression)
            same = [score for score in own if _overlap(best, score) > APART]
            own = [score for score in own if _overlap(best, score) <= APART]
            found.append(_interval(track, best, same, classes))
    return sorted(_disjoint(found), key=lambda interval: (interval.onset_ms, interval.track))


def _counts(score: Score, least: float) -> bool:
    inside = score.start_ms + LEAD <= score.onset_ms and score.offset_ms < score.end_ms
    return score.expression >= least and inside and SHORTEST <= score.offset_ms - score.onset_ms <= LONGEST


def _overlap(one: Score | Interval, other: Score | Interval) -> float:
    both = min(one.offset_ms, other.offset_ms) - max(one.onset_ms, other.onset_ms)
    return both / min(one.offset_ms - one.onset_ms, other.offset_ms - other.onset_ms)


def _interval(track: int, best: Score, same: Sequence[Score], classes: Sequence[str]) -> Interval:
    weight = [score.expression for score in same]
    probability = np.average([score.probability for score in same], axis=0, weights=weight)
    return Interval(
        track=track,
        onset_ms=best.onset_ms,
        apex_ms=best.apex_ms,
        offset_ms=best.offset_ms,
        emotion=classes[int(np.argmax(probability))],
        confidence=best.expression,
        probability=probability,
        au_probability=np.average([score.au_probability for score in same], axis=0, weights=weight),
    )


def _disjoint(found: Sequence[Interval]) -> list[Interval]:
    """Of those of a track that still overlap the surer one."""
    kept: list[Interval] = []
    for one in sorted(found, key=lambda interval: -interval.confidence):
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
