"""Head pose from the rigid landmarks."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from stag_jax.face import template

# Depth of each landmark in front of the outer eye corners, in outer eye distances; rounded from averages of adult heads
# (nose 20 mm high at the tip, 95 mm between the corners). Only points that expressions hardly move.
_DEPTH = {27: 0.13, 28: 0.20, 29: 0.28, 30: 0.36, 31: 0.19, 32: 0.23, 33: 0.25, 34: 0.23, 35: 0.19}
_DEPTH |= {36: 0.0, 39: 0.04, 42: 0.04, 45: 0.0}
RIGID = tuple(_DEPTH)
_RIGID = list(RIGID)


class Pose(NamedTuple):
    """Rotation of one head in degrees; all zero for a face that looks into the camera."""

    yaw: float  # to the side; positive when the nose points to the right of the picture
    pitch: float  # positive when the chin goes towards the chest
    roll: float  # in the picture; positive clockwise


def model() -> Float[np.ndarray, "rigid 3"]:
    """Return the rigid landmarks (`RIGID`) of an average head: x, y as in the picture, z away from the camera."""
    return np.column_stack([template.mean_face()[_RIGID], [-depth for depth in _DEPTH.values()]])


def rotation(pose: Pose) -> Float[np.ndarray, "3 3"]:
    """Return the rotation matrix of a pose, relative to looking into the camera: yaw first, then pitch, then roll."""
    (sy, sp, sr), (cy, cp, cr) = (turn(np.radians(pose)) for turn in (np.sin, np.cos))
    yaw = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return roll @ pitch @ yaw


_MODEL = model() - model().mean(axis=0)
_INVERSE = np.linalg.pinv(_MODEL).T


def fit(landmarks: Float[np.ndarray, "p 2"]) -> Pose:
    """Fit the pose of a head under scaled orthographic projection (a camera many head sizes away).

    Find the 2 x 3 matrix that maps the model to the landmarks in least squares, then the closest one with orthogonal
    rows of equal length (as POS does: DeMenthon and Davis, IJCV 15, 1995). Noses differ, so expect errors of about 10
    degrees in pitch and 5 in yaw between persons; for one person the error is the same in every frame.
    """
    # The mean of the model is 0, so the mean of the landmarks has no effect.
    u, v = landmarks[_RIGID].astype(np.float64).T @ _INVERSE
    # The closest orthonormal rows are (M M')^(-1/2) M; of 2 x 2 matrices, S^(1/2) is S + sqrt(det S) up to a factor.
    a, b, d = float(u @ u), float(u @ v), float(v @ v)
    root = math.sqrt(max(a * d - b * b, 0.0))
    x, y = (d + root) * u - b * v, (a + root) * v - b * u
    (x0, x1, x2), (y0, y1, y2) = x / math.sqrt(x @ x), y / math.sqrt(y @ y)
    z0, z1, z2 = x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0
    angles = math.atan2(z0, z2), math.asin(min(max(z1, -1.0), 1.0)), math.atan2(-x1, y1)
    return Pose(*(math.degrees(angle) for angle in angles))
