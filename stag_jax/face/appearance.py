"""The appearance of a face at its landmarks, and the similarity of two such views, region by region."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.face import template
from stag_jax.face.alignment import similarity

SIDE = 40  # pixels of a view; an eye is then ten wide: enough to recognise it, too few to show a micro-expression
OUTER_EYES = 0.56  # distance of the outer eye corners in the view, as a fraction of its side
EYE_LINE = 0.27
LIGHT = 15  # pixels; brightness changes wider than this come from the lighting and are removed
FLAT = 2.0  # grey levels; regions with less texture than this are compared as if they had this much

# Windows of half a side: x, y of their upper left corner. The eyes with their brows, the nose, the halves of the mouth.
REGIONS = {"right eye": (2, 0), "left eye": (18, 0), "nose": (10, 10), "right mouth": (3, 20), "left mouth": (17, 20)}
_WINDOW = SIDE // 2

_POINTS = [*template.STABLE, 33, 48, 54]  # with the mouth, so that a nodding head keeps its position
_TARGET = template.to_pixels(template.mean_face()[_POINTS] * OUTER_EYES + (0.5, EYE_LINE), SIDE, SIDE)


def view(grey: UInt8[np.ndarray, "y x"], landmarks: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "region pixel"]:
    """Return the regions of a face as vectors of pixel values, with zero mean and scaled to length 1.

    `landmarks` are in pixels of `grey`; there the face should not be much larger than in the view (`SIDE`).
    """
    matrix = similarity(landmarks[_POINTS].astype(np.float64), _TARGET)
    face = cv2.warpAffine(grey, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    face = face.astype(np.float32)
    face -= cv2.blur(face, (LIGHT, LIGHT))
    regions = np.stack([face[y : y + _WINDOW, x : x + _WINDOW].ravel() for x, y in REGIONS.values()])
    regions -= regions.mean(axis=1, keepdims=True)
    return regions / np.hypot(np.linalg.norm(regions, axis=1, keepdims=True), FLAT * _WINDOW)


def likeness(
    one: Float[np.ndarray, "region pixel"], other: Float[np.ndarray, "region pixel"]
) -> Float[np.ndarray, " region"]:
    """Return the correlation of two views per region: 1 for the same picture, about 0 for anything else."""
    return (one * other).sum(axis=1)
