"""Write a video file frame by frame, each at its own time; in parts, if the work may be interrupted and resumed."""

import contextlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from stag_jax.files import write_atomically
from stag_jax.types import UserError

CODECS = ("libx264", "mpeg4")  # the first available one is used
FORMATS = {".mp4": "mp4", ".mkv": "matroska"}  # Matroska keeps timestamps as they are, whatever the first one is
EVEN = 2  # sides must be even: 4:2:0 has one colour sample per two pixels
TICK = Fraction(1, 1000)  # seconds


class Place(NamedTuple):
    """The size and the last timestamp of a film, which its next part needs."""

    height: int
    width: int
    last: int  # time of the last frame, ticks


class Film:
    """A video file (MP4 or Matroska) that is written frame by frame, each at its own time.

    A context manager: the file gets its name at the end of the block; after an exception there is no file. The first
    frame sets the size, padded to even sides by repeating its border; frames of another size are scaled to it. A part
    of a film continues from `place`; it may have no frames, and is then an empty file.

    Raises (from every method):
      UserError: the file cannot be written, or the disk is full; names the file.
    """

    def __init__(self, path: Path, *, part: bool = False, place: Place | None = None):
        """Prepare a film at `path`, or a part of one."""
        self.path, self.part, self.place = path, part, place
        self._stack = contextlib.ExitStack()
        self._temporary: Path | None = None
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None

    def __enter__(self) -> "Film":
        with self._told():
            self._temporary = self._stack.enter_context(write_atomically(self.path))
        return self

    def add(self, pixels: UInt8[np.ndarray, "y x 3"], time_ms: float) -> None:
        """Add the next frame, RGB. It is skipped if its time, in whole ms, is not after the last frame's."""
        stamp = round(time_ms)
        if self.place is not None and stamp <= self.place.last:
            return
        if self.place is None:
            height, width = pixels.shape[:2]
            self.place = Place(-(-height // EVEN) * EVEN, -(-width // EVEN) * EVEN, stamp)
        height, width, _ = self.place
        with self._told():
            if self._stream is None:
                self._begin(height, width)
            below, right = height - pixels.shape[0], width - pixels.shape[1]
            if 0 <= below < EVEN and 0 <= right < EVEN:
                pixels = cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_REPLICATE)
            else:
                pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = stamp, TICK
            self._container.mux(self._stream.encode(frame))
        self.place = self.place._replace(last=stamp)

    def _begin(self, height: int, width: int) -> None:
        codec = next(name for name in CODECS if name in av.codecs_available)
        options = {"preset": "veryfast", "crf": "21"} if codec == "libx264" else {"qmin": "2", "qmax": "6"}
        # Parts can be concatenated only without B-frames, which are predicted from later frames.
        options |= {"g": "50", "bf": "0"}
        self._container = av.open(str(self._temporary.absolute()), "w", format=FORMATS[self.path.suffix])
        self._stream = self._container.add_stream(codec, rate=25, options=options)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = TICK

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._discard()
            self._stack.__exit__(kind, error, trace)
            return
        with self._told(), self._stack:
            if self._container is None:
                if self.part:
                    self._temporary.touch()
                    return
                raise _no_frame(self.path)
            try:
                self._container.mux(self._stream.encode())
                self._container.close()
            except BaseException:
                self._discard()
                raise

    def _discard(self) -> None:
        # Errors while closing are ignored: the original error is already being raised.
        with contextlib.suppress(av.FFmpegError, OSError):
            if self._container is not None:
                self._container.close()

    def _told(self) -> contextlib.AbstractContextManager[None]:
        return _one_line(self.path)


def join(parts: Sequence[Path], path: Path) -> None:
    """Concatenate the parts of a film into one MP4 file, without encoding again.

    Raises:
      UserError: the parts have no frame, or the file cannot be written; names the file.
    """
    with _one_line(path), write_atomically(path) as temporary:
        filled = [part for part in parts if part.stat().st_size]
        if not filled:
            raise _no_frame(path)
        with av.open(str(temporary.absolute()), "w", format="mp4") as whole:
            stream = None
            for part in filled:
                with av.open(str(part.absolute())) as container:
                    (source,) = container.streams.video
                    stream = stream or whole.add_stream_from_template(source)
                    for packet in container.demux(source):
                        if packet.dts is not None:  # the last one is empty
                            packet.stream = stream
                            whole.mux(packet)


def _no_frame(path: Path) -> UserError:
    return UserError(f"{path} is not written: there is no frame")


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn errors of FFmpeg and the disk into a UserError that names the file."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
