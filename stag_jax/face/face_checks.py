"""Checks on one frame: whether a crop shows a whole face, and whether its landmarks are right."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.face import appearance, landmarks, pose, template
from stag_jax.face.alignment import apply, compose, inverse, similarity

# Each face is examined in a square crop in which it is upright, at a fixed size and position. The predictor answers in
# whole pixels, so a large crop gives fractions of the frame's pixels; and the detector's score is stable from frame to
# frame only if the face always has the same position on its grid of 8 pixels.
SIDE = 360
SMALL = 120  # the same crop for the detector: a margin around its window of 80
EYES = 156.0  # distance of the outer eye corners in the crop
BELOW = 0.34  # the centre of the crop is this far below the eyes, in outer eye distances
BOX = (1.55, 0.29)  # side of the predictor's box, and its centre below the eyes: where landmarks are most stable
SHIFT = 0.08  # of the boxes that only test the landmarks, right and down; all three in outer eye distances
UPRIGHT = 0.1  # sine of the tilt below which a head is not rotated
FOUND = (1.75, 0.33)  # side of the detector's boxes, and their centre below the eyes, on average
GROUPS = {"right eye": slice(36, 42), "left eye": slice(42, 48), "nose": slice(27, 36), "mouth": slice(48, 68)}
_GROUP = [0, 1, 2, 3, 3]  # index into GROUPS for each of appearance.REGIONS

# Limits. They were set on 11 000 rendered frames, of which they refuse none, on 50 pictures of 30 faces with 2 400
# objects pasted over them, and on a video of a face that laughs, turns, and is covered by a hand.
SPREAD = 0.006  # outer eye distances by which landmarks from shifted boxes differ; most are at 0.004
ALIKE = 0.65  # correlation of a region with its last confirmed view
EQUAL = 0.85  # correlation of the least similar region, above which nothing covers the face
KNOWN = 0.5  # correlation of the most similar region, below which the views do not show the same thing
DROP, FALL = 0.85, 0.65  # the detector's score as a fraction of its earlier value: lower, much lower
LEAST = -2.0  # used in place of any lower score
POOR, FAIR = 0.9, 1.4  # scores of a face without history: too low below the first, good enough above the second
WILD = 0.015  # spread that no whole face without history has
CHAOS = 0.03  # spread where there is no face at all
OUTSIDE = 0.05  # outer eye distances by which a landmark may lie outside the picture

NOTHING, LOST = "no face", "landmarks lost"

_STABLE = list(template.STABLE)
_TARGET = (template.mean_face()[_STABLE] - (0, BELOW)) * EYES + (SIDE - 1) / 2
_INNER = slice(17, 68)  # all but the jaw, which tight crops cut off


class Look(NamedTuple):
    """Crops, landmarks and view of one face in one frame."""

    crop: UInt8[np.ndarray, "y x"]
    small: UInt8[np.ndarray, "y2 x2"]
    raw: Float[np.ndarray, "p 2"]  # landmarks in pixels of the crop
    landmarks: Float[np.ndarray, "p 2"]  # landmarks in pixels of the frame
    place: Float[np.ndarray, "2 3"]  # transform to the crop that fits these landmarks
    view: Float[np.ndarray, "region pixel"]


class Exam(NamedTuple):
    """The answers of detector and predictor for one look."""

    score: float
    spread: Float[np.ndarray, " group"]  # one per group of GROUPS, in outer eye distances


class Face(NamedTuple):
    """One face at the time when it was last confirmed."""

    view: Float[np.ndarray, "region pixel"]
    score: float  # of the detector; follows a falling score slowly
    spread: float  # of the landmarks: the median of the groups


def look(frame: UInt8[np.ndarray, "y x 3"], place: Float[np.ndarray, "2 3"], predictor: str, times: int = 1) -> Look:
    """Predict the landmarks of the face at `place`, a transform from pixels of the frame to the crop.

    With `times` > 1 the crop is cut again from the landmarks found, so that the result does not depend on the start.
    """
    for _ in range(times):
        crop, matrix = _cut(frame, place)
        raw = landmarks.predict(crop, _box(0.0), predictor)
        points = apply(inverse(matrix), raw).astype(np.float32)
        place = place_of(points)
    small = cv2.resize(crop, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    return Look(crop, small, raw, points, place, appearance.view(small, (raw + 0.5) * (SMALL / SIDE) - 0.5))


def examine(seen: Look, predictor: str) -> Exam:
    """Run the detector on the crop, and the predictor from shifted boxes.

    For a whole face the predictor gives the same landmarks from shifted boxes; where it guesses, they differ.
    """
    predictions = np.stack(
        [seen.raw, *(landmarks.predict(seen.crop, _box(shift), predictor) for shift in (SHIFT, -SHIFT))]
    )
    deviation = np.linalg.norm(predictions - predictions.mean(axis=0), axis=-1).mean(axis=0) / EYES
    spread = np.array([deviation[group].mean() for group in GROUPS.values()])
    return Exam(landmarks.score(seen.small, LEAST), spread)


def objection(seen: Look, size: tuple[int, int], limit: float) -> str:
    """Return why the landmarks alone are refused, or "" if they are not. `size` is height and width of the frame."""
    angles = pose.fit(seen.landmarks)
    for angle, words in ((angles.yaw, "turned"), (angles.pitch, "bent")):
        if abs(angle) > limit:
            return f"head {words} by {abs(angle):.0f} degrees"
    inner = seen.landmarks[_INNER]
    excess = max(-inner.min(), (inner - (size[1] - 1, size[0] - 1)).max())
    return "partly outside the picture" if excess > OUTSIDE * eyes(seen.place) else ""


def verdict(seen: Look, exam: Exam, face: Face | None, least: float) -> str:
    """Return why this is not a whole face, or "" if it is one; `least` is the lowest score of a face.

    Three signs: a region looks different, the landmarks of a group are uncertain, the detector's score is lower. Blinks
    and smiles cause one of them, so two are needed. A face without history has only the last two, with stricter
    limits.
    """
    widest = exam.spread.max()
    if exam.score <= least and widest > CHAOS:
        return NOTHING
    likes = None if face is None else appearance.likeness(face.view, seen.view)
    if face is None or likes.max() < KNOWN:
        accepted = exam.score > POOR and widest < WILD and (exam.score > FAIR or widest < SPREAD)
    else:
        unsure, changed = exam.spread > SPREAD, likes < ALIKE
        poorer = exam.score < max(DROP * face.score, POOR)
        poor = exam.score < max(FALL * face.score, POOR)
        moved = likes.min() < EQUAL
        accepted = not (
            (changed & unsure[_GROUP]).any() or (poorer and moved and unsure.any()) or (poor and changed.any())
        )
    if accepted:
        return ""
    return LOST if exam.spread.min() > SPREAD else "partly hidden"


def start(found: landmarks.Found) -> Float[np.ndarray, "2 3"]:
    """Return the place of an average face in a box of the detector."""
    left, top, right, bottom = found.box
    side, below = FOUND
    c, s = np.cos(np.radians(found.tilt)), np.sin(np.radians(found.tilt))
    upright = (template.mean_face()[_STABLE] - (0, below)) * ((right - left) / side)
    return similarity(upright @ np.array([[c, s], [-s, c]]) + ((left + right) / 2, (top + bottom) / 2), _TARGET)


def place_of(points: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "2 3"]:
    """Return the place of a face with these landmarks."""
    return similarity(points[_STABLE].astype(np.float64), _TARGET)


def box(place: Float[np.ndarray, "2 3"]) -> landmarks.Box:
    """Return the box of the face at a place, as the detector would give it."""
    side, below = FOUND
    extent = round(side * eyes(place))
    left, top = (round(float(v) - extent / 2) for v in centre(place, below - BELOW))
    return landmarks.Box(left, top, left + extent, top + extent)


def centre(place: Float[np.ndarray, "2 3"], below: float = 0.0) -> Float[np.ndarray, "2"]:
    """Return the centre of the crop in pixels of the frame, or the point `below` outer eye distances under it."""
    return apply(inverse(place), np.array([SIDE - 1, SIDE - 1 + 2 * below * EYES]) / 2)


def eyes(place: Float[np.ndarray, "2 3"]) -> float:
    """Return the outer eye distance of the face at a place, in pixels of the frame."""
    return EYES / float(np.hypot(*place[:, 0]))


def _box(shift: float) -> landmarks.Box:
    side, below = BOX
    x, y = ((SIDE - 1) / 2 + (shift + down) * EYES for down in (0, below - BELOW))
    half = side * EYES / 2
    return landmarks.Box(*(round(v) for v in (x - half, y - half, x + half, y + half)))


def _cut(
    frame: UInt8[np.ndarray, "y x 3"], place: Float[np.ndarray, "2 3"]
) -> tuple[UInt8[np.ndarray, "y2 x2"], Float[np.ndarray, "2 3"]]:
    """Return the grey crop and its transform. Only the part of the frame that it shows is read.

    A nearly upright head is not rotated, and its corners are whole pixels: resizing costs a quarter of warping.
    """
    scale = np.hypot(*place[:, 0])
    c, s = np.abs(place[:, 0]) / scale
    tilted = s > UPRIGHT
    growth = c + s if tilted else 1.0
    height, width = frame.shape[:2]
    extent = max(2, min(round(SIDE * growth / scale), 3 * max(height, width)))
    left, top = (round(float(v)) for v in centre(place) + (1 - extent) / 2)
    # For a place outside the frame, its last row or column is used.
    x, x2 = (min(max(v, 0), width - 1) for v in (left, left + extent - 1))
    y, y2 = (min(max(v, 0), height - 1) for v in (top, top + extent - 1))
    grey = cv2.cvtColor(np.ascontiguousarray(frame[y : y2 + 1, x : x2 + 1]), cv2.COLOR_RGB2GRAY)
    padding = [max(v, 0) for v in (y - top, top + extent - 1 - y2, x - left, left + extent - 1 - x2)]
    if any(padding):
        grey = cv2.copyMakeBorder(grey, *padding, cv2.BORDER_REPLICATE)[:extent, :extent]
    side = round(SIDE * growth)
    crop = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA if extent > 2 * side else cv2.INTER_LINEAR)
    k = side / extent
    matrix = np.array([[k, 0, (0.5 - left) * k - 0.5], [0, k, (0.5 - top) * k - 0.5]])
    if tilted:
        turn = compose(place, inverse(matrix))
        crop = cv2.warpAffine(crop, turn, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        matrix = place
    return crop, matrix
