import csv

import cv2
import numpy as np
import pytest
from PIL import Image

from stag_jax.analysis import clip_reports
from stag_jax.face.tracking import Track
from stag_jax.motion import quality
from stag_jax.motion.quality import ClipReport


def report(number, **changes):
    values = dict.fromkeys(ClipReport._fields, 0) | {
        "id": f"corpus/s{number}/a_clip_with_quite_a_long_name_that_goes_on_and_on_and_on_{number}",
        "subject": "s",
        "reason": "",
        "fps": 100.0,
        "frames": 31,
        "apex": 13,
        "eyes_raw_px": 80.0,
        "peak_px": 0.66666,
        "annotated_onset": -1,
        "annotated_apex": 11,
        "annotated_offset": -1,
        "annotated_onset_ms": -1.0,
        "annotated_apex_ms": 110.0,
        "annotated_offset_ms": -1.0,
    }
    return ClipReport(**(values | changes))


def tile(level):
    picture = np.full((quality.TILE, 3 * quality.TILE, 3), level, np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def test_the_table_says_what_is_known(tmp_path):
    rows = [report(1), report(2, annotated_apex=-1, refused=2, reason="no face")]
    clip_reports.write_table(rows, tmp_path / "out" / "clips.csv")
    with (tmp_path / "out" / "clips.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["apex_error"] == "2" and first["peak_px"] == "0.667" and first["annotated_onset"] == ""
    assert first["doubts"] == "" and second["apex_error"] == second["annotated_apex"] == ""
    assert second["doubts"] == "2 frames refused: no face"
    np.testing.assert_array_equal(clip_reports.apex_errors(rows), [2])


@pytest.mark.parametrize("count", [1, 5, 57])
def test_every_clip_is_on_a_sheet(tmp_path, count):
    rows = [report(i) for i in range(count)]
    paths = clip_reports.write_sheets(rows, [tile(60)] * count, tmp_path)
    assert [path.name for path in paths] == [f"sheet_{i + 1:02d}.png" for i in range(-(-count // 56))]
    shown = 0
    for path in paths:
        dark = (np.abs(np.asarray(Image.open(path)).astype(int) - 60) < 5).all(axis=-1)
        shown += dark.sum() / (3 * quality.TILE**2)
    assert abs(shown - count) < 0.02 * count


def test_only_doubtful_clips_are_red(tmp_path):
    def red(row):
        (path,) = clip_reports.write_sheets([row], [tile(128)], tmp_path)
        picture = np.asarray(Image.open(path)).astype(int)
        return ((picture[..., 0] > 150) & (picture[..., 1] < 60)).sum()

    assert red(report(1)) == 0
    assert red(report(1, jump=0.5)) > 1000


def test_a_film_with_landmarks_and_refusals(tmp_path):
    f = 7
    points = np.full((f, 68, 2), 40, np.float32)
    points[3] = np.nan
    reasons = tuple("no face" if i == 3 else "" for i in range(f))
    track = Track(points, np.zeros((f, 4), int), np.ones(f, np.float32), np.zeros(f, np.float32), reasons)
    clip_reports.write_track_sheet(np.full((f, 61, 83, 3), 50, np.uint8), track, tmp_path / "film.png")
    picture = np.asarray(Image.open(tmp_path / "film.png")).astype(int)
    width = clip_reports.TRACK_TILE + clip_reports.GAP
    cells = [picture[: picture.shape[0] // 1, i * width : (i + 1) * width] for i in range(f)]
    green = [((cell[..., 1] > 200) & (cell[..., 0] < 50)).any() for cell in cells]
    red = [((cell[..., 0] > 150) & (cell[..., 1] < 60)).sum() > 300 for cell in cells]
    assert green == [i != 3 for i in range(f)] and red == [i == 3 for i in range(f)]
