"""68 facial landmarks by dlib, found once and then followed. The only module that imports dlib."""

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import cv2
import dlib
import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from stag_jax.config import FaceConfig
from stag_jax.types import UserError

PREDICTOR = "models/shape_predictor_68_face_landmarks.dat"
DETECT_SIDE = 480  # faces are looked for in a copy that is at most this long
MARGIN = 0.25  # border put around tight crops, where the detector sees no outline
OUTER_EYES = (36, 45)


class NoFaceError(UserError):
    """No face where one is needed; names the clip and the frame."""


class Box(NamedTuple):
    """Where a face is, in whole pixels."""

    left: int
    top: int
    right: int
    bottom: int


def predictor_path(override: str = "") -> Path:
    """The predictor file: `override`, or the one that face_recognition_models carries.

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
def _detector():
    return dlib.get_frontal_face_detector()


@functools.cache
def _predictor(override: str):
    path = predictor_path(override)
    try:
        return dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise UserError(f"config.face.predictor: {path} is not a dlib shape predictor") from error


def _search(image: UInt8[np.ndarray, "y x 3"], upsample: int) -> list[Box]:
    """All faces, largest first. Downscaling the copy keeps the cost of a 4K frame near that of a VGA one."""
    scale = min(1.0, DETECT_SIDE / max(image.shape[:2]))
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found = _detector()(np.ascontiguousarray(image), upsample)
    boxes = [Box(*(round(v / scale) for v in (r.left(), r.top(), r.right(), r.bottom()))) for r in found]
    return sorted(boxes, key=lambda box: (box.left - box.right) * (box.bottom - box.top))


def detect(image: UInt8[np.ndarray, "y x 3"], *, where: str = "image") -> Box:
    """The largest face of an RGB image; a warning is logged if there are several.

    Raises:
      NoFaceError: no face, neither at the given size nor enlarged nor with a border around it.
    """
    boxes = _search(image, 0) or _search(image, 1)
    if not boxes:
        height, width = image.shape[:2]
        dy, dx = round(height * MARGIN), round(width * MARGIN)
        framed = cv2.copyMakeBorder(image, dy, dy, dx, dx, cv2.BORDER_REPLICATE)
        boxes = [Box(b.left - dx, b.top - dy, b.right - dx, b.bottom - dy) for b in _search(framed, 1)]
    if not boxes:
        raise NoFaceError(f"{where}: no face found")
    if len(boxes) > 1:
        logging.warning("%s: %d faces, the largest is used", where, len(boxes))
    return boxes[0]


def predict(image: UInt8[np.ndarray, "y x 3"], box: Box, cfg: FaceConfig) -> Float[np.ndarray, "p 2"]:
    """The 68 landmarks x, y of the face in `box`, in pixels of the RGB image."""
    shape = _predictor(cfg.predictor)(np.ascontiguousarray(image), dlib.rectangle(*box))
    return np.array([(part.x, part.y) for part in shape.parts()], np.float32)


def track(frames: UInt8[np.ndarray, "f y x 3"], cfg: FaceConfig, *, clip: str) -> Float[np.ndarray, "f p 2"]:
    """The 68 landmarks x, y of every frame, in pixels.

    The detector is asked in the first frame, and again only where the landmarks jump by more than `cfg.redetect_jump`
    outer eye distances or leave their box. In between its box follows the face: it keeps its size and moves by as much
    as the landmarks have moved since it was found, so it can neither shrink nor drift.

    Raises:
      NoFaceError: no face in a frame where one was looked for; names `clip` and the frame.
      UserError: the predictor file is missing or unusable.
    """
    tracked = np.empty((len(frames), 68, 2), np.float32)
    found = box = detect(frames[0], where=f"{clip} frame 0")
    tracked[0] = anchor = predict(frames[0], box, cfg)
    for f in range(1, len(frames)):
        shift = np.rint(np.median(tracked[f - 1] - anchor, axis=0)).astype(int)
        box = _moved(found, shift)
        tracked[f] = predict(frames[f], box, cfg)
        if _lost(tracked[f], tracked[f - 1], box, cfg.redetect_jump):
            found = detect(frames[f], where=f"{clip} frame {f}")
            tracked[f] = anchor = predict(frames[f], found, cfg)
    return tracked


def _moved(box: Box, shift: np.ndarray) -> Box:
    dx, dy = (int(v) for v in shift)
    return Box(box.left + dx, box.top + dy, box.right + dx, box.bottom + dy)


def _lost(now: Float[np.ndarray, "p 2"], before: Float[np.ndarray, "p 2"], box: Box, jump: float) -> bool:
    eyes = np.linalg.norm(before[OUTER_EYES[1]] - before[OUTER_EYES[0]])
    moved = np.median(np.linalg.norm(now - before, axis=1))
    x, y = now.mean(axis=0)
    inside = box.left <= x <= box.right and box.top <= y <= box.bottom
    return bool(moved > jump * eyes or not inside)
