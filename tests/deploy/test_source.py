"""Recordings written here, then cut, turned, broken or stamped backwards, and read frame by frame."""

import functools
import struct
import threading
import time

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from stag_jax.deploy import source
from stag_jax.types import UserError
from tests import films
from tests.films import HEIGHT, WIDTH, assert_one_line, bad_video, write

MPEG4 = {
    "codec": "mpeg4",
    "pixels": "yuv420p",
    "bf": "2",
    "g": "5",
    "qmin": "1",
    "qmax": "2",
    "sc_threshold": "1000000000",
}


picture = functools.partial(films.picture, step=11)


def noise(f):
    return np.random.default_rng(f).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)


def packets(path):
    """What is in the file: bytes, time stamps, key frames; in the order of decoding."""
    with av.open(str(path)) as container:
        found = [each for each in container.demux(container.streams.video[0]) if each.size]
        return [(bytes(each), each.pts, each.is_keyframe) for each in found]


def read(path, **options):
    return list(source.open_path(path, **options).frames())


def times(frames):
    return [frame.time_ms for frame in frames]


def problems(frames):
    return [frame.problem for frame in frames]


@pytest.mark.parametrize("name", ["film.mkv", "film.avi", "film.mp4", "b.avi", "b.mkv"])
def test_every_frame_comes_at_its_time(name, tmp_path):
    settings = {} if name in ("film.mkv", "film.avi") else MPEG4
    found = source.open_video(write(tmp_path / name, [picture(f) for f in range(13)], **settings))
    assert (found.name, found.fps, found.size) == (name.split(".")[0], 50, (HEIGHT, WIDTH))
    assert found.count == (None if name.endswith("mkv") else 13)
    for _ in range(2):  # from the start each time
        frames = list(found.frames())
        np.testing.assert_allclose(times(frames), 20 * np.arange(13), atol=1e-6)
        assert set(problems(frames)) == {""}
        assert [round(frame.pixels[..., 2].mean() / 11) for frame in frames] == list(range(13))
    np.testing.assert_allclose(times(source.open_video(tmp_path / name, fps=7.0).frames()), np.arange(13) / 0.007)


def test_uneven_times_are_kept(tmp_path):
    stamps = [1000, 1017, 1033, 1134, 1135, 1301, 2503]
    for name, settings in (("film.mkv", {}), ("film.mp4", MPEG4)):
        frames = read(write(tmp_path / name, [picture(f) for f in range(7)], times=stamps, **settings))
        np.testing.assert_allclose(times(frames), np.array(stamps) - 1000, atol=0.51)
        assert set(problems(frames)) == {""}


def test_backwards_times_are_passed_on(tmp_path):
    path = write(tmp_path / "film.mkv", [picture(f) for f in range(7)])
    data, blocks = bytearray(path.read_bytes()), packets(path)
    at = data.index(blocks[4][0]) - 3  # a block's time: 16 bits, then flags
    assert struct.unpack(">h", data[at : at + 2]) == (80,)
    data[at : at + 2] = struct.pack(">h", 30)
    path.write_bytes(data)
    frames = read(path)
    assert times(frames) == [0, 20, 40, 60, 30, 100, 120] and set(problems(frames)) == {""}
    assert [round(frame.pixels[..., 2].mean() / 11) for frame in frames] == list(range(7))


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi"])
def test_damage_in_the_middle_is_a_gap(name, tmp_path):
    path = write(
        tmp_path / name, [noise(f) for f in range(23)], **MPEG4, **{"movflags": "faststart"} if "mp4" in name else {}
    )
    whole, data = read(path), bytearray(path.read_bytes())
    hit = [content for content, _, key in packets(path) if key][2]
    start = data.index(hit)
    data[start + 99 : start + len(hit)] = bytes(len(hit) - 99)
    path.write_bytes(data)
    frames = read(path)
    assert len(frames) == 23 and frames[-1].problem == ""
    bad = [f for f, frame in enumerate(frames) if frame.pixels is None]
    assert bad == list(range(bad[0], bad[-1] + 1)) and 5 < bad[0] < 11 and 10 <= bad[-1] < 16
    assert all(frames[f].problem for f in bad)
    np.testing.assert_allclose(times(frames), times(whole), atol=1e-6 if name != "film.avi" else 61)
    for frame, truth in zip(frames, whole, strict=True):
        assert frame.pixels is None or np.array_equal(frame.pixels, truth.pixels)


def test_a_damaged_frame_of_a_long_group_heals_in_time(tmp_path):
    codec = {**MPEG4, "g": "300", "bf": "0"}
    path = write(tmp_path / "film.mp4", [noise(f % 7) for f in range(83)], **codec)
    data, hit = bytearray(path.read_bytes()), packets(path)[11][0]
    start = data.index(hit)
    data[start + 99 : start + len(hit)] = bytes(len(hit) - 99)
    path.write_bytes(data)
    frames = read(path)
    bad = [f for f, frame in enumerate(frames) if frame.pixels is None]
    assert bad == list(range(11, 11 + 51)) and len(frames) == 83
    assert "damaged" in frames[11].problem and frames[12].problem == "built on a damaged frame"


def test_lost_frames_are_named(tmp_path):
    whole = write(tmp_path / "whole.mkv", [picture(f) for f in range(13)], codec="mpeg2video", pixels="yuv420p", g="5")
    with av.open(str(whole)) as one, av.open(str(tmp_path / "headless.mkv"), "w") as other:
        stream = other.add_stream_from_template(one.streams.video[0])
        for packet in list(one.demux(one.streams.video[0]))[1:-1]:  # without the first key frame
            packet.stream = stream
            other.mux(packet)
    frames = read(tmp_path / "headless.mkv")
    assert problems(frames) == [source.LOST] * 4 + [""] * 8
    np.testing.assert_allclose(times(frames), 20 * np.arange(12), atol=1)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "photos.avi"])
def test_a_cut_file_ends_with_a_word(name, tmp_path, capfd):
    settings = {**MPEG4, "movflags": "faststart"} if name == "film.mp4" else MPEG4
    if name == "photos.avi":
        settings = {"codec": "mjpeg", "pixels": "yuvj420p"}
    path = write(tmp_path / name, [noise(f) for f in range(17)], **settings)
    truth = read(path)
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    frames = read(path)
    assert frames[-1].pixels is None and "cut off" in frames[-1].problem and "\n" not in frames[-1].problem
    good = [frame for frame in frames if frame.pixels is not None]
    assert 5 < len(good) < 14
    for frame, whole in zip(good, truth, strict=False):
        np.testing.assert_array_equal(frame.pixels, whole.pixels)
    assert capfd.readouterr() == ("", "")


def test_a_film_is_turned_and_has_its_size(tmp_path):
    path = write(tmp_path / "phone.mp4", [picture(f, 48, 64) for f in range(3)], **MPEG4)
    data = path.read_bytes()
    at = data.index(struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    turned = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + turned + data[at + 36 :])
    found = source.open_video(path)
    assert found.size == (64, 48)
    first = next(found.frames()).pixels
    # Upright, red grows downwards, and green to the left.
    assert first[60, 24, 0] > first[4, 24, 0] + 150 and first[32, 4, 1] > first[32, 44, 1] + 100


def test_bare_streams_need_a_rate(tmp_path):
    path = write(tmp_path / "film.m2v", [picture(f) for f in range(5)], codec="mpeg2video", pixels="yuv420p")
    with pytest.raises(UserError, match=r"film\.m2v does not say its frame rate; give it with --fps"):
        source.open_video(path)
    np.testing.assert_allclose(times(read(path, fps=25.0)), 40 * np.arange(5))


def test_sizes_may_change(tmp_path):
    path = tmp_path / "film.mjpeg"
    parts = [
        cv2.imencode(".jpg", picture(f, *size))[1].tobytes() for f, size in enumerate([(46, 62), (46, 62), (30, 40)])
    ]
    path.write_bytes(b"".join(parts))
    assert [frame.pixels.shape for frame in read(path, fps=25.0)] == [(46, 62, 3), (46, 62, 3), (30, 40, 3)]


def test_8k_goes_through_frame_by_frame(tmp_path):
    big = np.zeros((4320, 7680, 3), np.uint8)
    path = write(tmp_path / "big.avi", [big, big], codec="mjpeg", pixels="yuvj420p")
    found = source.open_video(path)
    assert found.size == (4320, 7680)
    assert [frame.pixels.shape for frame in source.ahead(found.frames(), 1)] == [big.shape] * 2


def no_video(folder, name):
    if name != "headless.mkv":
        return bad_video(folder, name)
    path = write(folder / name, [noise(f) for f in range(3)], **MPEG4)
    data = bytearray(path.read_bytes())
    for content, _, _ in packets(path):
        data[data.index(content) : data.index(content) + len(content)] = bytes(len(content))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.mp4", "is not a file"),
        ("empty.mp4", "is empty"),
        ("text.mp4", "cannot be read as a video"),
        ("text.txt", "cannot be read as a video: it is text"),
        ("photo.png", "is a single picture"),
        ("speech.m4a", "has no video stream"),
        ("headless.mkv", "has no frame that can be decoded"),
    ],
)
def test_what_is_no_video_is_one_line(name, reason, tmp_path, capfd):
    path = no_video(tmp_path, name)
    assert_one_line(source.open_video, path, reason, capfd)
    with pytest.raises(UserError, match="--fps must be a number above 0"):
        source.open_video(path, fps=-1.0)


def test_pictures_have_the_time_of_their_number(tmp_path):
    for number in (8, 9, 10, 13):
        Image.fromarray(picture(number)).save(tmp_path / f"img{number}.png")
    (tmp_path / "img10.png").write_bytes(b"torn")
    found = source.open_path(tmp_path, fps=50.0)
    assert (found.count, found.fps, found.size) == (4, 50.0, (HEIGHT, WIDTH))
    frames = list(found.frames())
    assert times(frames) == [0, 20, 40, 100]
    assert [frame.pixels is None for frame in frames] == [False, False, True, False]
    assert "img10.png cannot be read as a picture" in frames[2].problem
    with pytest.raises(UserError, match="does not say its frame rate; give it with --fps"):
        source.open_folder(tmp_path, None)
    for file in tmp_path.iterdir():
        file.write_bytes(b"torn")
    with pytest.raises(UserError, match="has no frame that can be decoded"):
        source.open_folder(tmp_path, 50.0)


def test_what_is_meant_is_found(tmp_path):
    for name in ("films", "faces", "bare"):
        (tmp_path / name).mkdir()
    for name in ("b.mp4", "a.MKV", "notes.txt", ".hidden.mp4", "thumb1.png"):
        (tmp_path / "films" / name).touch()
    (tmp_path / "faces" / "img1.png").touch()

    def names(video):
        return [path.relative_to(tmp_path).as_posix() for path in source.find(str(tmp_path / video))]

    assert names("films") == names("films/*") == ["films/a.MKV", "films/b.mp4"]
    assert names("films/b.mp4") == names("films/b*") == names("**/*.mp4") == ["films/b.mp4"]
    assert names("faces") == ["faces"] and names("f*s") == ["faces", "films/a.MKV", "films/b.mp4"]
    assert names("films/*.txt") == ["films/notes.txt"]
    (tmp_path / "films" / "c[1].avi").touch()
    assert names("films/c[1].avi") == ["films/c[1].avi"]
    for video, reason in (("bare", "holds neither videos nor pictures"), ("none*.mp4", "is or matches neither")):
        with pytest.raises(UserError, match=reason):
            names(video)
    videos = ("camera:0", "camera:13", "camera:", "camera:x", "camera")
    assert [source.camera_index(video) for video in videos] == [0, 13, None, None, None]


class Camera:
    """Gives three pictures, then nothing."""

    def __init__(self, there=True):
        self.there, self.left, self.released = there, 3, False

    def isOpened(self):
        return self.there

    def get(self, key):
        return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FRAME_HEIGHT: 46, cv2.CAP_PROP_FRAME_WIDTH: 62}[key]

    def set(self, key, value):
        self.asked = (key, value)

    def grab(self):
        time.sleep(0.003)
        self.left -= 1
        return self.left >= 0

    def retrieve(self):
        return True, picture(5)[..., ::-1]

    def release(self):
        self.released = True


def test_a_camera_has_the_time_of_the_clock(monkeypatch):
    camera = Camera()
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: camera)
    found = source.open_camera(3, fps=25.0)
    assert (found.name, found.count, found.fps, found.size) == ("camera3", None, 25.0, (46, 62))
    assert camera.asked == (cv2.CAP_PROP_FPS, 25.0)
    frames = list(found.frames())
    assert problems(frames) == ["", "", "", "camera:3 delivers no more"] and camera.released
    assert times(frames)[0] == 0 and np.diff(times(frames)).min() >= 3
    np.testing.assert_array_equal(frames[0].pixels, picture(5))


def test_no_camera_is_one_line(capfd):
    with pytest.raises(UserError, match="camera:97 cannot be opened"):
        source.open_camera(97)
    assert capfd.readouterr() == ("", "")


def test_ahead_gives_the_same_and_no_more_than_it_may():
    made = []

    def items():
        for index in range(17):
            made.append(index)
            yield index

    taken = []
    for item in source.ahead(items(), 3):
        time.sleep(0.002)
        assert len(made) <= len(taken) + 3 + 2  # those ready, the one in hand, and the next one, waiting
        taken.append(item)
    assert taken == list(range(17)) and list(source.ahead([], 3)) == []


def test_ahead_raises_what_went_wrong_after_what_went_well():
    def items():
        yield from (1, 2)
        raise UserError("film.mp4 is gone")

    taken = source.ahead(items())
    assert [next(taken), next(taken)] == [1, 2]
    with pytest.raises(UserError, match=r"film\.mp4 is gone"):
        next(taken)
    with pytest.raises(TypeError):
        next(source.ahead(7))


@pytest.mark.parametrize("how", ["close", "drop", "full"])
def test_ahead_closed_early_leaves_no_thread(how):
    closed = []

    def items():
        try:
            yield from range(10**9)
        finally:
            closed.append(threading.current_thread().name)

    taken = source.ahead(items(), 2)
    assert next(taken) == 0
    if how == "full":
        time.sleep(0.02)  # it waits for room
    if how == "drop":
        del taken
    else:
        taken.close()
    assert closed == ["ahead"] and "ahead" not in [thread.name for thread in threading.enumerate()]
