"""A film that is written frame by frame, each at its own time."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from stag_jax.files import write_atomically
from stag_jax.types import UserError

CODECS = ("libx264", "mpeg4")  # the first that there is
TICK = Fraction(1, 1000)  # seconds


class Film:
    """An MP4 file that is written frame by frame, each at its own time, and is there once it is whole.

    A context manager: at its end the file gets its name, unless an exception ends it; then there is no file. The first
    frame gives the size (made even); frames of another size are scaled to it.

    Raises (from every method):
      UserError: the file cannot be written, or the disk is full; names the file.
    """

    def __init__(self, path: Path):
        """A film that will be at `path`."""
        self.path = path
        self._stack = contextlib.ExitStack()
        self._temporary: Path | None = None
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None
        self._last: int | None = None

    def __enter__(self) -> "Film":
        with self._told():
            self._temporary = self._stack.enter_context(write_atomically(self.path))
        return self

    def add(self, pixels: UInt8[np.ndarray, "y x 3"], time_ms: float) -> None:
        """The next frame, RGB. One that is not later than the last, in whole milliseconds, is left out."""
        stamp = round(time_ms)
        if self._last is not None and stamp <= self._last:
            return
        with self._told():
            if self._stream is None:
                self._begin(*pixels.shape[:2])
            height, width = self._stream.height, self._stream.width
            if pixels.shape[:2] != (height, width):
                pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = stamp, TICK
            self._container.mux(self._stream.encode(frame))
        self._last = stamp

    def _begin(self, height: int, width: int) -> None:
        codec = next(name for name in CODECS if name in av.codecs_available)
        options = {"preset": "veryfast", "crf": "21"} if codec == "libx264" else {"qmin": "2", "qmax": "6"}
        self._container = av.open(str(self._temporary.absolute()), "w", format="mp4")
        self._stream = self._container.add_stream(codec, rate=25, options={**options, "g": "50"})
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
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
                raise UserError(f"{self.path} is not written: there is no frame")
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

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror or error}") from error
