"""One similarity transform per clip, from its landmarks to the canonical face."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.config import FaceConfig
from stag_jax.face import template

SHRINK = 0.7  # below this scale the source is smoothed first, otherwise its texture aliases into motion
BORDER = 4  # source pixels kept around the crop for interpolation and smoothing


def similarity(source: Float[np.ndarray, "p 2"], target: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "2 3"]:
    """Fit the rotation, scale and shift from `source` to `target` in least squares; never a reflection.

    In two dimensions Umeyama's solution (PAMI 13, 1991) needs no SVD: with centred points as complex numbers, the
    scaled rotation is <source, target> / <source, source>.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    s = (source - source_mean) @ (1, 1j)
    t = (target - target_mean) @ (1, 1j)
    turn = np.vdot(s, t) / np.vdot(s, s).real
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def apply(matrix: Float[np.ndarray, "2 3"], points: Float[np.ndarray, "*any 2"]) -> Float[np.ndarray, "*any 2"]:
    """Apply a 2 x 3 transform to points x, y."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def compose(second: Float[np.ndarray, "2 3"], first: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """Return the transform that applies `first`, then `second`."""
    return np.column_stack([second[:, :2] @ first[:, :2], apply(second, first[:, 2])])


def inverse(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """Return the inverse transform of `matrix`."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def canonical_points(size: int) -> Float[np.ndarray, "p 2"]:
    """Return the stable points (`template.STABLE`) of the canonical face, in pixels."""
    return template.to_pixels(template.in_canonical(template.mean_face()[list(template.STABLE)]), size, size)


def clip_transform(landmarks: Float[np.ndarray, "f p 2"], cfg: FaceConfig) -> Float[np.ndarray, "2 3"]:
    """Return the transform of a clip, from raw pixels to the canonical face of `cfg.size` x `cfg.size` pixels.

    It is fitted to the median of the stable points over the first `cfg.reference_frames` frames: one transform per
    frame from noisy landmarks would hide a movement of one pixel. Frames without landmarks (NaN) are ignored; the
    first frame must have them.
    """
    stable = np.nanmedian(landmarks[: cfg.reference_frames, template.STABLE], axis=0)
    return similarity(stable, canonical_points(cfg.size))


def warp(frame: UInt8[np.ndarray, "y x 3"], matrix: Float[np.ndarray, "2 3"], size: int) -> UInt8[np.ndarray, "y2 x2"]:
    """Return the grey face of `size` x `size` pixels that `matrix` maps from an RGB frame."""
    scale = float(np.hypot(*matrix[:, 0]))
    frame, inner = _crop(frame, matrix, size, scale)
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if scale < SHRINK:
        grey = cv2.GaussianBlur(grey, (0, 0), 0.5 * np.sqrt(1 / scale**2 - 1))  # source pixels
    # Cubic interpolation: a shift by half a pixel hardly changes the texture that optical flow uses.
    return cv2.warpAffine(grey, inner, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _crop(
    frame: UInt8[np.ndarray, "y x 3"], matrix: Float[np.ndarray, "2 3"], size: int, scale: float
) -> tuple[UInt8[np.ndarray, "y2 x2 3"], Float[np.ndarray, "2 3"]]:
    """Return the part of the frame that the warp reads (most of it is not face), and the transform from its pixels."""
    corners = np.array([(0, 0), (size, 0), (0, size), (size, size)], float)
    corners = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    border = BORDER + 2 / scale
    height, width = frame.shape[:2]
    left, top = np.clip(np.floor(corners.min(axis=0) - border), 0, (width - 1, height - 1)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0) + border), (left + 1, top + 1), (width, height)).astype(int)
    inner = matrix.copy()
    inner[:, 2] += matrix[:, :2] @ (left, top)
    return frame[top:bottom, left:right], inner
