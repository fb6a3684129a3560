"""Optical flow by total variation and an L1 data term, in JAX: for accelerators, and the most exact flow on a CPU too.

Minimised over the flow w = (u, v), coarse to fine, is the sum over pixels of

    |∇u| + |∇v| + λ sqrt(G * r² + ζ²)

with r the brightness that `next`, taken back along w, has over `prev`, and G a Gaussian window. It is the duality-based
TV-L1 flow (Zach, Pock, Bischof, DAGM 2007; Sánchez, Meinhardt-Llopis, Facciolo, IPOL 2013) with five changes, each of
which lowers the error on faces with sensor noise and flicker:

  - the data term looks at a window and not at a pixel (Bruhn, Weickert, Schnörr, IJCV 61, 2005). Its root is taken by
    reweighting at each warp, which leaves a 2 x 2 system a pixel where the original has a threshold;
  - small gradients of the flow count quadratically (Huber; Werlberger et al., BMVC 2009), against staircases;
  - the gradient is the mean of both pictures' (Wedel et al., ICCV 2009);
  - pictures are warped by cubic splines (Unser, IEEE SPM 16, 1999): cruder interpolation errs more than the noise;
  - at each scale both pictures lose their coarse brightness and are brought to one contrast.

All runs a fixed number of times, so that there is one program for each shape of picture. What it does to the error is
measured beside `flow.BACKENDS`. On the faces that `Settings` was tuned on it errs by 0.049 px, and with the original's
threshold in place of the window by 0.074 px, at the best of nine settings.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

PAIRS = 32  # pairs that an accelerator takes at once
POLE = math.sqrt(3) - 2  # of the filter that turns samples into coefficients of their cubic spline
STABILITY = 2.0  # primal step x dual step x 8 (the squared norm of ∇); the iteration is stable below 4


class TVL1Settings(NamedTuple):
    """What is minimised, and how long. Static: other settings are another program. Grey levels are of 255."""

    attachment: float = 0.4  # λ: the larger, the closer to the pictures and the less smooth
    huber: float = 0.005  # gradients of the flow below this count quadratically; 0 = total variation proper
    window: float = 1.5  # standard deviation of G, pixels
    noise: float = 1.0  # ζ, grey levels: differences below this are noise
    detail: float = 4.0  # only what is finer than this is compared; standard deviation, pixels
    step: float = 0.1  # of the primal variable
    coarsest: int = 24  # the pyramid halves as long as both sides keep so many pixels
    warps: int = 3  # a level
    iterations: int = 15  # a warp


DEFAULT = TVL1Settings()
Picture = Float[Array, "f y x"]
Field = Float[Array, "2 f y x"]  # u and v


@functools.partial(jax.jit, static_argnames="settings")
def tvl1(
    prev: Real[Array, "f y x"], next: Real[Array, "f y x"], settings: TVL1Settings = DEFAULT
) -> Float[Array, "f y x 2"]:
    """Motion u (right), v (down) in pixels: what lies at p in `prev` lies at p + w(p) in `next`. Grey levels 0 to 255.

    Each pair of pictures is for itself.
    """
    pyramid = [(prev.astype(jnp.float32), next.astype(jnp.float32))]
    while min(shape := [(side + 1) // 2 for side in pyramid[-1][0].shape[1:]]) >= settings.coarsest:
        pyramid.append(tuple(_resize(picture, shape) for picture in pyramid[-1]))
    flow = jnp.zeros((2, *pyramid[-1][0].shape), jnp.float32)
    dual = (flow, flow)
    for first, second in reversed(pyramid):
        shape, coarser = first.shape[1:], flow.shape[2:]
        if shape != coarser:
            finer = np.array([shape[1] / coarser[1], shape[0] / coarser[0]], np.float32)[:, None, None, None]
            flow, *dual = (_resize(field, shape) for field in (flow, *dual))
            flow = flow * finer
        flow, dual = _level(first, second, flow, tuple(dual), settings)
    return jnp.moveaxis(flow, 0, -1)


def flows(
    prev: Real[np.ndarray, "#f y x"],
    next: Real[np.ndarray, "f y x"],
    settings: TVL1Settings = DEFAULT,
    pairs: int | None = None,
) -> Float[np.ndarray, "f y x 2"]:
    """`tvl1` for any number of pairs on the host; one picture `prev` serves all of `next`.

    They go to the default device `pairs` at a time, the last block filled up, so that their number never compiles
    anything. Left out, that is `PAIRS`, or one on a CPU: there a single pair stays in the core's cache. It is the work
    of one thread, for one process a core.
    """
    if pairs is None:
        pairs = 1 if jax.default_backend() == "cpu" else PAIRS
    prev = np.broadcast_to(prev, next.shape)
    found = [np.empty((0, *next.shape[1:], 2), np.float32)]
    for start in range(0, len(next), pairs):
        block = np.minimum(np.arange(start, start + pairs), len(next) - 1)
        found.append(tvl1(prev[block], next[block], settings=settings))
    return np.concatenate(found)[: len(next)]


def _level(
    first: Picture, second: Picture, flow: Field, dual: tuple[Field, Field], settings: TVL1Settings
) -> tuple[Field, tuple[Field, Field]]:
    """All warps at one scale, from and to a flow and its dual variables for ∂x and ∂y."""
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
    """What the proximal step of the data term near `flow` does to w at each pixel: see `minimise`.

    With R = sqrt(G * r² + ζ²) at `flow`, λ R is bounded by λ (G * r²) / 2R and a constant, and r is linear in w to
    first order; so the step solves (1 + τ J) w' = w - τ b, with J = G * (λ/R ∇r ∇rᵀ) and b = G * (λ/R ∇r r₀).
    """
    back, inside = _warp(spline, flow)
    x, y = ((one + other) / 2 for one, other in zip(gradient, _gradient(back), strict=True))
    window = _gaussian(settings.window)
    r = back - first
    rest = r - x * flow[0] - y * flow[1]  # r₀, as it would be at zero flow
    weight = settings.attachment * inside * jax.lax.rsqrt(_smooth(r * r, window) + settings.noise**2)
    # The barrier keeps the compiler from working all this out anew in each of the five filters.
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
    """The inner iteration, `settings.iterations` times: a step up in the dual variables, then one down in the flow.

        p <- q / max(1, |q|)   with q = (p + σ ∇w) / (1 + σ huber), for u and v apart, by forward differences
        w <- A (w + τ div p) + c

    This is the Arrow-Hurwicz form of the primal-dual method (Zhu, Chan, UCLA CAM 08-34, 2008; Chambolle, Pock, JMIV 40,
    2011, with θ = 0): on faces it came as far in as many steps as θ = 1, with fewer arrays.

    Args:
      dual: p along x and along y; what it has across the far borders is ignored.
      data: A and c, as the two diagonal elements of A, the one beside the diagonal, and c.
    """
    _, f, height, width = flow.shape
    count, halo = f * height * width, width
    dual_step = STABILITY / (8 * settings.step)
    shrink = 1 / (1 + dual_step * settings.huber)
    # Arrays lie flat, with a halo of a row before and behind, and are updated in place: then a neighbour is a shift of
    # the whole array, which CPUs do at full width. What it takes from the next row or picture is masked.
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
    flow, *dual = (at(array, 0).reshape(flow.shape) for array in state)
    return flow, tuple(dual)


def _warp(spline: Picture, flow: Field) -> tuple[Picture, Picture]:
    """The picture with these spline coefficients at x + u, y + v, and 1 where that lies inside the picture."""
    f, height, width = spline.shape
    place = (np.arange(width, dtype=np.float32)[None, None, :], np.arange(height, dtype=np.float32)[None, :, None])
    x, y = (p + w for p, w in zip(place, flow, strict=True))
    near_x, near_y = jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)
    left, top = jnp.floor(near_x), jnp.floor(near_y)
    stride = width + 3
    flat = jnp.pad(spline, ((0, 0), (1, 2), (1, 2)), mode="reflect").ravel()
    picture = np.arange(f, dtype=np.int32)[:, None, None] * (height + 3)
    index = (picture + top.astype(jnp.int32)) * stride + left.astype(jnp.int32)
    index = jnp.clip(index, 0, flat.size - 3 * (stride + 1) - 1)  # outside only where a grey level is not finite
    columns, rows = _spline_weights(near_x - left), _spline_weights(near_y - top)
    values = sum(
        row * sum(c * flat.at[index + j * stride + i].get(mode="promise_in_bounds") for i, c in enumerate(columns))
        for j, row in enumerate(rows)
    )
    return values, ((near_x == x) & (near_y == y)).astype(jnp.float32)


def _spline_weights(t: Picture) -> tuple[Picture, ...]:
    """Of the four samples around a place, `t` behind the second: the cubic B-spline."""
    return (1 - t) ** 3 / 6, (3 * t - 6) * t * t / 6 + 2 / 3, ((3 - 3 * t) * t + 3) * t / 6 + 1 / 6, t**3 / 6


def _spline_kernel() -> np.ndarray:
    kernel = POLE ** np.abs(np.arange(-8, 9))
    return kernel / kernel.sum()


def _gaussian(sigma: float) -> np.ndarray:
    reach = math.ceil(2.5 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return kernel / kernel.sum()


def _smooth(array: Picture, kernel: np.ndarray) -> Picture:
    """Convolution with a symmetric kernel along both sides of pictures that are mirrored at their borders."""
    for axis in (-2, -1):
        array = _correlate(array, kernel, axis)
    return array


def _correlate(array: Picture, kernel: np.ndarray, axis: int) -> Picture:
    reach, size = len(kernel) // 2, array.shape[axis]
    width = [(0, 0)] * array.ndim
    width[axis] = (reach, reach)
    # Without the barriers the compiler fuses one filter into the next and computes it anew for every tap.
    padded = jax.lax.optimization_barrier(jnp.pad(array, width, mode="reflect"))
    taps = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) * float(k) for i, k in enumerate(kernel) if k)
    return jax.lax.optimization_barrier(sum(taps))


def _gradient(picture: Picture) -> tuple[Picture, Picture]:
    """Central differences along x and y."""
    return tuple(_correlate(picture, np.array([-0.5, 0, 0.5]), axis) for axis in (-1, -2))


def _power(picture: Picture) -> Float[Array, "f 1 1"]:
    return jnp.mean(picture * picture, axis=(1, 2), keepdims=True)


def _resize(array: Float[Array, "*any y x"], shape: Sequence[int]) -> Float[Array, "*any y2 x2"]:
    return jax.image.resize(array, (*array.shape[:-2], *shape), "linear")
