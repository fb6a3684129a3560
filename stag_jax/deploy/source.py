"""Where frames come from, one at a time: a video file, a folder of pictures, a camera. No more of them is ever held."""

import contextlib
import ctypes
import functools
import glob
import hashlib
import itertools
import math
import re
import threading
import time
from collections import deque
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
# Frames after a damaged one are predicted from it: to the next key frame, or until such encoders as have none have
# refreshed the picture. What moves in them is the damage.
HEALED_MS = 1000.0
AHEAD = 4  # frames decoded beside the analysis; 400 MB of 8K

GROUP = 8  # frames that may lie between two that they are predicted from
BUILT = "built on a damaged frame"
LOST = "lost: the decoder gives no frame"

T = TypeVar("T")


class Frame(NamedTuple):
    """One frame, or that there is none."""

    pixels: UInt8[np.ndarray, "y x 3"] | None  # RGB, upright, square pixels; None where it cannot be decoded
    time_ms: float  # after the start of the recording
    problem: str  # why there are no pixels, and at the very end why there may be too few frames; else empty


class Source(NamedTuple):
    """A recording. `frames()` begins at its start each time, except for a camera, which is there once.

    `frames(n)` leaves the first n items out, at the cost of decoding them: all that follow are the same.
    """

    name: str  # of the file without its suffix, of the folder, or camera<N>
    count: int | None  # frames as declared; None where that is not known
    fps: float | None  # nominal; the times of frames are their own
    size: tuple[int, int] | None  # height and width of the first frame; later ones may differ
    frames: Callable[..., Iterator[Frame]]
    digest: Callable[[], str] | None = None  # of its content, and of all else that its frames follow from


def camera_index(video: str) -> int | None:
    """The N of camera:N; None of any other text."""
    found = CAMERA.fullmatch(video)
    return int(found[1]) if found else None


def find(video: str) -> list[Path]:
    """What is meant by FILE, FOLDER or GLOB: video files and folders of pictures, in order of their names.

    A folder that holds videos stands for them, otherwise for its pictures. Of what a pattern matches, videos (by their
    suffix) and such folders are taken, or, if there are none, all files.

    Raises:
      UserError: nothing there.
    """
    path = Path(video)
    if path.exists() and not path.is_dir():
        return [path]
    matched = [path] if path.is_dir() else sorted(Path(match) for match in glob.glob(video, recursive=True))
    folders = [each for match in matched if match.is_dir() for each in _of_folder(match)]
    known = {*folders, *(match for match in matched if match.suffix.lower() in VIDEOS and match.is_file())}
    found = sorted(known) or [match for match in matched if match.is_file()]
    if not found:
        raise UserError(f"{video} {'holds' if path.is_dir() else 'is or matches'} neither videos nor pictures")
    return found


def _of_folder(folder: Path) -> list[Path]:
    files = [each for each in folder.iterdir() if not each.name.startswith(".") and each.is_file()]
    videos = [each for each in files if each.suffix.lower() in VIDEOS]
    return videos or [folder] * any(each.suffix.lower() in media.PICTURES for each in files)


def open_path(path: Path, fps: float | None = None) -> Source:
    """One of what `find` gives: a folder of pictures, or a video file. Raises UserError as these do."""
    return open_folder(path, fps) if path.is_dir() else open_video(path, fps)


def open_video(path: Path, fps: float | None = None) -> Source:
    """A video file, turned as its display matrix says and scaled to square pixels.

    Frames have the file's own time stamps less the first one, as they are, backwards ones too; those of a stream
    without any (raw H.264) come from `fps`, as all do where it is given. A frame that cannot be decoded, or whose
    picture is built on one (to the next key frame, `HEALED_MS` at most), is an item with its time and the problem. A
    file that is cut off ends with an item that says so. Frames whose size changes are passed on.

    Raises:
      UserError: no such file, an empty one, not a video, no frame in it that can be decoded, an impossible rate, or
        none where it is needed.
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
    """A folder of pictures numbered at the end of their names. The number gives the time: a skipped one is a gap.

    A picture that cannot be read is an item with its time and the problem.

    Raises:
      UserError: no pictures, or none that can be read; a name without a number, or with another's; no rate, or an
        impossible one.
    """
    media.check_rate(path, fps)
    files = media.numbered(path)
    if fps is None:
        raise media.no_rate(path)
    frames, digest = functools.partial(_pictures, files, fps), functools.partial(_digest, tuple(files.values()), fps)
    return _checked(path, Source(path.resolve().name, len(files), fps, None, frames, digest))


def open_camera(index: int, fps: float | None = None) -> Source:
    """A camera of this computer, asked for `fps` frames a second. Times are those of a steady clock at each grab.

    Where it stops to deliver, the last item says so.

    Raises:
      UserError: it cannot be opened, or is asked for an impossible rate.
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
    """OpenCV talks to stderr about each way of opening that fails."""
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
            there = capture.grab()
            now = time.monotonic()
            start = now if start is None else start
            there, pixels = capture.retrieve() if there else (False, None)
            if not there:
                yield Frame(None, 1000 * (now - start), f"camera:{index} delivers no more")
                return
            yield Frame(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), 1000 * (now - start), "")
    finally:
        capture.release()


def _digest(files: Sequence[Path], fps: float | None) -> str:
    """A hash of the names and contents of files, and of the rate that was given. Raises UserError as reading does."""
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
    """With the size of the first frame that can be had; there must be one."""
    with contextlib.closing(source.frames()) as frames:
        first = next((frame.pixels for frame in frames if frame.pixels is not None), None)
    if first is None:
        raise UserError(f"{path} has no frame that can be decoded")
    return source._replace(size=first.shape[:2])


def _video(path: Path, fps: float | None, start: int = 0) -> Iterator[Frame]:
    with media.open_container(path) as container:
        stream = media.video_stream(path, container)
        # Not the start in the header: in AVI that of decoding, some frames before that of showing.
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
    """Gives the memory of decoded pictures back to the system, which glibc does not: 4 MB more with every film."""
    with contextlib.suppress(OSError, AttributeError):  # of another C library nothing is known
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class _Item(NamedTuple):
    frame: av.VideoFrame | None
    stamp: float | None  # seconds of the file's clock; None where it has none
    problem: str
    end: bool = False  # no frame, only the news that there are no more


def _judged(items: Iterable[_Item]) -> Iterator[_Item]:
    """With the problem of those frames that are shown before a damaged one and yet built on it."""

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
    """Every frame in the order in which they are shown, the lost ones between them."""
    # Elsewhere a packet may be half a frame, and in VP8 one that is not shown.
    counted = bool({"mov", "matroska"} & set(container.format.name.split(","))) and stream.codec_context.name != "vp8"
    tick = float(stream.time_base)
    waiting: dict[int, str] = {}  # time stamps of packets whose frames are still to come, and what is wrong with them
    coded = shown = 0
    sick, last = -math.inf, None  # when the latest damage was, -inf where it is healed; when the latest frame was
    end, packets = "", container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.FFmpegError as error:
            end = f"{path} is damaged at frame {shown}: {media.reason(error)}"
            break
        coded += packet.size > 0
        fault, frames = "damaged" if packet.is_corrupt else "", []
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            fault = f"damaged: {media.reason(error)}"
            begun = packet.pts if packet.pts is not None else packet.dts
            sick = max(sick, tick * (begun or 0))
        if packet.size and not packet.is_discard and (counted or fault):
            if packet.pts is not None:
                waiting[packet.pts] = fault
            elif fault:  # AVI: when it would have been shown is not known exactly
                shown += 1
                yield _Item(None, last if packet.dts is None else packet.dts * tick, fault)
        for frame in frames:
            problem = waiting.pop(frame.pts, "") or ("damaged" if frame.is_corrupt else "")
            for pts in sorted(pts for pts in waiting if frame.pts is not None and pts < frame.pts):
                shown, sick = shown + 1, max(sick, pts * tick)
                yield _Item(None, pts * tick, waiting.pop(pts) or LOST)
            now = frame.time
            if problem:
                sick = max(sick, now or 0)
            elif sick > -math.inf:
                healed = now is None or (frame.key_frame and now > sick) or 1000 * (now - sick) > HEALED_MS
                sick, problem = (-math.inf, "") if healed else (sick, BUILT)
            shown, last = shown + 1, now
            yield _Item(frame, now, problem)
    for pts in sorted(waiting):
        shown, last = shown + 1, pts * tick
        yield _Item(None, last, waiting[pts] or LOST)
    if not end and (cut := media.missing(path, container, stream, coded, shown)):
        end = f"{path} is cut off{cut}"
    if end:
        yield _Item(None, last, end, True)


def ahead(items: Iterable[T], size: int = AHEAD) -> Iterator[T]:
    """The same items, made in a thread of their own so that decoding runs beside what is done with them.

    The thread starts with the first item that is asked for. Closing the iterator (or dropping it) ends the thread,
    which closes `items`. What `items` raises is raised here, after the items before it.

    Args:
      items: e.g. the frames of a source.
      size: how many are kept ready, 1 or more.
    """
    ready, changed = deque(), threading.Condition()
    done, closed, failure = False, False, None

    def make() -> None:
        nonlocal done, failure
        try:
            iterator = iter(items)
            for item in iterator:
                with changed:
                    changed.wait_for(lambda: closed or len(ready) < size)
                    if closed:
                        break
                    ready.append(item)
                    changed.notify_all()
            if hasattr(iterator, "close"):
                iterator.close()
        except BaseException as error:  # raised in the other thread
            failure = error
        with changed:
            done = True
            changed.notify_all()

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: ready or done)
                if not ready:
                    break
                item = ready.popleft()
                changed.notify_all()
            yield item
        if failure is not None:
            raise failure
    finally:
        with changed:
            closed = True
            changed.notify_all()
        thread.join()
