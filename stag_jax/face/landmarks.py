"""The face detector and the 68 landmarks of dlib, for one picture. The only module that imports dlib."""

import functools
import hashlib
import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import dlib
import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.types import UserError

PREDICTOR = "models/shape_predictor_68_face_landmarks.dat"
POINTS = 68
SIDES = (320, 640, 1280)  # longest sides of the copies that are searched for faces, one after the other
ENLARGE = 2.0  # a picture is enlarged by no more than this, otherwise noise is detected as faces
MARGIN = 0.25  # border added to tight crops, in which the detector sees no outline
TILT = {3: -25.0, 4: 25.0}  # in-plane rotation, degrees, of the faces that the fourth and fifth filter find


class NoFaceError(UserError):
    """No face where one is needed; the message names the clip and the frame."""


class Box(NamedTuple):
    """The bounding box of a face, in whole pixels."""

    left: int
    top: int
    right: int
    bottom: int


class Found(NamedTuple):
    """One face that the detector found."""

    box: Box
    score: float  # of the filter, 0 at its own threshold; about 2 for a clear frontal face
    tilt: float  # in-plane rotation, degrees, clockwise; one of -25, 0 and 25


def predictor_path(override: str = "") -> Path:
    """Return the predictor file: `override`, or the one in face_recognition_models.

    That package is located but not imported: its `__init__` needs pkg_resources, which new setuptools no longer have.

    Raises:
      UserError: no such file.
    """
    if override:
        path = Path(override)
        if not path.is_file():
            raise UserError(f"config.face.predictor: {path} is not a file")
        return path
    spec = importlib.util.find_spec("face_recognition_models")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / PREDICTOR
        if path.is_file():
            return path
    raise UserError(
        "no landmark predictor: install face_recognition_models, or name a dlib 68-point file in config.face.predictor"
    )


@functools.cache
def predictor_digest(override: str = "") -> str:
    """Return the SHA-256 of the predictor file. Raises UserError as `predictor_path` does."""
    with predictor_path(override).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _detector():
    return dlib.get_frontal_face_detector()


@functools.cache
def _predictor(override: str):
    path = predictor_path(override)
    try:
        predictor = dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise UserError(f"config.face.predictor: {path} is not a dlib shape predictor") from error
    points = predictor(np.zeros((9, 9), np.uint8), dlib.rectangle(0, 0, 8, 8)).num_parts
    if points != POINTS:
        raise UserError(f"config.face.predictor: {path} gives {points} points, not {POINTS}")
    return predictor


def predict(grey: UInt8[np.ndarray, "y x"], box: Box, predictor: str = "") -> Float[np.ndarray, "p 2"]:
    """Predict the 68 landmarks x, y of the upright face in `box`, in whole pixels of a grey picture.

    Kazemi and Sullivan (CVPR 2014); `predictor` is the path of another predictor file, see `predictor_path`.

    Raises:
      UserError: the predictor file is missing, unusable or gives another number of points.
    """
    # dlib misreads arrays that are not contiguous.
    shape = _predictor(predictor)(np.ascontiguousarray(grey), dlib.rectangle(*box))
    return np.array([(part.x, part.y) for part in shape.parts()], np.float32)


def score(grey: UInt8[np.ndarray, "y x"], least: float) -> float:
    """Return the best score of the detector in a grey picture at its own size, but at least `least`."""
    _, scores, _ = _detector().run(np.ascontiguousarray(grey), 0, least)
    return max(scores, default=least)


def detect(grey: UInt8[np.ndarray, "y x"], least: float) -> list[Found]:
    """Detect the faces of a grey picture that score above `least`, largest first, at the picture's own size.

    Histograms of oriented gradients under five linear filters: frontal, turned to either side, tilted to either side.
    """
    boxes, scores, filters = _detector().run(np.ascontiguousarray(grey), 0, least)
    faces = [
        Found(Box(box.left(), box.top(), box.right(), box.bottom()), score, TILT.get(index, 0.0))
        for box, score, index in zip(boxes, scores, filters, strict=True)
    ]
    return sorted(faces, key=lambda face: (face.box.left - face.box.right) * (face.box.bottom - face.box.top))


def scales(longest: int) -> tuple[float, ...]:
    """Return the scales at which a picture with this longest side (pixels) is searched; smallest first."""
    first, *others = SIDES
    return tuple(sorted({min(first / longest, 1.0), *(min(side / longest, ENLARGE) for side in others)}))


def search(
    image: UInt8[np.ndarray, "y x 3"], scales: tuple[float, ...], least: float, *, margin: bool = False
) -> Iterator[list[Found]]:
    """Yield the faces of an RGB picture that score above `least`, largest first: one list per scaled copy with faces.

    Small copies come first: they are cheap and show the large faces, so a caller that stops at the first list does not
    pay for the others. With `margin`, a copy with a border comes last.
    """
    for scale in scales:
        if faces := [_scaled(face, scale, (0, 0)) for face in detect(_copy(image, scale), least)]:
            yield faces
    if margin:
        scale = scales[min(1, len(scales) - 1)]
        grey = _copy(image, scale)
        dy, dx = (round(side * MARGIN) for side in grey.shape)
        grey = cv2.copyMakeBorder(grey, dy, dy, dx, dx, cv2.BORDER_REPLICATE)
        if faces := [_scaled(face, scale, (dx, dy)) for face in detect(grey, least)]:
            yield faces


def _copy(image: UInt8[np.ndarray, "y x 3"], scale: float) -> UInt8[np.ndarray, "y2 x2"]:
    skip = max(1, math.floor(0.5 / scale))  # subsampling a large picture is cheaper than averaging all of it
    image = np.ascontiguousarray(image[::skip, ::skip])
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    height, width = (max(1, round(side * scale * skip)) for side in grey.shape)
    return cv2.resize(grey, (width, height), interpolation=interpolation)


def _scaled(face: Found, scale: float, shift: tuple[int, int]) -> Found:
    moved = (v - shift[i % 2] for i, v in enumerate(face.box))
    return face._replace(box=Box(*(round(v / scale) for v in moved)))
