"""What is drawn lies where it should, at every size; a film keeps its times, and is whole or not there."""

import resource
import signal
from fractions import Fraction

import av
import numpy as np
import pytest

from stag_jax.deploy import film, overlay
from stag_jax.deploy.results import FaceResult, Interval, Result, Score
from stag_jax.face.landmarks import Box
from stag_jax.types import UserError

CLASSES, UNITS = ("negative", "positive", "surprise"), (1, 4, 12, 25, 26)
GREY = 90


def score(end=1000.0, expression=0.8, leading=1, au=0.5):
    probability = np.full(3, 0.1)
    probability[leading] = 0.8
    return Score(end - 500, end, expression, probability, np.full(5, au), end - 400, end - 200, end, 1.1, 0.4)


def face(track=1, box=(100, 60, 220, 180), refused="", said=None, flow=None, transform=None):
    return FaceResult(track, Box(*box), np.full((68, 2), np.nan), refused, said, flow, transform)


def frame(height=240, width=320):
    return np.full((height, width, 3), GREY, np.uint8)


def drawn(faces=(), now=1000.0, history=(), intervals=(), pixels=None, dropped=""):
    pixels = frame() if pixels is None else pixels
    before = pixels.copy()
    picture = overlay.draw(pixels, Result(now, tuple(faces), dropped), CLASSES, UNITS, history, intervals)
    np.testing.assert_array_equal(pixels, before)  # the frame itself is left alone
    return picture


def is_colour(picture, colour):
    return (np.abs(picture.astype(int) - colour) < 3).all(axis=-1)


SIZES = [(240, 320), (480, 640), (1080, 1920), (1920, 1080), (4320, 7680), (67, 101), (1300, 130), (131, 1301)]


@pytest.mark.parametrize("size", SIZES)
def test_text_can_be_read_at_every_size(size):
    place = overlay.layout(*size)
    assert place.width + place.panel <= overlay.LONGEST and place.height <= overlay.LONGEST
    assert 13 <= place.line <= 20 and min(place.width, place.height) > 100 and place.panel >= 150
    assert place.width / place.height == pytest.approx(size[1] / size[0], rel=0.02)
    said = score()
    height, width = size
    box = (width // 4, height // 4, width // 2, height // 2)
    picture = drawn([face(box=box, said=said)], history=[(1, said)], pixels=frame(*size))
    assert picture.shape == (place.height + place.strip, place.width + place.panel, 3)
    inside = picture[place.height // 4 + 20 : place.height // 2 - 4, place.width // 4 + 20 : place.width // 2 - 4]
    assert (inside == GREY).all()


def test_a_box_is_where_the_face_is():
    colour = overlay.track_colour(1)
    picture = drawn([face()])[:240, :320]
    rows, columns = np.nonzero(is_colour(picture, colour)[60:, :])
    assert abs(rows.min()) <= 1 and abs(rows.max() + 60 - 180) <= 1
    assert abs(columns.min() - 100) <= 1 and abs(columns.max() - 220) <= 1
    tag = is_colour(picture, colour)[60 - 15 : 60, 100:130]
    assert tag.mean() > 0.3  # its number stands above
    assert overlay.track_colour(2) != colour == overlay.track_colour(1 + len(overlay.TRACKS))
    above = drawn([face(box=(-50, -40, 400, 300), refused="too near " * 30)])
    assert above.shape == drawn().shape  # faces that leave the frame are no trouble


def test_what_is_refused_is_said():
    plain, refused = drawn([face()]), drawn([face(refused="turned away")])
    changed = np.nonzero((plain[:240, :320] != refused[:240, :320]).any(axis=-1))
    assert changed[0].min() >= 179 and changed[0].max() <= 200 and changed[1].min() >= 100
    dropped = drawn([face()], dropped="two frames are the same")
    changed = np.nonzero((plain != dropped).any(axis=-1))
    assert changed[0].max() < 20 and changed[1].max() < 320


def test_bars_are_as_long_as_they_are_large():
    place = overlay.layout(240, 320)

    def filled(au):
        panel = drawn([face(said=score(au=au))])[:240, 320:]
        row = panel[int(4.5 * place.line)]  # the first unit, after the face and three emotions
        return int(is_colour(row[None], overlay.track_colour(1)).sum())

    whole = filled(1.0)
    assert whole > 40 and filled(0.0) == filled(np.nan) == 0
    assert filled(0.5) == pytest.approx(whole / 2, abs=1) and filled(0.25) == pytest.approx(whole / 4, abs=1)


def test_a_crowd_has_room():
    said = score()
    crowd = [face(n, (10 * n, 20, 10 * n + 9, 29), said=said) for n in range(31)]
    assert drawn(crowd, history=[(n, said) for n in range(31)]).shape == drawn().shape


def test_arrows_are_carried_back_into_the_frame():
    flow = np.zeros((97, 89, 2), np.float32)
    flow[40:56, 30:46] = (2.0, -1.0)
    flow[:9] = np.nan
    turn = np.deg2rad(20)
    linear = 0.7 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    transform = np.concatenate([linear, [[-30.0], [11.0]]], axis=1)
    starts, ends = overlay.arrows(flow, transform)
    assert 4 < len(starts) < 16
    there = starts @ linear.T + transform[:, 2]
    assert (there > [29, 39]).all() and (there < [46, 56]).all()
    np.testing.assert_allclose(np.rint(there), there, atol=1e-9)  # pixels of the canonical face
    np.testing.assert_allclose((ends - starts) @ linear.T / overlay.GAIN, np.tile([2.0, -1.0], (len(starts), 1)))
    assert len(overlay.arrows(np.zeros((97, 89, 2), np.float32), transform)[0]) == 0
    still = drawn([face()])
    moved = drawn([face(flow=flow, transform=transform)])
    assert (still != moved).any(axis=-1).sum() > 20


def test_the_strip_shows_the_last_seconds_only():
    recent = [(1, score(t, 0.5)) for t in np.arange(60_000.0, 65_001, 100)]
    old = [(1, score(t, 0.9, leading=2)) for t in np.arange(0.0, 59_000, 100)]
    alone, after = (drawn([face()], 65_000.0, history) for history in (recent, old + recent))
    np.testing.assert_array_equal(alone, after)
    place = overlay.layout(240, 320)
    strip = alone[240:]
    lit = is_colour(strip, overlay.track_colour(1))[:, place.line * 2 : -place.line * 8]
    rows = np.nonzero(lit.sum(axis=1) > 0.8 * lit.shape[1])[0]
    assert len(rows) <= 2  # level, since the score is
    lane = np.array(overlay.GRID) + 0.5 * (np.array(overlay.emotion_colour(1)) - overlay.GRID)
    assert is_colour(strip, lane.astype(int)).sum() > 100
    flagged = drawn(
        [face()], 65_000.0, recent, [Interval(1, 62_000.0, 62_500.0, 63_000.0, "positive", 0.9, *[np.ones(3)] * 2)]
    )
    changed = np.nonzero((flagged != alone).any(axis=-1))
    assert changed[0].min() >= 240 and changed[0].max() < 240 + 2 * place.line


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream, [(each.time, each.to_ndarray(format="rgb24")) for each in container.decode(stream)]


@pytest.mark.parametrize("codec", film.CODECS)
def test_a_film_keeps_its_times(codec, tmp_path, monkeypatch):
    if codec not in av.codecs_available:
        pytest.skip(f"no {codec}")
    monkeypatch.setattr(film, "CODECS", (codec,))
    times = [0.0, 16.7, 33.4, 100.0, 100.2, 99.0, 140.0, 2140.0]
    with film.Film(tmp_path / "deep" / "film.mp4") as made:
        for index, now in enumerate(times):
            made.add(np.full((47, 63, 3), 30 * index, np.uint8), now)
        made.add(np.full((90, 120, 3), 200, np.uint8), 2160.0)
        assert not (tmp_path / "deep" / "film.mp4").exists()
    stream, frames = read(tmp_path / "deep" / "film.mp4")
    assert (stream.height, stream.width, stream.codec_context.pix_fmt) == (48, 64, "yuv420p")
    np.testing.assert_allclose([now for now, _ in frames], [0, 0.017, 0.033, 0.1, 0.14, 2.14, 2.16], atol=1e-6)
    levels = [pixels.mean() for _, pixels in frames]
    np.testing.assert_allclose(levels, [0, 30, 60, 90, 180, 210, 200], atol=6)
    assert [each.name for each in (tmp_path / "deep").iterdir()] == ["film.mp4"]


def test_an_abandoned_film_is_not_there(tmp_path):
    with pytest.raises(KeyboardInterrupt), film.Film(tmp_path / "film.mp4") as made:
        made.add(frame(), 0.0)
        raise KeyboardInterrupt
    with (
        pytest.raises(UserError, match=r"film\.mp4 is not written: there is no frame"),
        film.Film(tmp_path / "film.mp4"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/film\.mp4 cannot be written"), film.Film(tmp_path / "file" / "film.mp4"):
        pass


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (240, 320, 3), np.uint8) for _ in range(41)]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, limits[1]))
        with pytest.raises(UserError, match=r"film\.mp4 cannot be written: ") as caught:
            with film.Film(tmp_path / "film.mp4") as made:
                for index, each in enumerate(frames):
                    made.add(each, 40.0 * index)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_a_drawn_film_can_be_played(tmp_path):
    with film.Film(tmp_path / "film.mp4") as made:
        for index in range(7):
            made.add(drawn([face(said=score(40.0 * index))], 40.0 * index), 40.0 * index)
    stream, frames = read(tmp_path / "film.mp4")
    assert len(frames) == 7 and stream.average_rate == pytest.approx(Fraction(25), rel=0.2)
    truth = drawn([face(said=score(120.0))], 120.0)
    height, width = truth.shape[:2]
    assert np.abs(frames[3][1][:height, :width].astype(int) - truth).mean() < 4
