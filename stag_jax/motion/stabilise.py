"""Removal of head motion from the flow."""

import numpy as np
from jaxtyping import Float

from stag_jax.face import alignment
from stag_jax.motion.sampling import bilinear

OFFSETS = (-3.0, 0.0, 3.0)  # grid around each rigid point on which the flow is sampled, pixels
ROUNDS = 16  # of reweighting
TUKEY = 4.685  # in robust standard deviations: 95% efficiency on Gaussian noise
FLOOR = 0.02  # pixels; smaller residuals are noise of the flow


def head_motion(
    flow: Float[np.ndarray, "f y x 2"], rigid: Float[np.ndarray, "r 2"], kind: str
) -> Float[np.ndarray, "f 2 3"]:
    """Fit head motion: a similarity or affine transform of pixels x, y, frame by frame at rigid points.

    Iteratively reweighted least squares: first absolute residuals, for a start that a third of outliers does not
    affect, then Tukey's biweight, which ignores outliers. A frame without motion gives the identity, as does every
    frame with kind "none".

    Args:
      rigid: points x, y in pixels that move with the skull (`face.regions.rigid_points`).
    """
    if kind == "none":
        return np.tile(np.eye(2, 3), (len(flow), 1, 1))
    offsets = np.stack(np.meshgrid(OFFSETS, OFFSETS), axis=-1).reshape(-1, 2)
    points = (rigid[:, None] + offsets).reshape(-1, 2).astype(float)
    samples = bilinear(flow, points).astype(float)
    # Coordinates near one make the normal equations well conditioned.
    centre, unit = points.mean(axis=0), max(flow.shape[1:3]) / 2
    fitted = _fit(_basis((points - centre) / unit, kind), samples)
    # The fitted field is affine: three points determine it.
    corners = _basis(np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]), kind)
    origin, right, down = np.moveaxis(np.einsum("cie,fe->fci", corners, fitted), 1, 0)
    linear = np.stack([right - origin, down - origin], axis=-1) / unit
    shift = origin - linear @ centre
    return np.concatenate([np.eye(2) + linear, shift[..., None]], axis=-1)


def reach(head: Float[np.ndarray, "f 2 3"], rigid: Float[np.ndarray, "r 2"]) -> Float[np.ndarray, " f"]:
    """Return the largest displacement of a rigid point by each transform, pixels."""
    moved = np.stack([alignment.apply(matrix, rigid) for matrix in head]) - rigid
    return np.linalg.norm(moved, axis=-1).max(axis=1)


def head_flow(head: Float[np.ndarray, "f 2 3"], height: int, width: int) -> Float[np.ndarray, "f y x 2"]:
    """Return the displacement of every pixel by the transforms, pixels."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1)
    field = (head - np.eye(2, 3)) @ pixels
    return np.moveaxis(field, 1, -1).reshape(len(head), height, width, 2).astype(np.float32)


def remove_head_motion(
    flow: Float[np.ndarray, "f y x 2"], rigid: Float[np.ndarray, "r 2"], kind: str
) -> Float[np.ndarray, "f y x 2"]:
    """Subtract the head motion of `head_motion` from the flow; with kind "none", return the flow unchanged."""
    if kind == "none":
        return flow
    return flow - head_flow(head_motion(flow, rigid, kind), *flow.shape[1:3])


def _basis(points: Float[np.ndarray, "*any 2"], kind: str) -> Float[np.ndarray, "*any 2 e"]:
    """Return the matrix that maps the parameters e to the flow u, v at each point."""
    x, y = points[..., 0], points[..., 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    if kind == "similarity":
        u, v = (one, zero, x, -y), (zero, one, y, x)
    else:
        u, v = (one, zero, x, y, zero, zero), (zero, one, zero, zero, x, y)
    return np.stack([np.stack(u, axis=-1), np.stack(v, axis=-1)], axis=-2)


def _fit(basis: Float[np.ndarray, "r 2 e"], samples: Float[np.ndarray, "f r 2"]) -> Float[np.ndarray, "f e"]:
    """Fit the parameters of each frame robustly."""
    f, r, _ = samples.shape
    rows = basis.reshape(2 * r, -1)
    outer = (rows[:, :, None] * rows[:, None, :]).reshape(2 * r, -1)
    values = samples.reshape(f, 2 * r)
    parameters = np.zeros((f, rows.shape[1]))
    parameters[:, :2] = np.median(samples, axis=1)
    for step in range(ROUNDS):
        size = np.linalg.norm((values - parameters @ rows.T).reshape(f, r, 2), axis=-1)
        if step < ROUNDS // 2:
            weight = 1 / np.maximum(size, FLOOR)
        else:
            # For a Gaussian in two dimensions the median length is 1.1774 standard deviations of one component.
            deviation = np.maximum(np.median(size, axis=1, keepdims=True) / 1.1774, FLOOR)
            weight = np.clip(1 - (size / (TUKEY * deviation)) ** 2, 0, None) ** 2
        weight = np.repeat(weight, 2, axis=1)
        normal = (weight @ outer).reshape(f, rows.shape[1], rows.shape[1])
        parameters = np.linalg.solve(normal, ((weight * values) @ rows)[..., None])[..., 0]
    return parameters
