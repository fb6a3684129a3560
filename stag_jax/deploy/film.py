"""A film that is written frame by frame, each at its own time; in parts, where it may be stopped and gone on with."""

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

CODECS = ("libx264", "mpeg4")  # the first that there is
FORMATS = {".mp4": "mp4", ".mkv": "matroska"}  # the second keeps times as they are, wherever they begin
EVEN = 2  # 4:2:0 has one sample of colour for two pixels
TICK = Fraction(1, 1000)  # seconds


class Place(NamedTuple):
    """Where a film stands, for its next part."""

    height: int
    width: int
    last: int  # time of the last frame, ticks


class Film:
    """A file that is written frame by frame, each at its own time, and is there once it is whole; MP4 or Matroska.

    A context manager: at its end the file gets its name, unless an exception ends it; then there is no file. The first
    frame gives the size, filled up to even sides by its own border; frames of quite another size are scaled
    to it. A part of a film, which begins where `place` says, may have no frame; then it is an empty file.

    Raises (from every method):
      UserError: the file cannot be written, or the disk is full; names the file.
    """

    def __init__(self, path: Path, *, part: bool = False, place: Place | None = None):
        """A film that will be at `path`, or a part of one."""
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
        """The next frame, RGB. One that is not later than the last, in whole milliseconds, is left out."""
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
        # Without frames that are predicted from later ones, parts can be put one after the other.
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
        # What cannot be finished is thrown away; why it could not is being raised already.
        with contextlib.suppress(av.FFmpegError, OSError):
            if self._container is not None:
                self._container.close()

    def _told(self) -> contextlib.AbstractContextManager[None]:
        return _one_line(self.path)


def join(parts: Sequence[Path], path: Path) -> None:
    """Puts the parts of a film one after the other into one MP4 file, without encoding anything again.

    Raises:
      UserError: there is no frame in them, or the file cannot be written; it is named.
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
    """Raises UserError, which names the file, for what FFmpeg and the disk raise."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
