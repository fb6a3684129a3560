"""Videos written here and then cut, turned or broken, and folders of pictures."""

import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from stag_jax import media
from stag_jax.types import UserError
from tests.films import HEIGHT, WIDTH, assert_one_line, bad_video, picture, write

MPEG4 = {"codec": "mpeg4", "pixels": "yuv420p", "bf": "2", "g": "5", "qmin": "1", "qmax": "2"}
KINDS = {
    "lossless.mkv": {},
    "lossless.avi": {},
    "b_frames.mp4": MPEG4,
    "faststart.mp4": {**MPEG4, "movflags": "faststart"},
    "b_frames.avi": MPEG4,
    "b_frames.mkv": MPEG4,
    "photos.avi": {"codec": "mjpeg", "pixels": "yuvj420p", "qmin": "1", "qmax": "2"},
}


@pytest.mark.parametrize("name", KINDS)
def test_a_video_is_its_frames(name, tmp_path, caplog):
    frames = np.stack([picture(f) for f in range(13)])
    clip = media.read_clip(write(tmp_path / name, frames, **KINDS[name]))
    assert clip.identity.id == clip.identity.subject == name.split(".")[0] and clip.fps == 50
    assert clip.frames.shape == frames.shape
    if name.startswith("lossless"):
        np.testing.assert_array_equal(clip.frames, frames)
    # Coarse colour hardly tells it from the truth, and each frame is nearest to its own.
    error = np.abs(clip.frames[:, None, ..., 2].astype(int) - frames[None, ..., 2]).mean(axis=(2, 3))
    assert (error.argmin(axis=1) == np.arange(13)).all() and np.diag(error).max() < 4
    assert caplog.text == ""
    assert media.read_clip(tmp_path / name, fps=200.5).fps == 200.5


@pytest.mark.parametrize("name", KINDS)
def test_a_cut_video_is_never_shortened_in_silence(name, tmp_path, capfd):
    rng = np.random.default_rng(0)
    frames = [picture(f) // 2 + rng.integers(0, 128, (HEIGHT, WIDTH, 3), np.uint8) for f in range(11)]
    whole = write(tmp_path / name, frames, **KINDS[name])
    data, truth = whole.read_bytes(), media.read_clip(whole).frames
    cut = tmp_path / f"cut_{name}"
    refused = []
    for part in [0.5, *np.linspace(0.02, 0.99, 29)]:
        cut.write_bytes(data[: int(len(data) * part)])
        try:
            # Where only an index at the end is lost, all frames are still there.
            np.testing.assert_array_equal(media.read_clip(cut).frames, truth)
        except UserError as error:
            assert str(cut) in str(error) and "\n" not in str(error)
            refused.append(part)
    assert 0.5 in refused and len(refused) > 20
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["faststart.mp4", "photos.avi"])
def test_a_cut_between_two_frames_is_counted(name, tmp_path):
    path = write(tmp_path / name, [picture(f) for f in range(13)], **KINDS[name])
    with av.open(str(path)) as container:
        fifth = list(container.demux(container.streams.video[0]))[4]
    data = path.read_bytes()
    path.write_bytes(data[: data.index(bytes(fifth)) + fifth.size])
    with pytest.raises(UserError, match=f"{name} is cut off: it holds 5 of the 13 frames that it declares"):
        media.read_clip(path)


def test_frames_that_a_decoder_leaves_out_are_missed(tmp_path):
    frames = [picture(f) for f in range(13)]
    whole = write(tmp_path / "whole.mkv", frames, codec="mpeg2video", pixels="yuv420p", g="5")
    path = tmp_path / "headless.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(source.streams.video[0]))[1:-1]:  # without the first key frame
            packet.stream = stream
            target.mux(packet)
    with pytest.raises(UserError, match=r"headless\.mkv is damaged: only 8 of its 12 frames can be decoded"):
        media.read_clip(path)


@pytest.mark.parametrize("name", ["faststart.mp4", "b_frames.mkv", "b_frames.avi", "photos.avi"])
def test_damage_inside_is_named_with_its_frame(name, tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(17)]
    path = write(tmp_path / name, frames, **KINDS[name])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        order = sorted(packet.pts for packet in packets)
        hit = [packet for packet in packets if packet.is_keyframe][-1]
    data = bytearray(path.read_bytes())
    start = data.index(bytes(hit))
    data[start + 99 : start + hit.size] = bytes(hit.size - 99)
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}.* frame {order.index(hit.pts)}\b"):
        media.read_clip(path)


TURNS = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]  # a phone held in four ways ...
TURNS += [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]  # ... and its front camera


@pytest.mark.parametrize("turn", TURNS)
def test_the_display_matrix_turns_and_mirrors(turn, tmp_path):
    a, b, c, d = turn
    corners = {(0, 0): (200, 30, 30), (1, 0): (30, 200, 30), (0, 1): (30, 30, 200), (1, 1): (180, 180, 30)}  # x, y
    stored = np.zeros((48, 64, 3), np.uint8)
    for (x, y), colour in corners.items():
        stored[24 * y : 24 * y + 24, 32 * x : 32 * x + 32] = colour
    matrix = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    read = media.read_clip(write(tmp_path / "phone.mp4", [stored] * 3, matrix=matrix, **MPEG4)).frames[1]
    assert read.shape == ((64, 48, 3) if b else (48, 64, 3))
    half = np.array(read.shape[:2]) // 2
    for (x, y), colour in corners.items():
        # The specification's row vector times matrix, for corners at -1 and 1.
        p, q = 2 * x - 1, 2 * y - 1
        shown_x, shown_y = a * p + c * q, b * p + d * q
        middle = half + half // 2 * np.array([shown_y, shown_x])
        np.testing.assert_allclose(read[tuple(middle)], colour, atol=12)


def test_pixels_are_made_square(tmp_path):
    frames = [picture(f, 48, 60) for f in range(3)]
    clip = media.read_clip(write(tmp_path / "dv.mp4", frames, shape=Fraction(16, 15), **MPEG4))
    assert clip.frames.shape == (3, 48, 64, 3)
    assert (
        np.abs(clip.frames[..., 1].astype(int) - np.stack(frames)[:, :, :1, 1]).mean() < 8
    )  # rows stay where they are


def test_frames_that_an_edit_list_hides_are_no_loss(tmp_path):
    path = write(tmp_path / "trimmed.mp4", [picture(f) for f in range(13)], **MPEG4)
    whole, data = media.read_clip(path), path.read_bytes()
    at = data.index(b"elst") + 16  # media time of the first edit, in ticks
    (first,) = struct.unpack(">i", data[at : at + 4])
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
    path.write_bytes(data[:at] + struct.pack(">i", first + int(4 / (50 * tick))) + data[at + 4 :])
    clip = media.read_clip(path)
    np.testing.assert_array_equal(clip.frames, whole.frames[4:])
    assert clip.fps == pytest.approx(50)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_uneven_times_are_taken_as_even_with_a_warning(suffix, tmp_path, caplog):
    frames = [picture(f) for f in range(7)]
    settings = MPEG4 if suffix == "mp4" else {}
    even = [0, 17, 33, 50, 67, 83, 100]  # 60 a second in whole milliseconds
    clip = media.read_clip(write(tmp_path / f"even.{suffix}", frames, times=even, **settings))
    assert clip.fps == pytest.approx(60, rel=1e-3) and caplog.text == ""
    if suffix == "mkv":  # whose clock ticks once a millisecond, a fifth of a frame here
        media.read_clip(write(tmp_path / "fast.mkv", frames, times=[0, 4, 8, 13, 17, 21, 25]))
        assert caplog.text == ""
    dropped = [0, 17, 33, 67, 83, 100, 117]
    clip = media.read_clip(write(tmp_path / f"uneven.{suffix}", frames, times=dropped, **settings))
    assert clip.fps == pytest.approx(6 / 0.117, rel=media.AGREEMENT)
    assert f"uneven.{suffix}: frames are 0.82 to 1.74 mean distances apart" in caplog.text


def test_one_frame_is_a_clip(tmp_path):
    for name in ("one.mkv", "one.avi", "one.mp4"):
        clip = media.read_clip(write(tmp_path / name, [picture(0)], **(MPEG4 if name == "one.mp4" else {})))
        assert clip.frames.shape == (1, HEIGHT, WIDTH, 3) and clip.fps == 50


@pytest.mark.parametrize(
    ("name", "codec", "pixels"), [("raw.m2v", "mpeg2video", "yuv420p"), ("raw.mjpeg", "mjpeg", "yuvj420p")]
)
def test_a_stream_without_times_needs_a_rate(name, codec, pixels, tmp_path):
    path = write(tmp_path / name, [picture(f) for f in range(5)], codec=codec, pixels=pixels)
    with pytest.raises(UserError, match=rf"{name} does not say its frame rate; give it with --fps"):
        media.read_clip(path)
    assert media.read_clip(path, fps=120.0).fps == 120


def test_names_that_ffmpeg_would_take_for_something_else(tmp_path, monkeypatch):
    path = write(tmp_path / "12:30:00 %03d.mkv", [picture(f) for f in range(3)])
    assert len(media.read_clip(path).frames) == 3
    monkeypatch.chdir(tmp_path)
    assert len(media.read_clip(Path(path.name)).frames) == 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.mp4", "is not a file"),
        ("empty.mp4", "is empty"),
        ("text.mp4", "cannot be read as a video"),
        ("text.txt", "cannot be read as a video: it is text"),
        ("photo.png", "is a single picture"),
        ("speech.m4a", "has no video stream"),
        ("song.mp4", "has no video stream"),
        ("folder", "is a folder without pictures"),
    ],
)
def test_what_is_no_clip_is_one_line(name, reason, tmp_path, capfd):
    assert_one_line(lambda path: media.read_clip(path, fps=25.0), bad_video(tmp_path, name), reason, capfd)


@pytest.mark.parametrize("fps", [0.0, -5.0, float("nan"), float("inf")])
def test_an_impossible_rate(fps, tmp_path):
    with pytest.raises(UserError, match="--fps must be a number above 0"):
        media.read_clip(tmp_path, fps=fps)


def test_a_film_does_not_fill_the_memory(tmp_path, monkeypatch):
    film = write(tmp_path / "film.avi", [picture(f) for f in range(12)])
    assert len(media.read_clip(film, max_frames=12).frames) == 12
    with pytest.raises(UserError, match=r"film\.avi is longer than a clip: 12 frames; .* 11 are read"):
        media.read_clip(film, max_frames=11)
    stream = write(tmp_path / "film.mkv", [picture(f) for f in range(12)])  # declares no number of frames
    monkeypatch.setattr(media, "MAX_BYTES", HEIGHT * WIDTH * 3 * 5 + 1)
    with pytest.raises(UserError, match=rf"film\.mkv .*: more than 5 frames; of {WIDTH} x {HEIGHT} pixels 5 are read"):
        media.read_clip(stream)


def pictures(folder, names, size=(9, 13)):
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(picture(index, *size)).save(folder / name)
    return folder


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path, caplog):
    folder = pictures(tmp_path / "EP02.01f", ["img9.png", "img10.PNG", "img011.bmp", "img8.png"])
    (folder / "Thumbs.db").write_text("x")
    (folder / "._img9.png").write_text("left by a file manager")
    clip = media.read_clip(folder, fps=200.0)
    assert clip.identity.id == "EP02.01f" and clip.fps == 200 and caplog.text == ""
    np.testing.assert_array_equal(clip.frames[:, 0, 0, 2], [3 * 17, 0, 17, 2 * 17])
    with pytest.raises(UserError, match=r"EP02\.01f does not say its frame rate; give it with --fps"):
        media.read_clip(folder)
    (folder / "img10.PNG").unlink()
    media.read_clip(folder, fps=200.0)
    assert "frames are 0.67 to 1.33 mean distances apart" in caplog.text


def test_a_folder_names_the_picture_at_fault(tmp_path):
    def complaint(name, names, odd=None):
        folder = pictures(tmp_path / name, names)
        if odd:
            pictures(folder, [odd], size=(9, 11))
        with pytest.raises(UserError) as caught:
            media.read_clip(folder, fps=50.0)
        return str(caught.value)

    assert complaint("a", ["1.png", "cover.png"]).endswith("cover.png: no frame number at the end of the name")
    assert complaint("b", ["1.png", "01.png"]).endswith("1.png has the same frame number as 01.png")
    assert complaint("c", ["1.png", "2.png"], "3.png").endswith("3.png is 11 x 9 pixels, but the first is 13 x 9")
    (tmp_path / "a" / "cover.png").rename(tmp_path / "a" / "2.png")
    (tmp_path / "a" / "2.png").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"a/2\.png cannot be read as a picture"):
        media.read_clip(tmp_path / "a", fps=50.0)
    with pytest.raises(UserError, match=r"longer than a clip: 3 frames; .* 2 are read"):
        media.read_clip(pictures(tmp_path / "long", ["1.png", "2.png", "3.png"]), fps=50.0, max_frames=2)


REAL = os.environ.get("STAG_TEST_MEDIA")


@pytest.mark.skipif(not REAL, reason="STAG_TEST_MEDIA names no folder of real recordings")
def test_real_recordings(caplog):
    assert media.read_image(Path(REAL, "multi_face.jpg")).ndim == 3
    for name, frames, fps in (("WolfgangLanger_Pexels.mp4", 472, 24000 / 1001), ("no_face.mp4", 95, 24)):
        clip = media.read_clip(Path(REAL, name))
        assert len(clip.frames) == frames and clip.fps == pytest.approx(fps, rel=1e-6)
        capture = cv2.VideoCapture(str(Path(REAL, name)))
        there, first = capture.read()
        capture.release()
        assert there and np.abs(clip.frames[0].astype(int) - first[..., ::-1]).mean() < 1
    assert caplog.text == ""
