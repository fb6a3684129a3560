"""Scores of windows as intervals, and frames of no use as gaps."""

from itertools import pairwise

import numpy as np

from stag_jax.deploy import intervals
from stag_jax.deploy.results import FaceResult, Gap, Result, Score
from stag_jax.face.landmarks import Box

CLASSES = ("negative", "positive", "surprise")


def score(start, onset, apex, offset, expression=0.8, probability=(0.1, 0.7, 0.2)):
    return Score(start, start + 500, expression, np.array(probability), np.full(3, 0.4), onset, apex, offset, 1.0, 0.0)


def result(time, *refused, dropped=""):
    faces = tuple(
        FaceResult(track, Box(0, 0, 9, 9), np.zeros((68, 2)), reason, None, None, None)
        for track, reason in enumerate(refused)
    )
    return Result(float(time), faces, dropped)


def test_windows_of_one_movement_are_one_interval():
    windows = [
        (0, score(0, 200, 300, 410, 0.7, (0.1, 0.7, 0.2))),
        (0, score(40, 210, 300, 400, 0.9, (0.8, 0.1, 0.1))),
        (0, score(600, 700, 800, 900)),
        (1, score(0, 200, 300, 410)),
    ]
    found = intervals.merged(windows, CLASSES)
    assert [(i.track, i.onset_ms, i.offset_ms) for i in found] == [(1, 200, 410), (0, 210, 400), (0, 700, 900)]
    first = found[1]
    expected = (0.7 * np.array((0.1, 0.7, 0.2)) + 0.9 * np.array((0.8, 0.1, 0.1))) / 1.6
    np.testing.assert_allclose(first.probability, expected)
    assert first.emotion == CLASSES[int(expected.argmax())] and first.confidence == 0.9


def test_what_is_no_micro_expression_does_not_count():
    windows = [
        score(0, 200, 300, 410, expression=0.4),  # too small
        score(0, 20, 300, 410),  # begun before the window
        score(0, 200, 300, 500),  # not over within it
        score(0, 200, 210, 230),  # shorter than 1/25 s
    ]
    assert intervals.merged([(0, each) for each in windows], CLASSES) == []
    assert intervals.merged([], CLASSES) == []


def test_intervals_of_a_track_are_disjoint():
    rng = np.random.default_rng(5)
    windows = []
    for _ in range(97):
        start = rng.uniform(0, 3000)
        onset = start + rng.uniform(50, 150)
        offset = onset + rng.uniform(50, 300)
        windows.append((int(rng.integers(2)), score(start, onset, (onset + offset) / 2, offset, rng.uniform(0.3, 1))))
    found = intervals.merged(windows, CLASSES)
    for track in (0, 1):
        own = [i for i in found if i.track == track]
        assert own and all(a.offset_ms <= b.onset_ms for a, b in pairwise(own))


def gaps(results):
    still_open, ended = {}, []
    for each in results:
        still_open, more = intervals.gaps(still_open, each)
        ended += more
    return ended + list(still_open.values())


def test_gaps_begin_and_end_with_their_reasons():
    frames = [result(0, "", ""), result(10, "hidden", ""), result(20, "hidden", ""), result(30, "lost", "")]
    frames += [result(40, "", "", dropped=""), result(50), result(60, dropped="late"), result(70, "", "")]
    found = gaps(frames)
    assert Gap(0, 10.0, 30.0, "hidden") in found and Gap(0, 30.0, 40.0, "lost") in found
    assert Gap(None, 50.0, 60.0, "no face") in found and Gap(None, 60.0, 70.0, "late") in found
    assert len(found) == 4


def test_times_that_go_backwards_make_no_negative_gap():
    found = gaps([result(50, "lost"), result(20, dropped="time stamp does not go forward"), result(60, "")])
    assert all(gap.end_ms >= gap.start_ms for gap in found)
