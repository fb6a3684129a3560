"""Draw the neutral face of a person: surface, skin, eyes, brows, lips, hair, glasses, backdrop."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stag_datasets.synth_me.identity import Identity
from stag_datasets.synth_me.relief import Number, Plane, bump, heights, lids, outline, shade, smoothstep, spline

MARGIN = 16  # pixels of the stage beyond each edge of the frame, so that a moved head never shows its edge
OVERSAMPLE = 2  # pixels of the canvas per pixel of the stage
RIM = (32, 28, 28)  # colour of glasses

Picture = Float[np.ndarray, "y x 3"]

# Offset of the hair from the points of a brow, which follow its upper rim and end before its tail (image left).
_BROW_HAIR = np.array(((-0.022, 0.022), (-0.024, 0.021), (-0.025, 0.012), (-0.018, 0.007), (-0.012, 0.003)))


class Face(NamedTuple):
    """A neutral face on its stage: the frame with MARGIN pixels around it, in the pixels of the frame."""

    canvas: UInt8[np.ndarray, "y x 3"]  # the stage drawn OVERSAMPLE times finer; RGB
    glasses: (
        Float[np.ndarray, "y x"] | None
    )  # opacity of the rims over the canvas, 0..1; they do not move with the skin
    landmarks: Float[np.ndarray, "68 2"]  # x, y in pixels of the stage
    origin: Float[np.ndarray, " 2"]  # the origin of the face units, in pixels of the stage
    width: float  # pixels of the stage in one face unit


def draw(who: Identity, size: int = 256) -> Face:
    """Draw the person's neutral face for frames of `size` x `size` pixels."""
    width = who.width * size / 256
    origin = np.array(who.centre) * size + MARGIN
    count = (size + 2 * MARGIN) * OVERSAMPLE
    stage = (np.arange(count, dtype=np.float32) + 0.5) / OVERSAMPLE - 0.5
    x, y = (axis.astype(np.float32) for axis in np.meshgrid((stage - origin[0]) / width, (stage - origin[1]) / width))
    rng = np.random.Generator(np.random.PCG64(who.texture_seed))
    # Single precision throughout; numpy scalars of the person would otherwise promote to double.
    single = who._replace(**{key: v.astype(np.float32) for key, v in who._asdict().items() if hasattr(v, "astype")})
    picture = _paint(single, x, y, rng)
    # The optics of the camera: half a pixel of blur, which also prevents aliasing when sampling at half the resolution.
    picture = cv2.GaussianBlur(picture, (0, 0), 0.5 * OVERSAMPLE)
    canvas = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    glasses = None
    if who.glasses:
        glasses = cv2.GaussianBlur(_glasses(single, x, y).astype(np.float32), (0, 0), 0.5 * OVERSAMPLE)
    return Face(canvas, glasses, origin + who.points * width, origin, width)


def _paint(who: Identity, x: Plane, y: Plane, rng: np.random.Generator) -> Picture:
    step = float(x[0, 1] - x[0, 0])
    rho = outline(who.points, x, y)
    face = smoothstep((1 - rho) / (2.5 * step))
    picture = _surroundings(who, x, y, rng)
    light = shade(who, heights(who, x, y), x)
    skin = _skin(who, x, y, rng)
    skin = _lips(who, x, y, skin, rng)
    skin = _brows(who, x, y, skin, rng)
    skin = _eyes(who, x, y, skin * light[..., None], light)
    skin = _nostrils(who, x, y, skin)
    picture = _over(picture, skin, face)
    return _hair(who, x, y, picture, rng)


def _over(below: Picture, above: Picture | Float[np.ndarray, " 3"], alpha: Plane) -> Picture:
    return (below + (above - below) * alpha[..., None]).astype(np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], scale: tuple[Number, Number]) -> Plane:
    """Draw smooth noise of unit variance with blobs of about `scale` = (x, y) pixels."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), sigmaX=scale[0], sigmaY=scale[1])
    return noise / noise.std()


def _surroundings(who: Identity, x: Plane, y: Plane, rng: np.random.Generator) -> Picture:
    """Draw what lies behind the face: backdrop, clothes, neck and ears."""
    p = who.points
    step = float(x[0, 1] - x[0, 0])
    glow = 1 + 0.10 * who.light[0] * x - 0.06 * y
    picture = (who.backdrop * glow[..., None]).astype(np.float32)
    if who.hair_length > 0:
        reach = np.hypot(x / 0.60, np.minimum(y + 0.12, 0) / 0.72)
        tail = smoothstep((1 - reach) / (3 * step)) * smoothstep(who.hair_length - y, 0, 0.25)
        picture = _over(picture, _strands(who, x, rng), tail)
    chin = p[8, 1]
    half = 0.30 + 0.02 * np.clip(y - chin, 0, 1)
    neck = smoothstep((half - np.abs(x)) / (3 * step)) * smoothstep((y - 0.4) / step)
    shadow = 0.52 + 0.20 * smoothstep(y, chin, chin + 0.25) - 0.5 * (x / 0.45) ** 2 + 0.25 * who.light[0] * x
    picture = _over(picture, who.skin * shadow[..., None], neck)
    collar = chin + 0.16 + 0.10 * np.abs(x) + 0.22 * np.exp(-0.5 * (x / 0.35) ** 2)  # open at the throat
    cloth = smoothstep((y - collar) / (3 * step))
    picture = _over(picture, who.cloth * (0.85 + 0.1 * _noise(rng, x.shape, (6, 6)))[..., None], cloth)
    for side in (-1, 1):
        ear = np.hypot((x - side * 0.515) / 0.040, (y - 0.10) / 0.125)
        tone = 0.60 + 0.22 * ear + 0.15 * side * who.light[0]
        picture = _over(picture, who.skin * tone[..., None] * 0.9, smoothstep((1 - ear) * 0.04 / (2 * step)))
    return picture


def _skin(who: Identity, x: Plane, y: Plane, rng: np.random.Generator) -> Picture:
    """Draw the unlit skin: flush, mottling, pores, freckles, folds; the texture that optical flow can follow."""
    p = who.points
    per = 1 / float(x[0, 1] - x[0, 0])  # canvas pixels in a face unit
    tone = np.ones_like(x)
    for scale, strength in ((0.060, 0.020), (0.022, 0.022), (0.010, 0.020), (0.005, 0.020)):
        tone += strength * _noise(rng, x.shape, (scale * per, scale * per))
    if who.stubble:
        beard = smoothstep(y, 0.36, 0.48) * smoothstep(np.abs(x) * 0.4 + y, 0.42, 0.52)
        tone -= who.stubble * beard * (1 + 0.25 * _noise(rng, x.shape, (0.004 * per, 0.008 * per)))
    if who.freckles:
        spots = _noise(rng, x.shape, (0.008 * per, 0.008 * per))
        cheeks = bump(x, y, (-0.22, 0.16), (0.13, 0.10)) + bump(x, y, (0.22, 0.16), (0.13, 0.10))
        tone -= 0.13 * who.freckles * smoothstep(spots, 1.1, 2.2) * cheeks
    for side in (-1, 1):
        corner, wing = p[54 if side > 0 else 48], p[35 if side > 0 else 31]
        fraction = np.clip((y - wing[1] + 0.03) / (corner[1] + 0.06 - wing[1]), 0, 1)
        line = wing[0] * 1.25 + (corner[0] + side * 0.05 - wing[0] * 1.25) * fraction**1.3
        tone -= 0.10 * who.crease * np.exp(-0.5 * ((x - line) / 0.010) ** 2) * np.sin(np.pi * fraction)
    for line, strength in ((-0.27, 0.04), (-0.33, 0.035)):  # forehead
        wave = line - 0.02 * np.cos(6 * x) + 0.006 * np.sin(23 * x + 40 * line)
        tone -= strength * who.crease * np.exp(-0.5 * ((y - wave) / 0.006) ** 2) * smoothstep(0.30 - np.abs(x), 0, 0.2)
    colour = who.skin * tone[..., None]
    flush = bump(x, y, (-0.26, 0.24), (0.10, 0.09)) + bump(x, y, (0.26, 0.24), (0.10, 0.09))
    flush = 0.06 * flush + 0.05 * bump(x, y, tuple(p[30]), (0.06, 0.06))
    return (colour * (1 - flush[..., None] * np.array((0.0, 1.0, 0.9)))).astype(np.float32)


def _lips(who: Identity, x: Plane, y: Plane, skin: Picture, rng: np.random.Generator) -> Picture:
    p = who.points
    per = 1 / float(x[0, 1] - x[0, 0])
    top = spline(x, *p[48:55].T)
    bottom = spline(x, *p[[48, 59, 58, 57, 56, 55, 54]].T)
    seam = spline(x, *((p[[48, 60, 61, 62, 63, 64, 54]] + p[[48, 60, 67, 66, 65, 64, 54]]) / 2).T)
    within = smoothstep((x - p[48, 0]) * per / 6) * smoothstep((p[54, 0] - x) * per / 6)
    edge = 3.0 / per
    upper = smoothstep(y - top, -edge, edge) * smoothstep(seam - y, -edge, edge) * within
    lower = smoothstep(y - seam, -edge, edge) * smoothstep(bottom - y, -edge, edge) * within
    grain = 1.0 + 0.05 * _noise(rng, x.shape, (0.005 * per, 0.014 * per))
    gloss = 0.10 * bump(x, y, (p[57, 0], (p[66, 1] + p[57, 1]) / 2), (0.07, 0.014))
    skin = _over(skin, who.lips * (0.84 * grain)[..., None], upper * 0.92)
    skin = _over(skin, who.lips * (grain + gloss)[..., None], lower * 0.88)
    reach = smoothstep(x - p[48, 0], -0.012, 0.012) * smoothstep(p[54, 0] - x, -0.012, 0.012)
    dark = 0.72 * np.exp(-0.5 * ((y - seam) / 0.0065) ** 2) * reach
    dark += 0.30 * (bump(x, y, tuple(p[48]), (0.014, 0.011)) + bump(x, y, tuple(p[54]), (0.014, 0.011)))
    dark += 0.12 * np.exp(-0.5 * ((y - bottom - 0.012) / 0.010) ** 2) * smoothstep(0.14 - np.abs(x - p[57, 0]), 0, 0.1)
    return skin * (1 - np.clip(dark, 0, 0.85))[..., None]


def _brows(who: Identity, x: Plane, y: Plane, skin: Picture, rng: np.random.Generator) -> Picture:
    per = 1 / float(x[0, 1] - x[0, 0])
    hairs = 1 + 0.35 * _noise(rng, x.shape, (0.010 * per, 0.004 * per))
    for first, outer in ((17, 0), (22, 1)):
        p = who.points[first : first + 5] + _BROW_HAIR[:: 1 if outer == 0 else -1] * (1 if outer == 0 else -1, 1)
        along = (x - p[0, 0]) / (p[4, 0] - p[0, 0])
        inward = along if outer == 0 else 1 - along  # 0 at the temple, 1 at the nose
        thick = who.brow_thickness * np.interp(inward, (0, 0.35, 0.8, 1), (0.40, 0.85, 1.0, 0.85))
        line = spline(x, *p.T) + 0.22 * thick
        taper = smoothstep(along, -0.06, 0.05) * smoothstep(1 - along, -0.06, 0.05)
        alpha = np.exp(-(np.abs((y - line) / (0.55 * thick)) ** 3)) * taper
        skin = _over(skin, who.hair * 0.9, np.clip(who.brow_weight * alpha * np.clip(hairs, 0.55, 1.15), 0, 0.95))
    return skin


def _eyes(who: Identity, x: Plane, y: Plane, skin: Picture, light: Plane) -> Picture:
    step = float(x[0, 1] - x[0, 0])
    for eye in (36, 42):
        p = who.points[eye : eye + 6]
        upper, lower, along = lids(who.points, eye, x)
        within = smoothstep(along, -0.01, 0.03) * smoothstep(1 - along, -0.01, 0.03)
        opening = smoothstep((y - upper) / (2.5 * step), -0.5, 0.5) * smoothstep((lower - y) / (2.5 * step), -0.5, 0.5)
        opening = opening * within
        middle = p.mean(axis=0)
        height = float(p[4:6, 1].mean() - p[1:3, 1].mean())
        white = np.array((222.0, 216.0, 210.0)) * (0.72 + 0.28 * np.clip(light, 0, 1.2))[..., None] * 0.92
        ball = white * (1 - 0.35 * (2 * np.clip(along, 0, 1) - 1)[..., None] ** 4)
        distance = np.hypot(x - middle[0], y - middle[1] + 0.10 * height)
        radius = 0.040
        ball = _over(
            ball, who.iris * (0.65 + 0.7 * distance / radius)[..., None], smoothstep(radius - distance, -0.004, 0.004)
        )
        ball = _over(ball, np.array((14.0, 12.0, 12.0)), smoothstep(0.42 * radius - distance, -0.003, 0.003))
        glint = bump(x, y, (middle[0] - 0.012, middle[1] - 0.15 * height - 0.010), (0.006, 0.006))
        ball = ball + 190 * glint[..., None]
        ball = ball * (1 - 0.45 * np.exp(-np.clip(y - upper, 0, 1) / 0.012))[..., None]  # shadow of the lid
        reach = smoothstep(along, -0.10, 0.02) * smoothstep(1 - along, -0.10, 0.02)
        arch = np.sin(np.pi * np.clip(along, 0, 1))
        crease = upper - 0.020 - 0.014 * arch
        fold = 0.26 * np.exp(-0.5 * ((y - crease) / 0.0065) ** 2) * reach
        fold += 0.10 * np.exp(-0.5 * ((y - lower - 0.030 - 0.012 * arch) / 0.009) ** 2) * reach
        skin = skin * (1 - fold)[..., None]
        skin = _over(skin, ball, opening)
        lash = 0.85 * np.exp(-0.5 * ((y - upper + 0.002) / 0.0075) ** 2) * reach
        lash = np.maximum(lash, 0.40 * np.exp(-0.5 * ((y - lower) / 0.0055) ** 2) * reach)
        skin = _over(skin, np.array((30.0, 22.0, 20.0)), lash)
    return skin


def _nostrils(who: Identity, x: Plane, y: Plane, skin: Picture) -> Picture:
    p = who.points
    dark = np.zeros_like(x)
    for wing, hole, side in ((31, 32, -1), (35, 34, 1)):
        hole_centre = (0.35 * p[wing] + 0.65 * p[hole]) + (0, -0.014)
        tilt = y + side * 0.25 * (x - hole_centre[0])
        dark = np.maximum(dark, 0.72 * bump(x, tilt, tuple(hole_centre), (0.021, 0.0105)))
        rim = np.hypot((x - p[wing, 0] * 0.80) / 0.044, (y - p[wing, 1] + 0.032) / 0.046)
        outer = smoothstep(side * (x - p[wing, 0] * 0.7), 0.0, 0.02)
        dark = np.maximum(dark, 0.28 * np.exp(-0.5 * ((rim - 1) / 0.16) ** 2) * outer)
    base = spline(x, *p[31:36].T)
    under = 0.30 * np.exp(-0.5 * ((y - base + 0.002) / 0.010) ** 2) * smoothstep(0.10 - np.abs(x - p[33, 0]), 0, 0.05)
    return skin * (1 - np.maximum(dark, under))[..., None]


def _strands(who: Identity, x: Plane, rng: np.random.Generator) -> Picture:
    per = 1 / float(x[0, 1] - x[0, 0])
    wave = 1 + 0.22 * _noise(rng, x.shape, (0.006 * per, 0.060 * per)) + 0.10 * _noise(rng, x.shape, (0.03 * per,) * 2)
    return (who.hair * np.clip(wave, 0.3, 2)[..., None]).astype(np.float32)


def _hair(who: Identity, x: Plane, y: Plane, picture: Picture, rng: np.random.Generator) -> Picture:
    step = float(x[0, 1] - x[0, 0])
    rho = outline(who.points, x, y, grow=1.07)
    line = who.hairline + 2.6 * np.abs(x) ** 3 + 0.012 * _noise(rng, x.shape, (12, 12))
    temple = smoothstep(0.02 - y, 0.0, 0.06)
    alpha = smoothstep((1 - rho) / (4 * step)) * smoothstep(line - y, -0.012, 0.020) * temple
    strands = _strands(who, x, rng) * (1.1 + 0.5 * who.light[0] * x - 0.25 * (y + 0.5))[..., None]
    return _over(picture, strands, alpha)


def _glasses(who: Identity, x: Plane, y: Plane) -> Plane:
    """Return the opacity of the rims of the glasses at each place, 0..1."""
    p = who.points
    rim = np.zeros_like(x)
    for eye in (36, 42):
        middle = p[eye : eye + 6].mean(axis=0)
        distance = (np.abs((x - middle[0]) / 0.165) ** 3 + np.abs((y - middle[1] - 0.035) / 0.115) ** 3) ** (1 / 3)
        rim = np.maximum(rim, np.exp(-0.5 * ((distance - 1) / 0.045) ** 2))
    arch = -0.01 - 0.02 * np.cos(np.clip(x / 0.05, -1, 1) * np.pi / 2)
    bridge = np.exp(-0.5 * ((y - arch) / 0.008) ** 2) * smoothstep(0.075 - np.abs(x), 0, 0.015)
    reach = smoothstep(np.abs(x), 0.385, 0.40) * smoothstep(0.53 - np.abs(x), 0, 0.01)
    arms = np.exp(-0.5 * ((y + 0.01) / 0.009) ** 2) * reach
    return who.glasses * np.maximum(np.maximum(rim, bridge), arms)
