"""The canonical face: positions of the 68 landmarks of an average frontal face, symmetric by construction.

Landmarks are numbered as in iBUG 300-W, from 0. `l` and `r` are the subject's sides: the subject's right is the left of
the picture.
"""

import numpy as np
from jaxtyping import Float, Int

# Half a face: the picture's left side and the midline, as x, y in outer eye distances from the middle between the eyes;
# y points down. Averages of the 68-point predictor's output for frontal faces, made symmetric and rounded.
_HALF = {
    0: ((-0.81, 0.04), (-0.81, 0.25), (-0.79, 0.45), (-0.74, 0.65), (-0.67, 0.84), (-0.55, 1.01), (-0.39, 1.15)),
    7: ((-0.20, 1.25), (0.0, 1.28)),
    17: ((-0.67, -0.16), (-0.57, -0.26), (-0.43, -0.30), (-0.27, -0.285), (-0.135, -0.23)),
    27: ((0.0, -0.065), (0.0, 0.065), (0.0, 0.19), (0.0, 0.315)),
    31: ((-0.165, 0.425), (-0.085, 0.445), (0.0, 0.465)),
    36: ((-0.5, 0.0), (-0.41, -0.045), (-0.31, -0.045), (-0.21, 0.0), (-0.31, 0.015), (-0.41, 0.015)),
    48: ((-0.355, 0.675), (-0.23, 0.61), (-0.095, 0.585), (0.0, 0.60)),
    57: ((0.0, 0.87), (-0.10, 0.86), (-0.235, 0.805)),
    60: ((-0.315, 0.68), (-0.10, 0.65), (0.0, 0.66)),
    66: ((0.0, 0.77), (-0.10, 0.765)),
}
_SWAPPED = (
    *((i, 16 - i) for i in range(8)),
    *((17 + i, 26 - i) for i in range(5)),
    *((31, 35), (32, 34)),
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58)),
    *((60, 64), (61, 63), (65, 67)),
)

# Position of the face in the canonical square, as fractions of its side: chin at 0.94, top of the brows at 0.15.
EYE_LINE = 0.30
OUTER_EYES = 0.50  # distance of the outer eye corners

# Position in the onset-to-apex flow images of the MEGC2019 composite, which are cropped more tightly and not to scale:
# measured on the mean motion of their 309 public images, where lids, brows, mouth corners and chin are visible.
FLOW_EYE_LINE = 0.27
FLOW_OUTER_EYES = (0.75, 0.55)  # the same distance, horizontal and vertical scale

EYE_CORNERS = (36, 45)  # the outer ones, right and left; their distance is the unit of length
STABLE = (27, 28, 29, 30, 36, 39, 42, 45)  # nose ridge and eye corners: the points used for alignment


def _mirror() -> Int[np.ndarray, " p"]:
    order = np.arange(68)
    for a, b in _SWAPPED:
        order[[a, b]] = b, a
    return order


MIRROR = _mirror()  # index of the landmark that each landmark becomes when the picture is flipped


def mean_face() -> Float[np.ndarray, "p 2"]:
    """Return the 68 landmarks in outer eye distances from the middle between the eyes; y points down."""
    face = np.full((68, 2), np.nan)
    for first, points in _HALF.items():
        face[first : first + len(points)] = points
    missing = np.isnan(face[:, 0])
    face[missing] = face[MIRROR[missing]] * (-1, 1)
    return face


def in_canonical(points: Float[np.ndarray, "*any 2"]) -> Float[np.ndarray, "*any 2"]:
    """Convert points of the mean face to fractions of the canonical square."""
    return points * OUTER_EYES + (0.5, EYE_LINE)


def in_flow_image(points: Float[np.ndarray, "*any 2"]) -> Float[np.ndarray, "*any 2"]:
    """Convert points of the mean face to fractions of an onset-to-apex flow image."""
    return points * FLOW_OUTER_EYES + (0.5, FLOW_EYE_LINE)


def to_pixels(fraction: Float[np.ndarray, "*any 2"], width: int, height: int) -> Float[np.ndarray, "*any 2"]:
    """Convert fractions of a picture to pixel coordinates x, y. Pixel 0 covers 0 to 1/width: its centre is at half."""
    return fraction * (width, height) - 0.5
