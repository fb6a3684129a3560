"""Optical flow by total variation and an L1 data term, in JAX: for accelerators, and also the most exact flow on a CPU.

Minimised over the flow w = (u, v), coarse to fine, is the sum over pixels of

    |∇u| + |∇v| + λ sqrt(G * r² + ζ²)

with r the brightness of `next`, warped back along w, minus that of `prev`, and G a Gaussian window. It is the
duality-based TV-L1 flow (Zach, Pock, Bischof, DAGM 2007; Sánchez, Meinhardt-Llopis, Facciolo, IPOL 2013) with five
changes, each of which lowers the error on faces with sensor noise and flicker:

  - the data term uses a window and not a pixel (Bruhn, Weickert, Schnörr, IJCV 61, 2005). Its root is handled by
    reweighting at each warp, which gives a 2 x 2 system per pixel where the original has a threshold;
  - small gradients of the flow count quadratically (Huber; Werlberger et al., BMVC 2009), against staircases;
  - the gradient is the mean of the gradients of both pictures (Wedel et al., ICCV 2009);
  - pictures are warped by cubic splines (Unser, IEEE SPM 16, 1999): simpler interpolation errs more than the noise;
  - at each scale the coarse brightness of both pictures is removed, and their contrast made equal.

All loops have a fixed length, so that there is one program for each picture shape. Its error is given beside
`optical_flow.BACKENDS`. On the faces on which `TVL1Settings` was tuned the error is 0.049 px, and 0.074 px with the
original's threshold in place of the window, at the best of nine settings.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

PAIRS = 32  # pairs per call on an accelerator
POLE = math.sqrt(3) - 2  # of the filter that converts samples to coefficients of their cubic spline
STABILITY = 2.0  # primal step x dual step x 8 (the squared norm of ∇); the iteration is stable below 4


class TVL1Settings(NamedTuple):
    """The settings of the minimisation. Static: each value compiles its own program. Grey levels are of 255."""

    attachment: float = 0.4  # λ: larger values fit the pictures more closely and are less smooth
    huber: float = 0.005  # gradients of the flow below this count quadratically; 0 = total variation proper
    window: float = 1.5  # standard deviation of G, pixels
    noise: float = 1.0  # ζ, grey levels: differences below this are noise
    detail: float = 4.0  # only finer structure than this is compared; standard deviation, pixels
    step: float = 0.1  # of the primal variable
    coarsest: int = 24  # the pyramid halves as long as both sides keep at least this many pixels
    warps: int = 3  # per level
    iterations: int = 15  # per warp


DEFAULT = TVL1Settings()
Picture = Float[Array, "f y x"]
Field = Float[Array, "2 f y x"]  # u and v


@functools.partial(jax.jit, static_argnames="settings")
def tvl1(
    prev: Real[Array, "f y x"], next: Real[Array, "f y x"], settings: TVL1Settings = DEFAULT
) -> Float[Array, "f y x 2"]:
    """Estimate motion u (right), v (down) in pixels: p in `prev` is at p + w(p) in `next`. Grey levels 0 to 255.

    The pairs of pictures are independent.
    """
    pyramid = [(prev.astype(jnp.float32), next.astype(jnp.float32))]
    while min(shape := [(side + 1) // 2 for side in pyramid[-1][0].shape[1:]]) >= settings.coarsest:
        first, second = pyramid[-1]
        pyramid.append((_resize(first, shape), _resize(second, shape)))
    flow = jnp.zeros((2, *pyramid[-1][0].shape), jnp.float32)
    dual = (flow, flow)
    for first, second in reversed(pyramid):
        shape, coarser = first.shape[1:], flow.shape[2:]
        if shape != coarser:
            finer = np.array([shape[1] / coarser[1], shape[0] / coarser[0]], np.float32)[:, None, None, None]
            flow, dual_x, dual_y = (_resize(field, shape) for field in (flow, *dual))
            flow, dual = flow * finer, (dual_x, dual_y)
        flow, dual = _level(first, second, flow, dual, settings)
    return jnp.moveaxis(flow, 0, -1)


def flows(
    prev: Real[np.ndarray, "#f y x"],
    next: Real[np.ndarray, "f y x"],
    settings: TVL1Settings = DEFAULT,
    pairs: int | None = None,
) -> Float[np.ndarray, "f y x 2"]:
    """Run `tvl1` on any number of pairs on the host; a single picture `prev` is used for all of `next`.

    The default device gets `pairs` at a time, with the last block filled up, so that no number of pairs causes a new
    compilation. The default is `PAIRS`, or one on a CPU, where a single pair stays in the core's cache. It runs in one
    thread, meant for one process per core.
    """
    if pairs is None:
        pairs = 1 if jax.default_backend() == "cpu" else PAIRS
    prev = np.broadcast_to(prev, next.shape)
    blocks = [np.empty((0, *next.shape[1:], 2), np.float32)]
    for start in range(0, len(next), pairs):
        block = np.minimum(np.arange(start, start + pairs), len(next) - 1)
        blocks.append(tvl1(prev[block], next[block], settings=settings))
    return np.concatenate(blocks)[: len(next)]


def _level(
    first: Picture, second: Picture, flow: Field, dual: tuple[Field, Field], settings: TVL1Settings
) -> tuple[Field, tuple[Field, Field]]:
    """Run all warps at one scale; takes and returns a flow and its dual variables for ∂x and ∂y."""
    first, second = (picture - _smooth(picture, _gaussian(settings.detail)) for picture in (first, second))
    second = second * jnp.sqrt((_power(first) + 1e-3) / (_power(second) + 1e-3))
    spline = _smooth(second, _spline_kernel())
    gradient = _gradient(first)

    def warp(_, state):
        flow, dual = state
        data = _data_term(first, gradient, spline, flow, settings)
        return minimise(flow, dual, data, settings)

    return jax.lax.fori_loop(0, settings.warps, warp, (flow, dual))


def _data_term(
    first: Picture, gradient: tuple[Picture, Picture], spline: Picture, flow: Field, settings: TVL1Settings
) -> tuple[Field, Picture, Field]:
    """Return the proximal step of the data term near `flow`, as an affine map of w at each pixel: see `minimise`.

    With R = sqrt(G * r² + ζ²) at `flow`, λ R is bounded by λ (G * r²) / 2R and a constant, and r is linear in w to
    first order; so the step solves (1 + τ J) w' = w - τ b, with J = G * (λ/R ∇r ∇rᵀ) and b = G * (λ/R ∇r r₀).
    """
    back, inside = _warp(spline, flow)
    x, y = ((one + other) / 2 for one, other in zip(gradient, _gradient(back), strict=True))
    window = _gaussian(settings.window)
    r = back - first
    rest = r - x * flow[0] - y * flow[1]  # r₀, the value at zero flow
    weight = settings.attachment * inside * jax.lax.rsqrt(_smooth(r * r, window) + settings.noise**2)
    # The barrier keeps the compiler from computing all this again in each of the five filters.
    x, y, rest, weight = jax.lax.optimization_barrier((x, y, rest, settings.step * weight))
    wx, wy = weight * x, weight * y
    xx, xy, yy, bx, by = (_smooth(part, window) for part in (wx * x, wx * y, wy * y, wx * rest, wy * rest))
    scale = 1 / ((1 + xx) * (1 + yy) - xy * xy)
    same_x, same_y, cross = (1 + yy) * scale, (1 + xx) * scale, -xy * scale
    shift = -(same_x * bx + cross * by), -(same_y * by + cross * bx)
    return jnp.stack([same_x, same_y]), cross, jnp.stack(shift)


def minimise(
    flow: Field, dual: tuple[Field, Field], data: tuple[Field, Picture, Field], settings: TVL1Settings
) -> tuple[Field, tuple[Field, Field]]:
    """Run `settings.iterations` inner iterations: a step up in the dual variables, then one down in the flow.

        p <- q / max(1, |q|)   with q = (p + σ ∇w) / (1 + σ huber), for u and v apart, by forward differences
        w <- A (w + τ div p) + c

    This is the Arrow-Hurwicz form of the primal-dual method (Zhu, Chan, UCLA CAM 08-34, 2008; Chambolle, Pock, JMIV 40,
    2011, with θ = 0): on faces it converged as fast as θ = 1, with fewer arrays.

    Args:
      dual: p along x and along y; values across the far borders are ignored.
      data: the two diagonal elements of A, its off-diagonal element, and c.
    """
    _, f, height, width = flow.shape
    count, halo = f * height * width, width
    dual_step = STABILITY / (8 * settings.step)
    shrink = 1 / (1 + dual_step * settings.huber)
    # Arrays are flat, with a halo of one row before and after, and are updated in place: then a neighbour is a shift of
    # the whole array, which CPUs do at full vector width. Values from the next row or picture are masked.
    mask_x = np.ones((f, height, width), np.float32)
    mask_y = mask_x.copy()
    mask_x[:, :, -1] = mask_y[:, -1] = 0
    mask_x, mask_y = mask_x.reshape(1, count), mask_y.reshape(1, count)
    up_x, up_y = (mask * np.float32(dual_step * shrink) for mask in (mask_x, mask_y))
    diagonal, beside, shift = (array.reshape(-1, count) for array in data)

    def at(array, offset):
        return jax.lax.slice_in_dim(array, halo + offset, halo + offset + count, axis=1)

    def put(array, values):
        return jax.lax.dynamic_update_slice(array, values, (0, halo))

    def step(_, state):
        w, px, py = state
        x = shrink * at(px, 0) + up_x * (at(w, 1) - at(w, 0))
        y = shrink * at(py, 0) + up_y * (at(w, width) - at(w, 0))
        scale = jax.lax.optimization_barrier(1 / jnp.maximum(1, jnp.sqrt(x * x + y * y)))
        px, py = jax.lax.optimization_barrier((put(px, x * scale), put(py, y * scale)))
        down = at(w, 0) + settings.step * (at(px, 0) - at(px, -1) + at(py, 0) - at(py, -width))
        return put(w, diagonal * down + beside * down[::-1] + shift), px, py

    flat = [array.reshape(2, count) for array in (flow, *dual)]
    flat = [flat[0], flat[1] * mask_x, flat[2] * mask_y]
    state = tuple(jnp.pad(array, ((0, 0), (halo, halo))) for array in flat)
    state = jax.lax.fori_loop(0, settings.iterations, step, state)
    new_flow, dual_x, dual_y = (at(array, 0).reshape(flow.shape) for array in state)
    return new_flow, (dual_x, dual_y)


def _warp(spline: Picture, flow: Field) -> tuple[Picture, Picture]:
    """Return the picture of these spline coefficients at x + u, y + v, and 1 where that is inside it, else 0."""
    f, height, width = spline.shape
    grid = (np.arange(width, dtype=np.float32)[None, None, :], np.arange(height, dtype=np.float32)[None, :, None])
    x, y = (p + w for p, w in zip(grid, flow, strict=True))
    near_x, near_y = jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)
    left, top = jnp.floor(near_x), jnp.floor(near_y)
    stride = width + 3
    flat = jnp.pad(spline, ((0, 0), (1, 2), (1, 2)), mode="reflect").ravel()
    picture = np.arange(f, dtype=np.int32)[:, None, None] * (height + 3)
    index = (picture + top.astype(jnp.int32)) * stride + left.astype(jnp.int32)
    index = jnp.clip(index, 0, flat.size - 3 * (stride + 1) - 1)  # out of range only if a grey level is not finite
    columns, rows = _spline_weights(near_x - left), _spline_weights(near_y - top)
    values = sum(
        row * sum(c * flat.at[index + j * stride + i].get(mode="promise_in_bounds") for i, c in enumerate(columns))
        for j, row in enumerate(rows)
    )
    return cast(Array, values), ((near_x == x) & (near_y == y)).astype(jnp.float32)


def _spline_weights(t: Picture) -> tuple[Picture, ...]:
    """Return the cubic B-spline weights of the four samples around a point `t` after the second one."""
    return (1 - t) ** 3 / 6, (3 * t - 6) * t * t / 6 + 2 / 3, ((3 - 3 * t) * t + 3) * t / 6 + 1 / 6, t**3 / 6


def _spline_kernel() -> np.ndarray:
    kernel = POLE ** np.abs(np.arange(-8, 9))
    return kernel / kernel.sum()


def _gaussian(sigma: float) -> np.ndarray:
    reach = math.ceil(2.5 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return kernel / kernel.sum()


def _smooth(array: Picture, kernel: np.ndarray) -> Picture:
    """Convolve pictures with a symmetric kernel along both axes; borders are mirrored."""
    for axis in (-2, -1):
        array = _correlate(array, kernel, axis)
    return array


def _correlate(array: Picture, kernel: np.ndarray, axis: int) -> Picture:
    reach, size = len(kernel) // 2, array.shape[axis]
    width = [(0, 0)] * array.ndim
    width[axis] = (reach, reach)
    # Without the barriers the compiler fuses one filter into the next and computes it again for every tap.
    padded = jax.lax.optimization_barrier(jnp.pad(array, width, mode="reflect"))
    taps = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) * float(k) for i, k in enumerate(kernel) if k)
    return jax.lax.optimization_barrier(sum(taps))


def _gradient(picture: Picture) -> tuple[Picture, Picture]:
    """Return central differences along x and y."""
    kernel = np.array([-0.5, 0, 0.5])
    return _correlate(picture, kernel, -1), _correlate(picture, kernel, -2)


def _power(picture: Picture) -> Float[Array, "f 1 1"]:
    return jnp.mean(picture * picture, axis=(1, 2), keepdims=True)


def _resize(array: Float[Array, "*any y x"], shape: Sequence[int]) -> Float[Array, "*any y2 x2"]:
    return jax.image.resize(array, (*array.shape[:-2], *shape), "linear")
