"""Read frames one at a time from a video file, a folder of pictures or a camera, in bounded memory."""

import contextlib
import ctypes
import functools
import glob
import hashlib
import itertools
import math
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import av
import cv2
import numpy as np
from av.video.frame import PictureType
from jaxtyping import UInt8

from stag_jax import media
from stag_jax.types import UserError

VIDEOS = frozenset(
    ".mp4 .m4v .mov .3gp .avi .mkv .webm .flv .wmv .asf .mpg .mpeg .m2v .ts .mts .m2ts .vob .mxf .dv .nut .ogv "
    ".h264 .264 .hevc .265 .mjpeg .mjpg .y4m .gif".split()
)
CAMERA = re.compile(r"camera:(\d+)")
# Frames after a damaged one are predicted from it until the next key frame or, with encoders that write none, until the
# picture has been refreshed. Movement in these frames comes from the damage.
HEALED_MS = 1000.0
AHEAD = 4  # frames decoded in advance; 400 MB in 8K

GROUP = 8  # largest number of B-frames between their two reference frames
BUILT = "built on a damaged frame"
LOST = "lost: the decoder gives no frame"

T = TypeVar("T")


class Frame(NamedTuple):
    """One frame, or a report that it is missing."""

    pixels: UInt8[np.ndarray, "y x 3"] | None  # RGB, upright, square pixels; None if it cannot be decoded
    time_ms: float  # after the start of the recording
    problem: str  # why there are no pixels or, in the last item, why frames may be missing; else empty


class Source(NamedTuple):
    """A recording. Each call of `frames()` starts at its beginning, except for a camera, which can be read once.

    `frames(n)` decodes but does not return the first n items; the following items are unchanged.
    """

    name: str  # the file's without suffix, the folder's, or camera<N>
    count: int | None  # declared number of frames; None if unknown
    fps: float | None  # nominal; frames have their own times
    size: tuple[int, int] | None  # height and width of the first frame; later ones may differ
    frames: Callable[..., Iterator[Frame]]
    digest: Callable[[], str] | None = None  # hash of the content and of all else that determines the frames


def camera_index(video: str) -> int | None:
    """Return N from camera:N; None for any other text."""
    match = CAMERA.fullmatch(video)
    return int(match[1]) if match else None


def find(video: str) -> list[Path]:
    """Return the video files and folders of pictures that FILE, FOLDER or GLOB means, sorted by name.

    A folder with videos stands for these, otherwise for its pictures. Of a pattern's matches, videos (by suffix) and
    such folders are returned or, if there are none, all files.

    Raises:
      UserError: nothing is found.
    """
    path = Path(video)
    if path.exists() and not path.is_dir():
        return [path]
    matched = [path] if path.is_dir() else sorted(Path(match) for match in glob.glob(video, recursive=True))
    folders = [entry for match in matched if match.is_dir() for entry in _of_folder(match)]
    videos = {*folders, *(match for match in matched if match.suffix.lower() in VIDEOS and match.is_file())}
    paths = sorted(videos) or [match for match in matched if match.is_file()]
    if not paths:
        raise UserError(f"{video} {'holds' if path.is_dir() else 'is or matches'} neither videos nor pictures")
    return paths


def _of_folder(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file()]
    videos = [file for file in files if file.suffix.lower() in VIDEOS]
    return videos or [folder] * any(file.suffix.lower() in media.PICTURES for file in files)


def open_path(path: Path, fps: float | None = None) -> Source:
    """Open one of the paths from `find`: a folder of pictures or a video file. Raises UserError as these do."""
    return open_folder(path, fps) if path.is_dir() else open_video(path, fps)


def open_video(path: Path, fps: float | None = None) -> Source:
    """Open a video file; frames are rotated by its display matrix and scaled to square pixels.

    Frame times are the file's time stamps minus the first one, unchanged, even if they go backwards. They come from
    `fps` if it is given, as it must be for a stream without time stamps (raw H.264). A frame that cannot be decoded, or
    that is predicted from such a frame (until the next key frame, `HEALED_MS` at most), is an item with its time and
    the problem. A truncated file ends with an item that says so. The size of frames may change.

    Raises:
      UserError: the file is missing, empty or not a video, no frame can be decoded, or the rate is impossible, or
        missing where it is needed.
    """
    media.check_rate(path, fps)
    with media.open_container(path) as container:
        stream = media.video_stream(path, container)
        bare = stream.time_base == media.RAW_TICK
        rate = float(stream.average_rate or 0) or None if fps is None and not bare else fps
        count = stream.frames or None
    if bare and fps is None:
        raise media.no_rate(path)
    frames, digest = functools.partial(_video, path, fps), functools.partial(_digest, (path,), fps)
    return _checked(path, Source(path.stem, count, rate, None, frames, digest))


def open_folder(path: Path, fps: float | None) -> Source:
    """Open a folder of pictures with numbers at the end of their names. The number gives the time; gaps are kept.

    A picture that cannot be read is an item with its time and the problem.

    Raises:
      UserError: there are no pictures, or none can be read; a name has no number, or two have the same; the rate is
        missing or impossible.
    """
    media.check_rate(path, fps)
    files = media.numbered(path)
    if fps is None:
        raise media.no_rate(path)
    frames, digest = functools.partial(_pictures, files, fps), functools.partial(_digest, tuple(files.values()), fps)
    return _checked(path, Source(path.resolve().name, len(files), fps, None, frames, digest))


def open_camera(index: int, fps: float | None = None) -> Source:
    """Open a camera of this computer and request `fps` frames per second. Times are a monotonic clock's at each grab.

    If the camera stops delivering, the last item says so.

    Raises:
      UserError: the camera cannot be opened, or the rate is impossible.
    """
    media.check_rate(Path(f"camera:{index}"), fps)
    capture = _capture(index)
    if not capture.isOpened():
        raise UserError(f"camera:{index} cannot be opened")
    if fps is not None:
        capture.set(cv2.CAP_PROP_FPS, fps)
    size = (int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
    rate = fps or capture.get(cv2.CAP_PROP_FPS)
    name = f"camera{index}"
    return Source(name, None, rate if rate > 0 else None, size if all(size) else None, lambda: _live(index, capture))


def _capture(index: int) -> Any:  # a cv2.VideoCapture
    """Open a camera without OpenCV's messages on stderr, one for each backend that fails."""
    logs = cv2.utils.logging
    before = logs.setLogLevel(logs.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(index)
    finally:
        logs.setLogLevel(before)


def _live(index: int, capture: Any) -> Iterator[Frame]:
    start = None
    try:
        while True:
            delivered = capture.grab()
            now = time.monotonic()
            start = now if start is None else start
            delivered, pixels = capture.retrieve() if delivered else (False, None)
            if not delivered:
                yield Frame(None, 1000 * (now - start), f"camera:{index} delivers no more")
                return
            yield Frame(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), 1000 * (now - start), "")
    finally:
        capture.release()


def _digest(files: Sequence[Path], fps: float | None) -> str:
    """Return a hash of the names and contents of files, and of `fps`. Raises UserError if a file cannot be read."""
    digest = hashlib.sha256(repr(fps).encode())
    for file in files:
        try:
            with file.open("rb") as content:
                digest.update(file.name.encode() + b"\0" + hashlib.file_digest(content, "sha256").digest())
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _pictures(files: dict[int, Path], fps: float, start: int = 0) -> Iterator[Frame]:
    first = next(iter(files))
    for number, file in itertools.islice(files.items(), start, None):
        try:
            pixels, problem = media.read_image(file), ""
        except UserError as error:
            pixels, problem = None, str(error)
        yield Frame(pixels, 1000 * (number - first) / fps, problem)


def _checked(path: Path, source: Source) -> Source:
    """Add the size of the first frame that can be decoded; raise UserError if there is none."""
    with contextlib.closing(source.frames()) as frames:
        first = next((frame.pixels for frame in frames if frame.pixels is not None), None)
    if first is None:
        raise UserError(f"{path} has no frame that can be decoded")
    return source._replace(size=first.shape[:2])


def _video(path: Path, fps: float | None, start: int = 0) -> Iterator[Frame]:
    with media.open_container(path) as container:
        stream = media.video_stream(path, container)
        # Not the start time in the header: in AVI it is that of decoding, some frames before presentation.
        origin, now = None, 0.0
        for index, (frame, stamp, problem, _) in enumerate(_judged(_decoded(path, container, stream))):
            if fps is not None:
                now = 1000 * index / fps
            elif stamp is not None:
                origin = stamp if origin is None else origin
                now = 1000 * (stamp - origin)
            elif not problem:
                raise media.no_rate(path)
            if index >= start:
                yield Frame(None if problem else media.rgb(frame, stream), now, problem)
    _give_back()


def _give_back() -> None:
    """Return freed memory to the system, which glibc does not do by itself: it kept 4 MB more with every film."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class _Item(NamedTuple):
    frame: av.VideoFrame | None
    stamp: float | None  # seconds of the file's clock; None if it has none
    problem: str
    end: bool = False  # not a frame, but the report of a premature end


def _judged(items: Iterable[_Item]) -> Iterator[_Item]:
    """Add the problem of B-frames that precede a damaged frame but are predicted from it."""

    def judged() -> Iterator[_Item]:
        *inner, outer = held
        if any(item.problem and not item.end for item in held):
            inner = [item._replace(problem=item.problem or BUILT) for item in inner]
        yield from (*inner, outer)

    held: list[_Item] = []
    for item in items:
        held.append(item)
        is_inner = item.frame is not None and item.frame.pict_type == PictureType.B
        if not is_inner or len(held) == GROUP:
            yield from judged()
            held = []
    if held:
        yield from judged()


def _decoded(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[_Item]:
    """Yield every frame in presentation order, with an item for each lost one."""
    # In other formats a packet may be half a frame, and in VP8 it may be a frame that is not shown.
    counted = bool({"mov", "matroska"} & set(container.format.name.split(","))) and stream.codec_context.name != "vp8"
    tick = float(stream.time_base)
    waiting: dict[int, str] = {}  # time stamp of a packet whose frame is still to come -> its fault
    coded = emitted = 0
    damaged_at, last = -math.inf, None  # times of the latest damage (-inf: healed) and of the latest frame
    end, packets = "", container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.FFmpegError as error:
            end = f"{path} is damaged at frame {emitted}: {media.reason(error)}"
            break
        coded += packet.size > 0
        fault, frames = "damaged" if packet.is_corrupt else "", []
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            fault = f"damaged: {media.reason(error)}"
            start = packet.pts if packet.pts is not None else packet.dts
            damaged_at = max(damaged_at, tick * (start or 0))
        if packet.size and not packet.is_discard and (counted or fault):
            if packet.pts is not None:
                waiting[packet.pts] = fault
            elif fault:  # AVI: its exact presentation time is not known
                emitted += 1
                yield _Item(None, last if packet.dts is None else packet.dts * tick, fault)
        for frame in frames:
            problem = waiting.pop(frame.pts, "") or ("damaged" if frame.is_corrupt else "")
            for pts in sorted(pts for pts in waiting if frame.pts is not None and pts < frame.pts):
                emitted, damaged_at = emitted + 1, max(damaged_at, pts * tick)
                yield _Item(None, pts * tick, waiting.pop(pts) or LOST)
            now = frame.time
            if problem:
                damaged_at = max(damaged_at, now or 0)
            elif damaged_at > -math.inf:
                healed = now is None or (frame.key_frame and now > damaged_at) or 1000 * (now - damaged_at) > HEALED_MS
                damaged_at, problem = (-math.inf, "") if healed else (damaged_at, BUILT)
            emitted, last = emitted + 1, now
            yield _Item(frame, now, problem)
    for pts in sorted(waiting):
        emitted, last = emitted + 1, pts * tick
        yield _Item(None, last, waiting[pts] or LOST)
    if not end and (cut := media.missing(path, container, stream, coded, emitted)):
        end = f"{path} is cut off{cut}"
    if end:
        yield _Item(None, last, end, True)


def ahead(items: Iterable[T], size: int = AHEAD) -> Iterator[T]:
    """Yield the same items, produced in another thread, so that decoding runs in parallel with the consumer.

    The thread starts when the first item is requested. Closing or deleting the iterator ends the thread, which closes
    `items`. An exception of `items` is raised here, after the items before it.

    Args:
      items: e.g. the frames of a source.
      size: number of items kept ready, 1 or more.
    """
    ready: queue.Queue[tuple[T | None, bool]] = queue.Queue(size)  # an item, and whether it is behind the last
    closed, failures = threading.Event(), []

    def make() -> None:
        try:
            iterator = iter(items)
            for item in iterator:
                ready.put((item, False))
                if closed.is_set():
                    break
            if hasattr(iterator, "close"):
                iterator.close()
        except BaseException as error:  # raised in the other thread
            failures.append(error)
        ready.put((None, True))

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while not (item := ready.get())[1]:
            yield item[0]
        if failures:
            raise failures[0]
    finally:
        closed.set()
        while thread.is_alive():  # it may wait for room
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.01)
