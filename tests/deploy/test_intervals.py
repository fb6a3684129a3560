"""Scores of windows as intervals, and frames of no use as gaps."""

from itertools import pairwise

import numpy as np
import pytest

from stag_configs import base
from stag_jax.config import from_config_dict, replace
from stag_jax.deploy import intervals
from stag_jax.deploy.results import FaceResult, Gap, Recogniser, Result, Score
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


def test_a_row_of_windows_is_one_expression_in_the_middle_of_it():
    """Windows that hold 700 to 1010 ms whole score high, others low."""
    starts = np.arange(0, 1500, 40)
    whole = (starts <= 700) & (starts + 500 >= 1010)
    windows = [
        (0, score(float(s), 690.0, 830.0, 1020.0, 0.9 if there else 0.1))
        for s, there in zip(starts, whole, strict=True)
    ]
    (found,) = intervals.rows(windows, CLASSES)
    assert abs((found.onset_ms + found.offset_ms) / 2 - 855) < 21 and found.apex_ms == 830
    assert found.offset_ms - found.onset_ms == intervals.TYPICAL
    assert found.emotion == "positive" and found.confidence == pytest.approx(0.9)
    np.testing.assert_allclose(found.probability, (0.1, 0.7, 0.2))


def test_one_window_alone_is_no_row_and_a_break_in_time_ends_one():
    def at(*pairs):
        return intervals.rows([(0, score(float(s), s + 90.0, s + 200.0, s + 300.0, e)) for s, e in pairs], CLASSES)

    assert at((0, 0.1), (40, 1.0), (80, 0.1)) == []
    assert at() == []
    first = [(0, 0.9), (40, 0.9), (80, 0.9)]
    assert len(at(*first, (120, 0.9), (160, 0.9))) == 1
    assert len(at(*first, (1000, 0.9), (1040, 0.9))) == 2


def test_averaging_is_that_of_the_windows_around():
    rng = np.random.default_rng(3)
    ends = np.cumsum(rng.uniform(5, 60, 211))
    said = rng.uniform(0, 1, 211)
    windows = [(0, score(end - 500, end - 400, end - 300, end - 200, e)) for end, e in zip(ends, said, strict=True)]
    slow = np.array([said[np.abs(ends - end) <= intervals.AROUND].mean() for end in ends])
    found = intervals.rows(windows, CLASSES, least=0.55)
    assert found
    assert all(np.isclose(slow, one.confidence).any() and one.confidence >= 0.55 for one in found)
    assert max(one.confidence for one in found) == pytest.approx(slow.max())


def test_the_kind_of_network_decides():
    windows = [(0, score(float(s), 690.0, 830.0, 1020.0)) for s in range(440, 640, 40)]
    made = from_config_dict(base.get_config())
    sized = Recogniser("sized", made, None)
    learned = Recogniser("learned", replace(made, {"data.classes": ("none", *CLASSES)}), None)
    assert learned.emotions == sized.emotions == CLASSES and learned.spots and not sized.spots
    (one,), (other,) = intervals.found(windows, sized), intervals.found(windows, learned)
    assert (one.onset_ms, one.offset_ms) == (690, 1020)
    assert other.offset_ms - other.onset_ms == intervals.TYPICAL


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
