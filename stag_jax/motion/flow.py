"""Dense optical flow between aligned faces, and the strain of it."""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.config import MotionConfig
from stag_jax.types import UserError

REFERENCES = ("onset", "previous")


def flow(prev: UInt8[np.ndarray, "y x"], next: UInt8[np.ndarray, "y x"], backend: str) -> Float[np.ndarray, "y x 2"]:
    """Motion u (right), v (down) in pixels: what lies at p in `prev` lies at p + flow(p) in `next`.

    `backend` is "dis" (Kroeger et al., ECCV 2016) or "farneback" (Farnebäck, SCIA 2003), both OpenCV's.

    Raises:
      UserError: unknown backend.
    """
    return _backend(backend)(prev, next)


def clip_flow(frames: UInt8[np.ndarray, "f y x"], cfg: MotionConfig) -> Float[np.ndarray, "f y x 2"]:
    """Flow of every frame, in pixels: from the first frame ("onset") or from the one before ("previous").

    The first frame has no flow: zeros.

    Raises:
      UserError: unknown `cfg.flow` or `cfg.reference`.
    """
    if cfg.reference not in REFERENCES:
        raise UserError(f"config.motion.reference: {cfg.reference!r} is none of {', '.join(REFERENCES)}")
    backend = _backend(cfg.flow)
    flows = np.zeros((*frames.shape, 2), np.float32)
    for f in range(1, len(frames)):
        flows[f] = backend(frames[0 if cfg.reference == "onset" else f - 1], frames[f])
    return flows


def strain(flow: Float[np.ndarray, "*any y x 2"]) -> Float[np.ndarray, "*any y x"]:
    """Optical strain, per pixel: the Frobenius norm of the symmetric part of the flow's gradient.

    sqrt(e_xx² + e_yy² + 2 e_xy²) with e_xy = (du/dy + dv/dx) / 2 (Shreve et al., FG 2011). Shifts have none, and
    rotations none to first order.
    """
    # Contiguous components: differences along a strided axis take twice as long.
    u_y, u_x = np.gradient(np.ascontiguousarray(flow[..., 0]), axis=(-2, -1))
    v_y, v_x = np.gradient(np.ascontiguousarray(flow[..., 1]), axis=(-2, -1))
    return np.sqrt(u_x**2 + v_y**2 + (u_y + v_x) ** 2 / 2)


def _backend(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    if name not in BACKENDS:
        raise UserError(f"config.motion.flow: {name!r} is none of {', '.join(BACKENDS)}")
    return BACKENDS[name]()


def _dis() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    # OpenCV's presets stop at half resolution, which halves local movements: of a 0.5 px bump of 8 px radius, on
    # synthetic 128 x 128 texture with grey noise, MEDIUM as it comes finds 0.47 (1.2 ms), these settings 0.73 (2.7 ms).
    # Mean error on shifts and bumps of 0 to 2.5 px: 0.045 px before, 0.029 px now; more descent follows the noise.
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    dis.setPatchStride(4)
    dis.setGradientDescentIterations(4)
    dis.setVariationalRefinementIterations(3)
    return lambda prev, next: dis.calc(prev, next, None)


def _farneback() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    # On the same texture: 0.80 of the bump, 0.041 px, 2.4 ms; best on small movements, worse from 2 px on.
    return lambda prev, next: cv2.calcOpticalFlowFarneback(
        prev, next, None, pyr_scale=0.5, levels=3, winsize=13, iterations=3, poly_n=5, poly_sigma=1.1, flags=0
    )


BACKENDS = {"dis": _dis, "farneback": _farneback}
