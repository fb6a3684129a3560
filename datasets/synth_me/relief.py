"""The face as a surface: curves through landmarks, a height map of head, sockets, nose and lips, and soft shading."""

import cv2
import numpy as np
from jaxtyping import Float

from stag_datasets.synth_me.identity import Identity

Plane = Float[np.ndarray, "y x"]
Number = int | float | np.floating


def spline(at: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Evaluate a smooth curve through (xs, ys), xs increasing, at the places `at`; constant beyond the ends."""
    slope = np.gradient(ys, xs)
    at = np.clip(at, xs[0], xs[-1])
    k = np.clip(np.searchsorted(xs, at, side="right") - 1, 0, len(xs) - 2)
    step = xs[k + 1] - xs[k]
    t = (at - xs[k]) / step
    rise = ys[k + 1] - ys[k]
    # Cubic Hermite, written as the chord plus the contribution of the slopes.
    return ys[k] + t * rise + t * (1 - t) * ((1 - t) * (slope[k] * step - rise) - t * (slope[k + 1] * step - rise))


def smoothstep(value: np.ndarray, low: Number = 0.0, high: Number = 1.0) -> np.ndarray:
    """Return 0 below `low`, 1 above `high`, smooth between; `low` may be the larger one."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bump(x: Plane, y: Plane, at: tuple[Number, Number], size: tuple[Number, Number]) -> Plane:
    """Return a Gaussian of height 1."""
    return np.exp(-0.5 * (((x - at[0]) / size[0]) ** 2 + ((y - at[1]) / size[1]) ** 2))


def outline(points: Float[np.ndarray, "68 2"], x: Plane, y: Plane, *, grow: float = 1.0) -> Plane:
    """Return the distance from the middle of the head as a fraction of that to its outline: below 1 is inside.

    The outline is the jaw line closed by a skull; `grow` enlarges the skull (hair).
    """
    middle = np.array((0.0, 0.12))
    jaw = points[:17]
    turn = np.linspace(0, np.pi, 15)[1:-1]
    half, lift = (jaw[16, 0] - jaw[0, 0]) / 2, 0.76
    skull = np.stack(
        [
            (jaw[16, 0] + jaw[0, 0]) / 2 + half * np.cos(turn) * (1 + (grow - 1) * np.sin(turn) ** 0.3),
            jaw[0, 1] - lift * grow * np.sin(turn),
        ],
        axis=1,
    )
    ring = np.concatenate([jaw[::-1], skull[::-1]]) - middle  # once round, from image right through the chin
    angle = np.unwrap(np.arctan2(ring[:, 1], ring[:, 0]))
    radius = np.hypot(*ring.T)
    full_turn = 2 * np.pi
    angle = np.concatenate([angle - full_turn, angle, angle + full_turn])
    radius = np.concatenate([radius] * 3)
    direction = np.arctan2(y - middle[1], x - middle[0])
    dense = np.linspace(-np.pi, np.pi, 721)
    edge = np.interp(direction, dense, spline(dense, angle, radius))
    return np.hypot(x - middle[0], y - middle[1]) / edge


def lids(points: Float[np.ndarray, "68 2"], eye: int, x: Plane) -> tuple[Plane, Plane, Plane]:
    """Return upper lid, lower lid (y at each x) and position along the eye (0 image-left, 1 image-right corner).

    `eye` is its first point, 36 or 42.
    """
    p = points[eye : eye + 6]
    upper, lower = p[:4], p[[0, 5, 4, 3]]
    along = (x - p[0, 0]) / (p[3, 0] - p[0, 0])
    inside = np.clip(x, p[0, 0], p[3, 0])
    curves = [np.polynomial.Polynomial.fit(c[:, 0], c[:, 1], 3)(inside) for c in (upper, lower)]
    return curves[0], curves[1], along


def heights(who: Identity, x: Plane, y: Plane) -> Plane:
    """Return the height of the surface above the plane of the image, in face units."""
    p = who.points
    rho = outline(p, x, y)
    z = 0.52 * np.sqrt(np.clip(1 - rho**2.6, 0, None))
    for eye, brow, side in ((36, 19, -1), (42, 24, 1)):
        middle = p[eye : eye + 6].mean(axis=0)
        inner = p[39] if side < 0 else p[42]
        z -= 0.050 * who.socket_depth * bump(x, y, (middle[0], middle[1] - 0.012), (0.095, 0.050))
        z -= 0.040 * who.socket_depth * bump(x, y, (inner[0] * 0.9, inner[1] - 0.03), (0.032, 0.045))
        z += 0.026 * bump(x, y, tuple(middle), (0.072, 0.042))  # the eyeball under the lids
        z += 0.030 * bump(x, y, (p[brow, 0], p[brow, 1] + 0.012), (0.14, 0.032))  # brow ridge
        z += 0.050 * who.cheekbone * bump(x, y, (side * 0.285, 0.20), (0.10, 0.085))
        z += 0.014 * bump(x, y, (middle[0], middle[1] + 0.085), (0.07, 0.022))  # below the lower lid
    top, tip, base = p[27], p[30], p[33]
    along = np.clip((y - top[1]) / (tip[1] - top[1]), -0.4, 1.6)
    ridge = np.interp(along, (-0.4, 0.0, 0.5, 1.0, 1.25, 1.5), (0.0, 0.035, 0.085, 0.125, 0.080, 0.0))
    width = np.interp(along, (0.0, 0.6, 1.0), (0.036, 0.042, 0.055))
    ridge_x = np.interp(y, p[27:31, 1], p[27:31, 0])
    z += who.nose_height * _soft(ridge, x) * np.exp(-0.5 * ((x - ridge_x) / width) ** 2)
    z += 0.034 * bump(x, y, (tip[0], tip[1] + 0.025), (0.046, 0.042))
    for wing in (31, 35):
        z += 0.062 * bump(x, y, (p[wing, 0] * 0.80, p[wing, 1] - 0.036), (0.030, 0.036))
        z -= 0.022 * who.crease * bump(x, y, (p[wing, 0] * 1.22, p[wing, 1] - 0.02), (0.022, 0.05))
    for side in (-1, 1):  # the fold from the wing of the nose to the corner of the mouth
        corner, wing = p[54 if side > 0 else 48], p[35 if side > 0 else 31]
        fraction = np.clip((y - wing[1] + 0.02) / (corner[1] + 0.05 - wing[1]), 0, 1)
        line = wing[0] * 1.28 + (corner[0] + side * 0.045 - wing[0] * 1.28) * fraction
        z -= 0.011 * who.crease * np.exp(-0.5 * ((x - line) / 0.022) ** 2) * np.sin(np.pi * fraction)
    mouth = p[48:68]
    z += 0.030 * bump(x, y, (mouth[:, 0].mean(), p[62, 1] - 0.01), (0.15, 0.11))  # teeth behind
    z += 0.022 * bump(x, y, (p[51, 0], (p[51, 1] + p[62, 1]) / 2), (0.085, 0.020))
    z += 0.034 * bump(x, y, (p[57, 0], (p[57, 1] + p[66, 1]) / 2), (0.085, 0.024))
    z -= 0.018 * bump(x, y, (p[57, 0], p[57, 1] + 0.035), (0.080, 0.018))  # below the lower lip
    z -= 0.010 * bump(x, y, (p[51, 0], (base[1] + p[51, 1]) / 2), (0.014, 0.040))  # philtrum
    for corner in (48, 54):
        z -= 0.012 * bump(x, y, tuple(p[corner]), (0.022, 0.022))
    z += 0.040 * bump(x, y, (p[8, 0], p[8, 1] - 0.085), (0.085, 0.055))  # chin
    return z


def shade(who: Identity, z: Plane, x: Plane) -> Plane:
    """Return the brightness of a white surface of heights z under the person's light, about 1 facing the light."""
    step = float(x[0, 1] - x[0, 0])
    softness = 0.0045 / step  # light scatters below the skin
    z = cv2.GaussianBlur(z.astype(np.float32), (0, 0), softness)
    dzdy, dzdx = np.gradient(z, step)
    relief = 0.62  # less than the true relief, which makes the sides of the nose black
    normal = np.stack([-relief * dzdx, -relief * dzdy, np.ones_like(z)])
    normal /= np.linalg.norm(normal, axis=0)
    facing = np.einsum("c,cyx->yx", who.light, normal)
    diffuse = np.clip((facing + 0.15) / 1.15, 0, None)
    # Hollows receive less ambient light.
    hollow = np.clip(cv2.GaussianBlur(z, (0, 0), 0.035 / step) - z, 0, 0.05)
    shine = 0.10 * np.clip(facing, 0, 1) ** 24
    return (who.ambient + (1 - who.ambient) * 1.08 * diffuse) * (1 - 7.0 * hollow) + shine


def _soft(profile: Plane, x: Plane) -> Plane:
    """Smooth the kinks of a profile that varies along the rows."""
    return cv2.GaussianBlur(profile.astype(np.float32), (1, 0), sigmaX=0.1, sigmaY=0.02 / float(x[0, 1] - x[0, 0]))
