"""Is this a whole face, and are these its landmarks? What one frame says of it, and the verdict."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.face import appearance, landmarks, pose, template
from stag_jax.face.alignment import apply, compose, inverse, similarity

# Each face is looked at in a square crop in which it stands upright, at one size and place. The predictor answers
# in whole pixels, so a large crop gives fractions of those of the frame; and the detector's score is steady from frame
# to frame only where the face always meets its raster of 8 pixels in the same way.
SIDE = 360
SMALL = 120  # the same crop for the detector: a margin around its window of 80
EYES = 156.0  # distance of the outer eye corners in the crop
BELOW = 0.34  # the centre of the crop is this far below the eyes, in outer eye distances
BOX = (1.55, 0.29)  # side of the predictor's box and how far below the eyes its centre is: where it is steadiest
SHIFT = 0.08  # of the boxes that only test the landmarks, right and down; all in outer eye distances
UPRIGHT = 0.1  # sine of the tilt below which a head is left as it is
FOUND = (1.75, 0.33)  # side of the detector's boxes and how far below the eyes their centre is, on average
GROUPS = {"right eye": slice(36, 42), "left eye": slice(42, 48), "nose": slice(27, 36), "mouth": slice(48, 68)}
_GROUP = [0, 1, 2, 3, 3]  # of each of appearance.REGIONS

# Limits. They come from 11 000 rendered frames, of which they refuse none, from 50 pictures of 30 faces with 2 400
# things pasted over them, and from a video of a face that laughs, turns, and is covered by a hand.
SPREAD = 0.006  # outer eye distances by which landmarks from shifted boxes differ; most are at 0.004
ALIKE = 0.65  # correlation of a region with its last confirmed view
EQUAL = 0.85  # correlation of the least similar region, above which nothing has come before the face
KNOWN = 0.5  # correlation of the most similar region, below which the views do not show the same thing
DROP, FALL = 0.85, 0.65  # the detector's score as a fraction of what it was: less content, much less
LEAST = -2.0  # score that stands for any lower one
POOR, FAIR = 0.9, 1.4  # scores of a face without a past: below the first too little, above the second good enough
WILD = 0.015  # spread that no whole face without a past has
CHAOS = 0.03  # spread of what is no face at all
OUTSIDE = 0.05  # outer eye distances by which a landmark may lie outside the picture

NOTHING, LOST = "no face", "landmarks lost"

_STABLE = list(template.STABLE)
_TARGET = (template.mean_face()[_STABLE] - (0, BELOW)) * EYES + (SIDE - 1) / 2
_INNER = slice(17, 68)  # all but the jaw, which tight crops cut


class Look(NamedTuple):
    """One frame, seen through a crop."""

    crop: UInt8[np.ndarray, "y x"]
    small: UInt8[np.ndarray, "y2 x2"]
    raw: Float[np.ndarray, "p 2"]  # landmarks in pixels of the crop
    landmarks: Float[np.ndarray, "p 2"]  # and of the frame
    place: Float[np.ndarray, "2 3"]  # the crop that these landmarks ask for
    view: Float[np.ndarray, "region pixel"]


class Exam(NamedTuple):
    """What detector and predictor say of a look."""

    score: float
    spread: Float[np.ndarray, " group"]  # a number for each of GROUPS, in outer eye distances


class Face(NamedTuple):
    """A face as it was when it was last confirmed."""

    view: Float[np.ndarray, "region pixel"]
    score: float  # of the detector, falling slowly when it falls
    spread: float  # of the landmarks: the median of the groups


def look(frame: UInt8[np.ndarray, "y x 3"], place: Float[np.ndarray, "2 3"], predictor: str, times: int = 1) -> Look:
    """The landmarks of the face at `place`, if there is one there: a transform from pixels of the frame to the crop.

    With `times` > 1 the crop is taken anew from what was found, so that the result forgets where it began.
    """
    for _ in range(times):
        crop, matrix = _cut(frame, place)
        raw = landmarks.predict(crop, _box(0.0), predictor)
        points = apply(inverse(matrix), raw).astype(np.float32)
        place = place_of(points)
    small = cv2.resize(crop, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    return Look(crop, small, raw, points, place, appearance.view(small, (raw + 0.5) * (SMALL / SIDE) - 0.5))


def examine(seen: Look, predictor: str) -> Exam:
    """Asks the detector whether there is a face in the crop, and the predictor whether it means its landmarks.

    A predictor that sees a whole face comes to the same landmarks from shifted boxes; where it guesses, they differ.
    """
    runs = np.stack([seen.raw, *(landmarks.predict(seen.crop, _box(shift), predictor) for shift in (SHIFT, -SHIFT))])
    apart = np.linalg.norm(runs - runs.mean(axis=0), axis=-1).mean(axis=0) / EYES
    spread = np.array([apart[group].mean() for group in GROUPS.values()])
    return Exam(landmarks.score(seen.small, LEAST), spread)


def objection(seen: Look, size: tuple[int, int], limit: float) -> str:
    """What speaks against landmarks by themselves; empty if nothing does. `size` is height and width of the frame."""
    turned = pose.fit(seen.landmarks)
    for angle, words in ((turned.yaw, "turned"), (turned.pitch, "bent")):
        if abs(angle) > limit:
            return f"head {words} by {abs(angle):.0f} degrees"
    inner = seen.landmarks[_INNER]
    over = max(-inner.min(), (inner - (size[1] - 1, size[0] - 1)).max())
    return "partly outside the picture" if over > OUTSIDE * eyes(seen.place) else ""


def verdict(seen: Look, exam: Exam, face: Face | None, least: float) -> str:
    """Why this is not a whole face, or nothing if it is one; `least` is the lowest score of a face.

    Three witnesses: a region looks other than it did, the landmarks of a group are unsure, the detector is less
    content. Blinks and smiles bring up one of them, and two are needed. A face without a past has only the last two,
    and they must be clearer.
    """
    widest = exam.spread.max()
    if exam.score <= least and widest > CHAOS:
        return NOTHING
    likes = None if face is None else appearance.likeness(face.view, seen.view)
    if face is None or likes.max() < KNOWN:
        fine = exam.score > POOR and widest < WILD and (exam.score > FAIR or widest < SPREAD)
    else:
        unsure, changed = exam.spread > SPREAD, likes < ALIKE
        poorer = exam.score < max(DROP * face.score, POOR)
        poor = exam.score < max(FALL * face.score, POOR)
        moved = likes.min() < EQUAL
        fine = not ((changed & unsure[_GROUP]).any() or (poorer and moved and unsure.any()) or (poor and changed.any()))
    if fine:
        return ""
    return LOST if exam.spread.min() > SPREAD else "partly hidden"


def start(found: landmarks.Found) -> Float[np.ndarray, "2 3"]:
    """The place of an average face in a box of the detector."""
    left, top, right, bottom = found.box
    side, below = FOUND
    c, s = np.cos(np.radians(found.tilt)), np.sin(np.radians(found.tilt))
    upright = (template.mean_face()[_STABLE] - (0, below)) * ((right - left) / side)
    return similarity(upright @ np.array([[c, s], [-s, c]]) + ((left + right) / 2, (top + bottom) / 2), _TARGET)


def place_of(points: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "2 3"]:
    """The place of a face with these landmarks."""
    return similarity(points[_STABLE].astype(np.float64), _TARGET)


def box(place: Float[np.ndarray, "2 3"]) -> landmarks.Box:
    """The box of the face at a place, such as the detector would give."""
    side, below = FOUND
    wide = round(side * eyes(place))
    left, top = (round(float(v) - wide / 2) for v in centre(place, below - BELOW))
    return landmarks.Box(left, top, left + wide, top + wide)


def centre(place: Float[np.ndarray, "2 3"], below: float = 0.0) -> Float[np.ndarray, "2"]:
    """The middle of the crop in pixels of the frame, or a point so many outer eye distances below it."""
    return apply(inverse(place), np.array([SIDE - 1, SIDE - 1 + 2 * below * EYES]) / 2)


def eyes(place: Float[np.ndarray, "2 3"]) -> float:
    """The outer eye distance of the face at a place, in pixels of the frame."""
    return EYES / float(np.hypot(*place[:, 0]))


def _box(shift: float) -> landmarks.Box:
    side, below = BOX
    x, y = ((SIDE - 1) / 2 + (shift + down) * EYES for down in (0, below - BELOW))
    half = side * EYES / 2
    return landmarks.Box(*(round(v) for v in (x - half, y - half, x + half, y + half)))


def _cut(
    frame: UInt8[np.ndarray, "y x 3"], place: Float[np.ndarray, "2 3"]
) -> tuple[UInt8[np.ndarray, "y2 x2"], Float[np.ndarray, "2 3"]]:
    """The crop, grey, and its transform. Only the part of the frame that it shows is touched.

    A head that is nearly upright is not turned, and all corners are whole pixels: resizing costs a quarter of warping.
    """
    scale = np.hypot(*place[:, 0])
    c, s = np.abs(place[:, 0]) / scale
    tilted = s > UPRIGHT
    grow = c + s if tilted else 1.0
    height, width = frame.shape[:2]
    wide = max(2, min(round(SIDE * grow / scale), 3 * max(height, width)))
    left, top = (round(float(v)) for v in centre(place) + (1 - wide) / 2)
    # Of a place outside the frame its last row or column is left.
    x, x2 = (min(max(v, 0), width - 1) for v in (left, left + wide - 1))
    y, y2 = (min(max(v, 0), height - 1) for v in (top, top + wide - 1))
    grey = cv2.cvtColor(np.ascontiguousarray(frame[y : y2 + 1, x : x2 + 1]), cv2.COLOR_RGB2GRAY)
    over = [max(v, 0) for v in (y - top, top + wide - 1 - y2, x - left, left + wide - 1 - x2)]
    if any(over):
        grey = cv2.copyMakeBorder(grey, *over, cv2.BORDER_REPLICATE)[:wide, :wide]
    side = round(SIDE * grow)
    crop = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA if wide > 2 * side else cv2.INTER_LINEAR)
    k = side / wide
    matrix = np.array([[k, 0, (0.5 - left) * k - 0.5], [0, k, (0.5 - top) * k - 0.5]])
    if tilted:
        turn = compose(place, inverse(matrix))
        crop = cv2.warpAffine(crop, turn, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        matrix = place
    return crop, matrix
