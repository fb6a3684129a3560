"""Draw the results of a frame into it, by OpenCV, which is fast."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.deploy.results import FaceResult, Interval, Result, Score

LONGEST = 1280  # pixels; larger frames are reduced to about this
SHORTEST = 240  # pixels; frames with a shorter side are enlarged, or text could not be read
SPAN_MS = 5000.0  # time span of the strip at the bottom
LANES = 3  # faces in the strip
ARROWS = 17  # number across the canonical face
GAIN = 6.0  # magnification of movements, which would be invisible otherwise
STILL = 0.15  # pixels of the canonical face, below which there is no arrow

Colour = tuple[int, int, int]  # RGB
# Tracks and emotions: distinct on a dark background, also for red-green colour-blind people.
TRACKS: tuple[Colour, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 178, 135),
    (204, 121, 167),
    (240, 228, 66),
    (226, 94, 40),
)
EMOTIONS: tuple[Colour, ...] = (
    *((209, 73, 91), (90, 175, 95), (240, 190, 60), (95, 130, 215), (165, 110, 200), (70, 180, 190), (150, 150, 150)),
)
GROUND, GRID, INK, FAINT = (24, 26, 29), (58, 62, 67), (236, 238, 240), (150, 154, 159)
FONT = cv2.FONT_HERSHEY_SIMPLEX


class Layout(NamedTuple):
    """The sizes in a drawn frame, in pixels: the picture on the left, a panel beside it, a strip below both."""

    scale: float  # of the picture
    height: int  # of the picture, scaled
    width: int
    panel: int  # width of the panel
    strip: int  # height of the strip
    line: int  # height of a line of text


def track_colour(track: int) -> Colour:
    """Return the colour of a track."""
    return TRACKS[track % len(TRACKS)]


def emotion_colour(index: int) -> Colour:
    """Return the colour of a class."""
    return EMOTIONS[index % len(EMOTIONS)]


def layout(height: int, width: int) -> Layout:
    """Return the layout for frames of a size. Small frames are enlarged, large ones reduced, so that text is readable.

    The drawing is at most about `LONGEST` wide and 4 / 3 of that high.
    """
    scale = min(LONGEST * 0.81 / width, LONGEST / height, max(1.0, SHORTEST / min(height, width)))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    line = int(np.clip(round(max(height, width) / 48), 13, 20))
    panel = min(12 * line, LONGEST - width)
    return Layout(scale, height, width, panel, 7 * line, line)


def draw(
    frame: UInt8[np.ndarray, "y x 3"],
    result: Result,
    classes: Sequence[str],
    units: Sequence[int],
    history: Sequence[tuple[int, Score]] = (),
    intervals: Sequence[Interval] = (),
) -> UInt8[np.ndarray, "y2 x2 3"]:
    """Draw boxes, numbers and movement arrows on a frame's faces, and the scores beside and below it.

    Args:
      frame: RGB.
      result: the frame's result.
      classes: emotions, axis k of the scores.
      units: action units, axis u of the scores.
      history: (track, score) of windows so far, in order of time; only the last `SPAN_MS` are read, so that a long
        recording costs no more.
      intervals: expressions found so far, in order of time.
    """
    place = layout(*frame.shape[:2])
    step = max(1, int(0.5 / place.scale))  # subsampling of large frames, before resizing
    picture = frame[::step, ::step]
    if place.scale != 1:
        shrunk = cv2.INTER_AREA if place.scale < 0.5 else cv2.INTER_LINEAR
        picture = cv2.resize(picture, (place.width, place.height), interpolation=shrunk)
    canvas = cv2.copyMakeBorder(picture, 0, place.strip, 0, place.panel, cv2.BORDER_CONSTANT, value=GROUND)
    picture = canvas[: place.height, : place.width]
    for face in result.faces:
        _arrows(picture, face, place.scale)
    for face in result.faces:
        _box(picture, face, place)
    if result.dropped:
        _label(picture, f"not looked at: {result.dropped}", (0, 0), place, GROUND, INK)
    recent = _recent(history, result)
    _panel(canvas[: place.height, place.width :], result, recent, classes, units, place)
    _strip(canvas[place.height :], result.time_ms, recent, _newest(intervals, result.time_ms), classes, place)
    return canvas


def _recent(history: Sequence[tuple[int, Score]], result: Result) -> list[tuple[int, Score]]:
    recent = [(face.track, face.score) for face in result.faces if face.score is not None]
    current = {id(score) for _, score in recent}
    for track, score in reversed(history):
        if score.end_ms < result.time_ms - SPAN_MS:
            break
        if id(score) not in current:
            recent.append((track, score))
    return recent[::-1]


def _newest(intervals: Sequence[Interval], now: float) -> list[Interval]:
    newest = []
    for interval in reversed(intervals):
        # They are ordered by their ends, and their beginnings are close to these.
        if interval.offset_ms < now - 2 * SPAN_MS:
            break
        if interval.offset_ms >= now - SPAN_MS and interval.onset_ms <= now:
            newest.append(interval)
    return newest


def _write(
    canvas: np.ndarray, text: str, left: int, middle: int, line: int, colour: Colour, bold: bool = False
) -> None:
    """Write one line of text, shortened to fit; `middle` is the y coordinate of its vertical centre."""
    scale, text = line / 30, _fitted(text, canvas.shape[1] - left, line, 1 + bold)
    cv2.putText(canvas, text, (left, int(middle + 10.5 * scale)), FONT, scale, colour, 1 + bold, cv2.LINE_AA)


@functools.lru_cache(4096)
def _fitted(text: str, room: int, line: int, thickness: int = 1) -> str:
    """Shorten a text to fit `room` pixels; replace characters other than ASCII, which the font lacks."""
    text = text.encode("ascii", "replace").decode()
    while text and _width(text, line, thickness) > room:
        text = text[:-3].rstrip() + "." if len(text) > 3 else ""
    return text


@functools.lru_cache(4096)
def _width(text: str, line: int, thickness: int = 1) -> int:
    return cv2.getTextSize(text, FONT, line / 30, thickness)[0][0]


def _label(picture: np.ndarray, text: str, corner: tuple[int, int], place: Layout, ground: Colour, ink: Colour) -> None:
    """Write text on a filled background, moved to lie inside the picture."""
    pad = place.line // 3
    text = _fitted(text, place.width - 2 * pad, place.line)
    wide, high = _width(text, place.line) + 2 * pad, place.line + 2
    left = int(np.clip(corner[0], 0, max(0, place.width - wide)))
    top = int(np.clip(corner[1], 0, max(0, place.height - high)))
    picture[top : top + high, left : left + wide] = ground
    _write(picture, text, left + pad, top + high // 2, place.line, ink)


def _box(picture: np.ndarray, face: FaceResult, place: Layout) -> None:
    left, top, right, bottom = (round(side * place.scale) for side in face.box)
    colour = track_colour(face.track)
    thick = max(1, place.line // 8)
    cv2.rectangle(picture, (left, top), (right, bottom), colour, thick)
    high = place.line + 2
    _label(picture, f"#{face.track}", (left, top - high), place, colour, GROUND)
    if face.refused:
        _label(picture, face.refused, (left, bottom), place, GROUND, INK)


def _arrows(picture: np.ndarray, face: FaceResult, scale: float) -> None:
    if face.flow is None or face.transform is None or not np.isfinite(face.transform).all():
        return
    starts, ends = arrows(face.flow, face.transform)
    colour = tuple(int(255 - (255 - value) * 0.6) for value in track_colour(face.track))
    # In units of 1/16 pixel.
    starts, ends = np.rint(starts * scale * 16).astype(int), np.rint(ends * scale * 16).astype(int)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        cv2.line(picture, start, end, colour, 1, cv2.LINE_AA, 4)
        cv2.circle(picture, end, 16, colour, -1, cv2.LINE_AA, 4)


def arrows(
    flow: Float[np.ndarray, "y x 2"], transform: Float[np.ndarray, "2 3"]
) -> tuple[Float[np.ndarray, "a 2"], Float[np.ndarray, "a 2"]]:
    """Return where movements above `STILL` start and end in the frame, `GAIN` times as long as they are.

    Args:
      flow: pixels of the canonical face.
      transform: from the frame to the canonical face.
    """
    height, width = flow.shape[:2]
    rows = np.linspace(0, height - 1, min(ARROWS, height) + 2).astype(int)[1:-1]
    columns = np.linspace(0, width - 1, min(ARROWS, width) + 2).astype(int)[1:-1]
    x, y = (axis.ravel() for axis in np.meshgrid(columns, rows))
    move = np.asarray(flow[y, x], np.float64)
    with np.errstate(invalid="ignore"):
        moving = np.linalg.norm(move, axis=-1) > STILL  # False for NaN
    back = cv2.invertAffineTransform(np.asarray(transform, np.float64))
    starts = np.stack([x, y], axis=-1)[moving] @ back[:, :2].T + back[:, 2]
    return starts, starts + GAIN * move[moving] @ back[:, :2].T


def _panel(
    panel: np.ndarray,
    result: Result,
    recent: Sequence[tuple[int, Score]],
    classes: Sequence[str],
    units: Sequence[int],
    place: Layout,
) -> None:
    """Draw the latest score of each face in the frame: emotions and action units as bars."""
    latest = dict(recent)
    faces = sorted(result.faces, key=lambda face: face.track)
    lines = max(1, panel.shape[0] // place.line)
    lines_per_face = max(1, lines // max(len(faces), 1))
    name_width = max(_width(name, place.line) for name in ("AU00", *classes))
    name_width = min(name_width, int(0.45 * panel.shape[1]))
    for index, face in enumerate(faces[:lines]):
        top = index * lines_per_face * place.line
        score = latest.get(face.track)
        suffix = "" if score is None else f"  {score.expression:.2f}"
        colour = track_colour(face.track)
        pad = place.line // 3
        _write(panel, f"face {face.track}{suffix}", pad, top + place.line // 2, place.line, colour, bold=True)
        if score is None:
            if lines_per_face > 1:
                reason = face.refused or "no window yet"
                _write(panel, reason, pad, top + 3 * place.line // 2, place.line, FAINT)
            continue
        emotions = enumerate(zip(classes, score.probability, strict=True))
        rows = [(name, float(p), emotion_colour(k)) for k, (name, p) in emotions]
        au = [(f"AU{unit}", float(p), colour) for unit, p in zip(units, score.au_probability, strict=True)]
        rows = _chosen(rows, lines_per_face - 2) + _chosen(au, lines_per_face - 2 - len(rows))
        for row, (name, value, ink) in enumerate(rows, 1):
            _bar(panel, name, value, ink, top + row * place.line, place.line, name_width)


def _chosen(rows: list[tuple[str, float, Colour]], room: int) -> list[tuple[str, float, Colour]]:
    """Return the `room` rows with the largest values, in their original order."""
    order = sorted(range(len(rows)), key=lambda i: -np.nan_to_num(rows[i][1], nan=-1.0))[: max(room, 0)]
    return [rows[i] for i in sorted(order)]


def _bar(panel: np.ndarray, name: str, value: float, colour: Colour, top: int, line: int, names: int) -> None:
    pad, middle = line // 3, top + line // 2
    left, right = names + 2 * pad, panel.shape[1] - 2 * pad - _width("0.00", line)
    is_known = np.isfinite(value)
    _write(panel[:, : left - pad // 2], name, pad, middle, line, INK)
    _write(panel, f"{value:.2f}" if is_known else "-", right + pad, middle, line, FAINT)
    panel[top + line // 4 : top + 3 * line // 4, left:right] = GRID
    if is_known:
        end = left + round((right - left) * min(max(value, 0.0), 1.0))
        panel[top + line // 4 : top + 3 * line // 4, left:end] = colour


def _strip(
    strip: np.ndarray,
    now: float,
    recent: Sequence[tuple[int, Score]],
    intervals: Sequence[Interval],
    classes: Sequence[str],
    place: Layout,
) -> None:
    """Draw the last seconds: a line per face for its expression score, and a lane below for its leading emotion."""
    line, pad = place.line, place.line // 3
    left, right = 2 * pad + line, strip.shape[1] - 2 * pad - _width("0000.00 s", line)
    top, bottom = 2 * pad + line, strip.shape[0] - 1 - (LANES + 1) * (line // 2)

    def x_at(time: float) -> int:
        return min(max(round(right - (now - time) / SPAN_MS * (right - left)), left), right)

    for value in (0.0, 0.5, 1.0):
        y = round(bottom - value * (bottom - top))
        strip[y, left:right] = GRID
        if value != 0.5:
            _write(strip, f"{value:.0f}", pad, y, line, FAINT)
    for second in range(int(np.ceil((now - SPAN_MS) / 1000)), int(now // 1000) + 1):
        strip[top:bottom, x_at(1000.0 * second)] = GRID
    for interval in intervals:
        ends = x_at(interval.onset_ms), x_at(interval.offset_ms) + 1
        strip[pad : pad + line, ends[0] : ends[1]] = track_colour(interval.track)
        _write(strip[:, : ends[1]], interval.emotion, ends[0] + 2, pad + line // 2, line, GROUND)
    # Only the latest faces: there is no room for more than `LANES`.
    tracks = sorted(list(dict.fromkeys(track for track, _ in reversed(recent)))[:LANES])
    for index, track in enumerate(tracks):
        scores = [score for other, score in recent if other == track and np.isfinite(score.expression)]
        level = bottom + (index + 1) * (line // 2)
        lane = strip[level : level + line // 2 - 2]
        lane[:, pad : left - 3] = track_colour(track)
        if scores:
            _curve(strip, lane, scores, np.array([x_at(score.end_ms) for score in scores]), (left, top, bottom), track)
    _write(strip, f"{now / 1000:.2f} s", right + pad, pad + line // 2, line, INK)


def _curve(
    strip: np.ndarray,
    lane: np.ndarray,
    own: Sequence[Score],
    x: np.ndarray,
    edges: tuple[int, int, int],
    track: int,
) -> None:
    """Draw one face's scores at columns `x` as a line, and its leading emotions as colours, stronger at high scores."""
    left, top, bottom = edges
    height = np.clip([score.expression for score in own], 0, 1)
    points = np.stack([x, np.rint(bottom - height * (bottom - top))], axis=-1).astype(np.int32)
    thick = 1 + (strip.shape[0] > 100)
    cv2.polylines(strip, [points], False, track_colour(track), thick, cv2.LINE_AA)
    cv2.circle(strip, points[-1].tolist(), 2 * thick, track_colour(track), -1, cv2.LINE_AA)
    leading = np.argmax(np.nan_to_num([score.probability for score in own]), axis=-1)
    colour = np.array(EMOTIONS)[leading % len(EMOTIONS)]
    colour = GRID + (colour - GRID) * height[:, None]
    columns = np.arange(left, x[-1])
    # Each score applies to the time up to its end.
    lane[:, columns] = colour[np.searchsorted(x, columns, side="right").clip(max=len(x) - 1)].astype(np.uint8)
