"""The picture of a recording: what it keeps of long ones, and that nothing in it lies on something else."""

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from stag_jax.deploy import timeline
from stag_jax.deploy.record import Outcome
from stag_jax.deploy.results import Gap, Interval, Score

CLASSES, UNITS = ("negative", "positive", "surprise"), (1, 4, 12, 25, 26)


def score(end, expression=0.1, magnitude=0.3):
    return Score(end - 500, end, expression, np.array([0.2, 0.7, 0.1]), np.zeros(5), end, end, end, magnitude, 0.0)


def interval(onset, track=1, confidence=0.9):
    au = np.array([0.1, 0.9, np.nan, 0.7, 0.6])
    return Interval(track, onset, onset + 150, onset + 330, "positive", confidence, np.array([0.2, 0.7, 0.1]), au)


def outcome(seconds=11.0, tracks=(1,), intervals=(), gaps=(), stride=100.0):
    ends = np.arange(500.0, 1000 * seconds + 1, stride)
    scores = [(track, score(float(end))) for end in ends for track in tracks]
    return Outcome("film", "run", 275, seconds, 25.0, {}, CLASSES, UNITS, scores, list(intervals), list(gaps), {})


def texts(axes):
    """Of labels in the panel: text and box in pixels."""
    renderer = axes.figure.canvas.get_renderer()
    return [(each.get_text(), each.get_window_extent(renderer)) for each in axes.texts]


def drawn(made):
    with matplotlib.rc_context(timeline.STYLE):
        figure = timeline.figure(made)
        FigureCanvasAgg(figure).draw()
    return figure


CASES = {
    "second": outcome(1.0, intervals=[interval(300.0)]),
    "hour": outcome(3600.0, intervals=[interval(9000.0 * n) for n in range(390)], stride=1000.0),
    "none": outcome(),
    "no_face": outcome(tracks=(), gaps=[Gap(None, 0.0, 11_000.0, "no face")]),
    "one_window": outcome(0.5),
    "nothing": outcome(0.0, tracks=()),
    "crowd": outcome(tracks=range(9), intervals=[interval(900.0, track=8)]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_recording_has_a_picture(name, tmp_path):
    path = timeline.draw(tmp_path / "deep" / "film.png", CASES[name])
    with Image.open(path) as picture:
        assert picture.width == timeline.WIDTH * timeline.DPI and np.asarray(picture).min() < 60
    assert [each.name for each in path.parent.iterdir()] == ["film.png"]
    again = timeline.draw(tmp_path / "again.png", CASES[name])
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_labels_do_not_lie_on_each_other(name):
    figure = drawn(CASES[name])
    for axes in figure.axes:
        boxes = [box for _, box in texts(axes)]
        for index, box in enumerate(boxes):
            assert box.x1 < axes.bbox.x1 + 20 and box.x0 > axes.bbox.x0 - 5 and box.y1 < axes.bbox.y1 + 12
            assert not any(box.overlaps(other) for other in boxes[:index])
    if name == "hour":
        assert 4 < len(figure.axes[0].texts) < 20


def test_a_label_names_the_main_units():
    figure = drawn(outcome(intervals=[interval(2000.0)]))
    assert [text for text, _ in texts(figure.axes[0])] == ["positive 0.90 (AU 4+25+26)"]
    assert figure.get_suptitle() == "film: 1 expression"


def test_where_not_all_have_room_the_surest_have_labels():
    made = [interval(100.0 * n, confidence=0.5 + 0.04 * n) for n in range(9)]
    shown = [text for text, _ in texts(drawn(outcome(60.0, intervals=made)).axes[0])]
    assert len(shown) == timeline.LABEL_ROWS and {text[:13] for text in shown} == {"positive 0.82", "positive 0.78"}


def test_gaps_name_their_reason_on_their_face():
    gaps = [
        Gap(None, 1000.0, 3000.0, "damaged"),
        Gap(2, 5000.0, 8000.0, "turned away"),
        Gap(1, 9000.0, 9010.0, "blurred"),
    ]
    figure = drawn(outcome(tracks=(1, 2), gaps=gaps))
    assert [[text for text, _ in texts(axes)] for axes in figure.axes] == [["damaged"], ["damaged", "turned away"], []]


def test_no_peak_of_a_long_recording_is_lost():
    rng = np.random.default_rng(0)
    scores = [(1, score(500.0 + 100 * n, float(rng.uniform(0, 0.2)))) for n in range(36_000)]
    peaks = rng.choice(36_000, 23, replace=False)
    for peak in peaks:
        scores[peak] = (1, score(500.0 + 100 * peak, 0.9))
    time, rows = timeline.curve(scores, 1, 1200)
    assert len(time) == len(rows) <= 1201 and (np.diff(time) > 0).all()
    kept = {row.end_ms for row in rows if row.expression == 0.9}
    assert kept <= {500.0 + 100 * peak for peak in peaks} and len(kept) >= 21  # two may share a column
    np.testing.assert_allclose([row.end_ms / 1000 - 0.25 for row in rows], time)


def test_a_curve_is_broken_where_windows_do_not_touch():
    ends = [500.0, 600.0, 1100.0, 1601.0, 1700.0]
    time, rows = timeline.curve([(1, score(end)) for end in ends] + [(2, score(900.0))], 1, 1200)
    assert [row and row.end_ms for row in rows] == [500.0, 600.0, 1100.0, None, 1601.0, 1700.0]
    np.testing.assert_allclose(time, [0.25, 0.35, 0.85, 1.1005, 1.351, 1.45])
    assert timeline.curve([], 1, 7)[1] == []


def test_of_a_crowd_those_with_expressions_are_shown():
    made = outcome(tracks=range(9), intervals=[interval(900.0, track=8), interval(900.0, track=30)])
    assert timeline.shown_tracks(made) == [0, 1, 2, 3, 8, 30]
    assert timeline.shown_tracks(outcome(tracks=())) == []
    assert "3 more faces are not shown" in drawn(CASES["crowd"]).get_suptitle()
    assert timeline.last_ms(outcome(gaps=[Gap(None, 10_000.0, 12_500.0, "cut off")])) == 12_500
