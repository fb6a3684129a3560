"""Dense optical flow between aligned faces, and its strain."""

import functools
from collections.abc import Callable
from typing import overload

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from stag_jax.motion import tvl1
from stag_jax.types import UserError

AUTO = "auto"


def resolve(name: str, key: str = "flow") -> str:
    """Return the backend for `name`: "auto" is "tvl1" if jax has an accelerator, otherwise "dis".

    Raises:
      UserError: unknown name; `key` is the key of config.motion that contains it.
    """
    if name == AUTO:
        return "dis" if jax.default_backend() == "cpu" else "tvl1"
    if name not in BACKENDS:
        raise UserError(f"config.motion.{key}: {name!r} is none of {', '.join((AUTO, *BACKENDS))}")
    return name


def flow(prev: UInt8[np.ndarray, "y x"], next: UInt8[np.ndarray, "y x"], backend: str) -> Float[np.ndarray, "y x 2"]:
    """Estimate motion u (right), v (down) in pixels: the point p in `prev` is at p + flow(p) in `next`.

    Raises:
      UserError: unknown backend.
    """
    return flows(prev[None], next[None], backend)[0]


def flows(
    prev: UInt8[np.ndarray, "#f y x"], next: UInt8[np.ndarray, "f y x"], backend: str
) -> Float[np.ndarray, "f y x 2"]:
    """Estimate the flow of each pair, in pixels; a single picture `prev` is used for all of `next`.

    `backend` is one of `BACKENDS`, or "auto" (see `resolve`).

    Raises:
      UserError: unknown backend.
    """
    return BACKENDS[resolve(backend)](np.broadcast_to(prev, next.shape), next)


@overload
def strain(flow: Float[np.ndarray, "*any y x 2"]) -> Float[np.ndarray, "*any y x"]:
    """On the host."""


@overload
def strain(flow: Float[Array, "*any y x 2"]) -> Float[Array, "*any y x"]:
    """In JAX."""


def strain(flow: Float[np.ndarray | Array, "*any y x 2"]) -> Float[np.ndarray | Array, "*any y x"]:
    """Return optical strain, per pixel: the Frobenius norm of the symmetric part of the flow's gradient.

    sqrt(e_xx² + e_yy² + 2 e_xy²) with e_xy = (du/dy + dv/dx) / 2 (Shreve et al., FG 2011). Shifts have no strain,
    and rotations none to first order. A jax array gives a jax array, also under transformations.
    """
    on_host = isinstance(flow, np.ndarray)
    u, v = flow[..., 0], flow[..., 1]
    if on_host:  # make components contiguous: differences along a strided axis take twice as long
        u, v = np.ascontiguousarray(u), np.ascontiguousarray(v)
    gradient = np.gradient if on_host else jnp.gradient
    u_y, u_x = gradient(u, axis=(-2, -1))
    v_y, v_x = gradient(v, axis=(-2, -1))
    return strain_norm(u_x, v_y, (u_y + v_x) / 2)


def strain_norm(
    e_xx: Float[np.ndarray | Array, "*any"],
    e_yy: Float[np.ndarray | Array, "*any"],
    e_xy: Float[np.ndarray | Array, "*any"],
) -> Float[np.ndarray | Array, "*any"]:
    """Return the Frobenius norm of symmetric 2 x 2 tensors, e_xy counted twice."""
    root = np.sqrt if isinstance(e_xx, np.ndarray) else jnp.sqrt
    return root(e_xx**2 + e_yy**2 + 2 * e_xy**2)


def _one_by_one(estimate: Callable[..., np.ndarray], prev: np.ndarray, next: np.ndarray) -> np.ndarray:
    fields = np.empty((*next.shape, 2), np.float32)
    for index, pair in enumerate(zip(prev, next, strict=True)):
        fields[index] = estimate(*pair, None)
    return fields


def _dis(prev: np.ndarray, next: np.ndarray) -> np.ndarray:
    # Kroeger et al., ECCV 2016. OpenCV's presets stop at half resolution, which halves local movements: of a 0.5 px
    # bump of 8 px radius the MEDIUM preset finds 47%, this 82% and tvl1 93%. More iterations of descent fit the noise.
    create = cv2.DISOpticalFlow_create  # pyright: ignore[reportAttributeAccessIssue]  # missing in the stubs of cv2
    dis = create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    dis.setPatchStride(4)
    dis.setGradientDescentIterations(4)
    dis.setVariationalRefinementIterations(3)
    return _one_by_one(dis.calc, prev, next)


def _farneback(prev: np.ndarray, next: np.ndarray) -> np.ndarray:
    # Farnebäck, SCIA 2003.
    calc = functools.partial(
        cv2.calcOpticalFlowFarneback,
        pyr_scale=0.5,
        levels=3,
        winsize=13,
        iterations=3,
        poly_n=5,
        poly_sigma=1.1,
        flags=0,
    )
    return _one_by_one(calc, prev, next)


# On 74 pairs of 128 x 128 faces of synth_me, of people not used for tuning, with a largest movement of 1 to 3 px and a
# mean movement of 0.44 px; end-point error over the face, and time per pair of one thread:
#   tvl1 0.047 px, 4.1 ms; dis 0.064 px, 2.4 ms; farneback 0.093 px, 2.4 ms;
#   scikit-image's TV-L1 with default settings 0.115 px, 88 ms.
BACKENDS = {"dis": _dis, "farneback": _farneback, "tvl1": tvl1.flows}
