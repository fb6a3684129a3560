"""Videos that the tests write for themselves, and what is none; how a file at fault is told of."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from stag_jax import media
from stag_jax.types import UserError

HEIGHT, WIDTH = 46, 62


def picture(f, height=HEIGHT, width=WIDTH, step=17):
    """Smooth, and different in every frame and corner; blue rises by `step` a frame."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4 % 256, y * 5 % 256, np.full((height, width), step * f % 256)], axis=-1).astype(np.uint8)


def write(path, frames, codec="ffv1", pixels="bgr0", rate=Fraction(50), times=None, matrix=None, shape=None, **options):
    """A video; `times` in milliseconds, `matrix` the nine 16.16 numbers of an MP4 display matrix."""
    container_options = {"movflags": options.pop("movflags")} if "movflags" in options else {}
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if shape:
            stream.codec_context.sample_aspect_ratio = shape
        for index, pixels_ in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels_, format="rgb24")
            if times is not None:
                stream.codec_context.time_base = frame.time_base = Fraction(1, 1000)
                frame.pts = times[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if matrix is not None:
        identity = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
        data = path.read_bytes()
        at = data.index(identity, data.index(b"tkhd"))
        path.write_bytes(data[:at] + struct.pack(">9i", *matrix) + data[at + 36 :])
    return path


def audio(path, cover=False):
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        if cover:
            image = container.add_stream("mjpeg", rate=1)
            image.height, image.width, image.pix_fmt = 48, 64, "yuvj420p"
            image.disposition = media.Disposition.attached_pic.value
            container.mux(image.encode(av.VideoFrame.from_ndarray(picture(0, 48, 64), format="rgb24")))
            container.mux(image.encode())
        for index in range(5):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 44100, index * 1024
            container.mux(sound.encode(frame))
        container.mux(sound.encode())


def bad_video(folder, name):
    path = folder / name
    if name.startswith("text"):
        path.write_text("not a video\n" * 2000)
    elif name == "empty.mp4":
        path.touch()
    elif name == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("no pictures here")
    elif name == "photo.png":
        Image.fromarray(picture(0)).save(path)
    elif name != "missing.mp4":
        audio(path, cover=name == "song.mp4")
    return path


def assert_one_line(read, path, reason, capfd):
    """Reading `path` is refused in one line that names it and says why, and nothing else is printed."""
    with pytest.raises(UserError, match=reason) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
