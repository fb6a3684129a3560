"""Pictures and videos as arrays: upright, in RGB, all of the file or one line that says why not."""

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

from stag_jax.types import Clip, UserError

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
MAX_FRAMES = 3000  # a clip is seconds long
MAX_BYTES = 4 << 30  # and fits into memory
UNEVEN = 0.1  # part of the mean distance by which frames may lie off an even beat
AGREEMENT = 0.005  # of the frame rate in the header with the time stamps
RAW_TICK = Fraction(1, 1_200_000)  # ffmpeg's clock for bare streams, whose frame rate it makes up
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
    """Frames, and what is known of their times."""

    frames: list[np.ndarray]
    times: Float[np.ndarray, " f"] | None  # any unit; None where the file has none
    tick: float  # what the times are rounded to
    rate: float | None  # frames a second


def read_image(path: Path) -> UInt8[np.ndarray, "y x 3"]:
    """A picture in RGB, 8 bit, turned upright by its EXIF orientation; of several pictures in a file, the first.

    16 bits a channel are scaled by 1/257 and rounded, transparency is laid on black, and colour profiles are ignored.

    Raises:
      UserError: no such file, not a picture, cut off, or pixels that are neither of 8 nor of 16 bit.
    """
    check_file(path)
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.load()  # all of it: `open` reads the head only
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1), UPRIGHT[1])
            pixels = _sixteen_bits(path, data, image) if _is_deep(data, image) else _eight_bits(path, image)
    # What Pillow raises for damaged files depends on where the damage is.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture: {reason(error)}") from error
    return _turned(pixels, *turn)


def read_clip(path: Path, fps: float | None = None, max_frames: int = MAX_FRAMES) -> Clip:
    """A video file, or a folder of pictures numbered at the end of their names, as one clip.

    A video is turned as its display matrix says, and scaled to square pixels. Its frame rate is the mean over its
    frames unless `fps` is given; a folder has none, so it needs `fps`. Times are taken as even, with a warning where
    time stamps or numbers differ by more than `UNEVEN`.

    Raises:
      UserError: no such file, no pictures, damage (with the frame where it begins), fewer frames than the file
        declares, frames of different sizes, no frame rate, or more frames than `max_frames` or `MAX_BYTES` allow.
        Formats that declare no length (MPEG-TS, GIF, fragmented MP4) may end early without notice where the cut leaves
        no broken frame.
    """
    check_rate(path, fps)
    recording = _read_folder(path, max_frames) if path.is_dir() else _read_video(path, max_frames)
    rate = fps if fps is not None else recording.rate
    if rate is None:
        raise no_rate(path)
    _warn_if_uneven(path, recording)
    name = path.resolve().name if path.is_dir() else path.stem
    return Clip(name, name, "video", "", None, float(rate), _stacked(recording.frames))


def check_rate(path: Path, fps: float | None) -> None:
    """Raises UserError where a frame rate is given that none can be."""
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UserError(f"{path}: --fps must be a number above 0, got {fps}")


def no_rate(path: Path) -> UserError:
    """What is said where a rate is needed, and neither the file nor the user has one."""
    return UserError(f"{path} does not say its frame rate; give it with --fps")


def check_file(path: Path) -> None:
    """Raises UserError where there is no file, or nothing in it."""
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")


def reason(error: Exception) -> str:
    """Why a file cannot be read, in one line."""
    said = error.strerror if isinstance(error, OSError | av.FFmpegError) and error.strerror else str(error)
    return "not in a known format" if "BytesIO" in said else " ".join(said.split())


def _turned(pixels: np.ndarray, transpose: bool, flip_rows: bool, flip_columns: bool) -> np.ndarray:
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1].copy()


def _is_deep(data: bytes, image: Image.Image) -> bool:
    """Whether a channel has 16 bits: Pillow would cut colour down to the upper eight."""
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
    """The pictures of a folder by the numbers at the end of their names, in order.

    Raises:
      UserError: no pictures, or one without a number or with another's.
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
    """A video file, opened; to be closed by the caller.

    Raises:
      UserError: no file, an empty one, or not a video.
    """
    check_file(path)
    try:
        # An absolute name, since ffmpeg takes what stands before a colon for a protocol.
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
        known = None if None in times or stream.time_base == RAW_TICK else np.array(times, float)
        return _Recording(frames, known, float(stream.time_base), _rate(stream, known))


def video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream. ffmpeg also plays single pictures, cover art and text files; none of them is a clip.

    Raises:
      UserError: one of these, or no stream that can be decoded.
    """
    if container.format.name == "tty":
        raise UserError(f"{path} cannot be read as a video: it is text")
    if container.format.name == "image2" or container.format.name.endswith("_pipe"):
        raise UserError(f"{path} is a single picture, not a video")
    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not streams:
        raise UserError(f"{path} has no video stream")
    if streams[0].codec_context is None:
        raise UserError(f"{path}: no decoder for its video")
    return streams[0]


def _decoded(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, times: list[float | None]
) -> Iterator[tuple[str, np.ndarray]]:
    """Every frame with its name; its time goes into `times`. Raises UserError where the file is damaged or cut off."""
    coded = shown = 0  # packets in the file, and those of them that no edit list hides
    try:
        for packet in container.demux(stream):
            coded += packet.size > 0
            shown += packet.size > 0 and not packet.is_discard
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
    if len(times) < shown and kinds & {"mov", "matroska", "avi"}:  # elsewhere a packet may be half a frame
        raise UserError(f"{path} is damaged: only {len(times)} of its {shown} frames can be decoded")


def missing(path: Path, container: av.container.InputContainer, stream: av.VideoStream, coded: int, frame: int) -> str:
    """What says that a file, read to its end, is cut off: " at frame ...: ..." or ": ..."; empty where nothing does.

    Args:
      path, container, stream: the video.
      coded: packets that were found in it.
      frame: the number that the next frame would have.
    """
    if "matroska" in container.format.name and (size := _matroska_size(path)) and path.stat().st_size < size:
        return f" at frame {frame}: {path.stat().st_size} of {size} bytes"
    return f": it holds {coded} of the {stream.frames} frames that it declares" if coded < stream.frames else ""


def _matroska_size(path: Path) -> int | None:
    """The bytes of a whole file by its header (RFC 8794, 9559), which counts no frames; None if left open."""

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
    """A decoded frame in square pixels, upright."""
    width = round(frame.width * (stream.sample_aspect_ratio or 1))
    pixels = frame.to_ndarray(format="rgb24", width=width)
    for side in frame.side_data:
        if side.type == SideData.DISPLAYMATRIX:
            # x' = a x + c y, y' = b x + d y, with entries of -1, 0 and 1 times 2^16.
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side))
            aside = abs(b) + abs(c) > abs(a) + abs(d)
            pixels = _turned(pixels, aside, *((b < 0, c < 0) if aside else (d < 0, a < 0)))
    return pixels


def _collected(
    path: Path, pictures: Iterable[tuple[str, np.ndarray]], declared: int, max_frames: int
) -> list[np.ndarray]:
    """The pictures, if they are of one size and not more than a clip has."""
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
    """Frames a second: what the header says where the time stamps bear it out, else the mean over them.

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
    """One array; the list is emptied on the way, so that the clip is never in memory twice."""
    clip = np.empty((len(frames), *frames[0].shape), np.uint8)
    for f in reversed(range(len(frames))):
        clip[f] = frames.pop()
    return clip
