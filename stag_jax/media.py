"""Read pictures and videos as upright RGB arrays: the whole file, or a UserError that says why not in one line."""

import io
import math
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from absl import logging
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from jaxtyping import Float, UInt8
from PIL import Image

from stag_jax.types import Clip, ClipIdentity, UserError

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
MAX_FRAMES = 3000  # a clip is seconds long
MAX_BYTES = 4 << 30  # of a clip in memory
UNEVEN = 0.1  # largest deviation of a frame interval from the mean interval, as a fraction of it
AGREEMENT = 0.005  # largest relative difference between the frame rates of the header and of the time stamps
RAW_TICK = Fraction(1, 1_200_000)  # ffmpeg's time base for raw streams, whose frame rate it invents
ORIENTATION = 0x0112  # the EXIF tag

# EXIF orientation as (transpose, then flip rows, then flip columns).
UPRIGHT = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class _Recording(NamedTuple):
    """Frames, and what the file tells about their times."""

    frames: list[np.ndarray]
    times: Float[np.ndarray, " f"] | None  # any unit; None where the file has none
    tick: float  # step to which the times are rounded
    rate: float | None  # frames a second


def read_image(path: Path) -> UInt8[np.ndarray, "y x 3"]:
    """Read a picture as 8-bit RGB, rotated upright by its EXIF orientation; the first one if the file has several.

    16-bit channels are scaled by 1/257 and rounded, transparency is blended with black, colour profiles are ignored.

    Raises:
      UserError: no such file, not a picture, truncated, or pixels of neither 8 nor 16 bit.
    """
    check_file(path)
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.load()  # `open` reads the header only
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1), UPRIGHT[1])
            pixels = _sixteen_bits(path, data, image) if _is_deep(data, image) else _eight_bits(path, image)
    # Pillow raises different errors depending on where a file is damaged.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture: {reason(error)}") from error
    return _turned(pixels, *turn)


def read_clip(path: Path, fps: float | None = None, max_frames: int = MAX_FRAMES) -> Clip:
    """Read a video file, or a folder of pictures numbered at the end of their names, as one clip.

    A video is rotated by its display matrix and scaled to square pixels. Its frame rate is the mean over its
    frames unless `fps` is given; a folder needs `fps`. Frames are taken as evenly
    spaced, with a warning where time stamps or numbers deviate by more than `UNEVEN`.

    Raises:
      UserError: no such file, no pictures, damage (with the frame where it begins), fewer frames than the file
        declares, frames of different sizes, no frame rate, or more frames than `max_frames` or `MAX_BYTES` allow.
        In formats that declare no length (MPEG-TS, GIF, fragmented MP4) a missing end is not noticed if no frame is
        broken.
    """
    check_rate(path, fps)
    recording = _read_folder(path, max_frames) if path.is_dir() else _read_video(path, max_frames)
    rate = fps if fps is not None else recording.rate
    if rate is None:
        raise no_rate(path)
    _warn_if_uneven(path, recording)
    name = path.resolve().name if path.is_dir() else path.stem
    return Clip(ClipIdentity(name, name, "video"), None, float(rate), _stacked(recording.frames))


def check_rate(path: Path, fps: float | None) -> None:
    """Raise UserError if the given frame rate is not a finite number above 0."""
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UserError(f"{path}: --fps must be a number above 0, got {fps}")


def no_rate(path: Path) -> UserError:
    """Return the error for a clip whose frame rate neither the file nor the user gives."""
    return UserError(f"{path} does not say its frame rate; give it with --fps")


def check_file(path: Path) -> None:
    """Raise UserError if the file is missing or empty."""
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")


def reason(error: Exception) -> str:
    """Return in one line why a file cannot be read."""
    text = error.strerror if isinstance(error, OSError | av.FFmpegError) and error.strerror else str(error)
    return "not in a known format" if "BytesIO" in text else " ".join(text.split())


def _turned(pixels: np.ndarray, transpose: bool, flip_rows: bool, flip_columns: bool) -> np.ndarray:
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1].copy()


def _is_deep(data: bytes, image: Image.Image) -> bool:
    """Return whether a channel has 16 bits: Pillow would keep only the upper eight of colour."""
    if image.format == "PNG":
        return data[24] == 16
    return image.format == "TIFF" and 16 in image.tag_v2.get(258, ())


def _sixteen_bits(path: Path, data: bytes, image: Image.Image) -> np.ndarray:
    if image.format == "TIFF" and (image.tag_v2.get(262) not in (1, 2) or image.tag_v2.get(284, 1) != 1):
        raise UserError(f"{path}: 16-bit TIFF in a rare layout; save it as PNG")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # upright already if TIFF
    if pixels is None or pixels.dtype != np.uint16:
        raise UserError(f"{path} cannot be read as a picture of 16 bit")
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    alpha = pixels[..., 3:] / 65535 if pixels.shape[-1] == 4 else 1.0
    return np.rint(pixels[..., 2::-1] / 257 * alpha).astype(np.uint8)


def _eight_bits(path: Path, image: Image.Image) -> np.ndarray:
    if image.mode[0] in "IF":
        raise UserError(f"{path} has pixels of neither 8 nor 16 bit (mode {image.mode})")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        pixels = np.asarray(image.convert("RGBA"))
        return np.rint(pixels[..., :3] * (pixels[..., 3:] / 255)).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


def numbered(path: Path) -> dict[int, Path]:
    """Map the frame number at the end of each name to its picture, in order.

    Raises:
      UserError: no pictures, one without a number, or two with the same number.
    """
    files: dict[int, Path] = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() not in PICTURES or file.name.startswith("."):
            continue
        digits = file.stem[len(file.stem.rstrip("0123456789")) :]
        if not digits:
            raise UserError(f"{file}: no frame number at the end of the name")
        if int(digits) in files:
            raise UserError(f"{file} has the same frame number as {files[int(digits)].name}")
        files[int(digits)] = file
    if not files:
        raise UserError(f"{path} is a folder without pictures")
    return dict(sorted(files.items()))


def _read_folder(path: Path, max_frames: int) -> _Recording:
    files = numbered(path)
    pictures = ((str(file), read_image(file)) for file in files.values())
    return _Recording(_collected(path, pictures, len(files), max_frames), np.array(list(files), float), 0.0, None)


def open_container(path: Path) -> av.container.InputContainer:
    """Open a video file; the caller closes it.

    Raises:
      UserError: the file is missing, empty or not a video.
    """
    check_file(path)
    try:
        # An absolute path, since ffmpeg reads text before a colon as a protocol.
        return av.open(str(path.absolute()), metadata_errors="replace")
    except av.FFmpegError as error:
        raise UserError(f"{path} cannot be read as a video: {reason(error)}") from error


def _read_video(path: Path, max_frames: int) -> _Recording:
    with open_container(path) as container:
        stream = video_stream(path, container)
        times: list[float | None] = []
        frames = _collected(path, _decoded(path, container, stream, times), stream.frames, max_frames)
        if not frames:
            raise UserError(f"{path} has no frame that can be decoded")
        stamps = None if None in times or stream.time_base == RAW_TICK else np.array(times, float)
        return _Recording(frames, stamps, float(stream.time_base), _rate(stream, stamps))


def video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """Return the first video stream.

    Raises:
      UserError: a single picture, cover art or text, which ffmpeg also plays; or no stream that can be decoded.
    """
    if container.format.name == "tty":
        raise UserError(f"{path} cannot be read as a video: it is text")
    if container.format.name == "image2" or container.format.name.endswith("_pipe"):
        raise UserError(f"{path} is a single picture, not a video")
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise UserError(f"{path} has no video stream")
    if streams[0].codec_context is None:
        raise UserError(f"{path}: no decoder for its video")
    return streams[0]


def _decoded(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, times: list[float | None]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every frame with its name; append its time to `times`. Raise UserError if the file is damaged."""
    coded = visible = 0  # packets in the file, and those that no edit list hides
    try:
        for packet in container.demux(stream):
            coded += packet.size > 0
            visible += packet.size > 0 and not packet.is_discard
            if packet.is_corrupt:
                raise UserError(f"{path} is damaged or cut off at frame {len(times)}")
            for frame in packet.decode():
                where = f"{path} frame {len(times)}"
                if frame.is_corrupt:
                    raise UserError(f"{where} is damaged")
                times.append(frame.time)
                yield where, rgb(frame, stream)
    except av.FFmpegError as error:
        raise UserError(f"{path} is damaged at frame {len(times)}: {reason(error)}") from error
    kinds = set(container.format.name.split(","))
    if cut := missing(path, container, stream, coded, len(times)):
        raise UserError(f"{path} is cut off{cut}")
    if len(times) < visible and kinds & {"mov", "matroska", "avi"}:  # in other formats a packet may be half a frame
        raise UserError(f"{path} is damaged: only {len(times)} of its {visible} frames can be decoded")


def missing(path: Path, container: av.container.InputContainer, stream: av.VideoStream, coded: int, frame: int) -> str:
    """Describe what is missing at the end of a video: " at frame ...: ..." or ": ..."; empty if nothing is.

    Args:
      path: the video file.
      container: the opened file.
      stream: its video stream.
      coded: packets in the file.
      frame: number of the next frame.
    """
    if "matroska" in container.format.name and (size := _matroska_size(path)) and path.stat().st_size < size:
        return f" at frame {frame}: {path.stat().st_size} of {size} bytes"
    return f": it holds {coded} of the {stream.frames} frames that it declares" if coded < stream.frames else ""


def _matroska_size(path: Path) -> int | None:
    """Return the size in bytes that the header states (RFC 8794, 9559; it counts no frames); None if left open."""

    def number() -> tuple[int, bool]:
        first = file.read(1)[0]
        length = 9 - first.bit_length()
        value = int.from_bytes(bytes([first & (0xFF >> length)]) + file.read(length - 1))
        return value, value == (1 << 7 * length) - 1

    with path.open("rb") as file:
        file.seek(4)  # EBML
        header, _ = number()
        file.seek(header, io.SEEK_CUR)
        segment = file.read(4) == b"\x18\x53\x80\x67"
        size, is_open = number()
        return file.tell() + size if segment and not is_open else None


def rgb(frame: av.VideoFrame, stream: av.VideoStream) -> UInt8[np.ndarray, "y x 3"]:
    """Convert a decoded frame to RGB, in square pixels and upright."""
    width = round(frame.width * (stream.sample_aspect_ratio or 1))
    pixels = frame.to_ndarray(format="rgb24", width=width)
    for side in frame.side_data:
        if side.type == SideData.DISPLAYMATRIX:
            # x' = a x + c y, y' = b x + d y, with entries of -1, 0 and 1 times 2^16.
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side))
            sideways = abs(b) + abs(c) > abs(a) + abs(d)
            pixels = _turned(pixels, sideways, *((b < 0, c < 0) if sideways else (d < 0, a < 0)))
    return pixels


def _collected(
    path: Path, pictures: Iterable[tuple[str, np.ndarray]], declared: int, max_frames: int
) -> list[np.ndarray]:
    """Return the pictures as a list. Raise UserError if they differ in size or are too many."""
    frames: list[np.ndarray] = []
    for where, pixels in pictures:
        height, width = pixels.shape[:2]
        if frames and pixels.shape != frames[0].shape:
            raise UserError(
                f"{where} is {width} x {height} pixels, but the first is {frames[0].shape[1]} x {frames[0].shape[0]}"
            )
        limit = min(max_frames, MAX_BYTES // pixels.nbytes)
        if len(frames) == limit:
            number = declared or f"more than {limit}"
            raise UserError(
                f"{path} is longer than a clip: {number} frames; of {width} x {height} pixels {limit} are read"
            )
        frames.append(pixels)
    return frames


def _rate(stream: av.VideoStream, times: Float[np.ndarray, " f"] | None) -> float | None:
    """Return the frames a second: the header's value if the time stamps agree with it, else their mean rate.

    The header may count frames that an edit list hides.
    """
    if times is None:
        return None
    average = float(stream.average_rate or 0)
    if len(times) < 2 or times[-1] <= times[0]:
        return average or None
    measured = (len(times) - 1) / (times[-1] - times[0])
    return average if abs(average / measured - 1) < AGREEMENT else float(measured)


def _warn_if_uneven(path: Path, recording: _Recording) -> None:
    if recording.times is None or len(recording.times) < 3:
        return
    steps = np.diff(recording.times)
    if np.abs(steps - steps.mean()).max() > UNEVEN * steps.mean() + recording.tick:
        ratio = f"{steps.min() / steps.mean():.2f} to {steps.max() / steps.mean():.2f}"
        logging.warning("%s: frames are %s mean distances apart; their times are taken as even", path, ratio)


def _stacked(frames: list[np.ndarray]) -> UInt8[np.ndarray, "f y x 3"]:
    """Stack the frames; the list is emptied meanwhile, so that the clip is never in memory twice."""
    clip = np.empty((len(frames), *frames[0].shape), np.uint8)
    for f in reversed(range(len(frames))):
        clip[f] = frames.pop()
    return clip
