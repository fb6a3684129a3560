"""The parameters of one synthetic person, including the 68 points of the neutral face.

Face units: the origin is midway between the eyes, x runs to image right (the person's LEFT), y down, and 1 is the
width of the face from jaw point 0 to jaw point 16. Points are numbered 0..67 as in iBUG 300-W.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

POINTS = 68
# Average proportions of a frontal face in round numbers, as in 68-point annotations; jaw points were then moved along
# the jaw line to where dlib's predictor puts them. Image-left half and midline; the other half is mirrored.
_HALF: dict[int, tuple[float, float]] = {
    0: (-0.500, -0.030), 1: (-0.498, 0.090), 2: (-0.486, 0.218), 3: (-0.463, 0.343), 4: (-0.418, 0.462),
    5: (-0.344, 0.573), 6: (-0.246, 0.667), 7: (-0.128, 0.735), 8: (0.0, 0.760),
    17: (-0.430, -0.095), 18: (-0.365, -0.150), 19: (-0.275, -0.170), 20: (-0.178, -0.155), 21: (-0.088, -0.122),
    27: (0.0, -0.010), 28: (0.0, 0.080), 29: (0.0, 0.168), 30: (0.0, 0.258),
    31: (-0.106, 0.322), 32: (-0.055, 0.340), 33: (0.0, 0.354),
    36: (-0.322, 0.002), 37: (-0.265, -0.030), 38: (-0.197, -0.029), 39: (-0.138, 0.014),
    40: (-0.198, 0.026), 41: (-0.266, 0.025),
    48: (-0.200, 0.498), 49: (-0.128, 0.468), 50: (-0.050, 0.452), 51: (0.0, 0.460),
    57: (0.0, 0.572), 58: (-0.055, 0.568), 59: (-0.125, 0.542),
    60: (-0.175, 0.500), 61: (-0.053, 0.499), 62: (0.0, 0.503), 66: (0.0, 0.509), 67: (-0.053, 0.506),
}  # fmt: skip
# Index of each point's mirror image.
MIRROR = np.array(
    [
        *(16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17),
        *(27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),
    ]
)
JAW, BROWS, NOSE = np.arange(17), np.arange(17, 27), np.arange(27, 36)
EYES, MOUTH = np.arange(36, 48), np.arange(48, 68)


class Identity(NamedTuple):
    """One person. Lengths in face units, colours in RGB 0..255."""

    points: Float[np.ndarray, "68 2"]  # neutral landmarks, face units
    width: float  # face width in pixels of the frame
    centre: tuple[float, float]  # where the origin of the face falls in the frame, as a fraction of its size
    skin: Float[np.ndarray, " 3"]
    lips: Float[np.ndarray, " 3"]
    iris: Float[np.ndarray, " 3"]
    hair: Float[np.ndarray, " 3"]
    cloth: Float[np.ndarray, " 3"]
    backdrop: Float[np.ndarray, " 3"]
    light: Float[np.ndarray, " 3"]  # towards the light: x right, y down, z to the camera; unit length
    ambient: float  # share of the light that has no direction
    hairline: float  # y of the hairline at the middle
    hair_length: float  # y down to which the hair falls beside the face; negative when short
    brow_thickness: float
    brow_weight: float  # how dark the brows are, 0..1
    nose_height: float  # how far the nose stands out
    socket_depth: float
    cheekbone: float
    crease: float  # strength of folds and creases
    stubble: float  # 0 none
    freckles: float  # 0 none
    glasses: float  # 0 none, else the darkness of the rims
    texture_seed: int


def canon() -> Float[np.ndarray, "68 2"]:
    """Return the average face of this corpus, in face units."""
    points = np.zeros((POINTS, 2))
    for index, (x, y) in _HALF.items():
        points[index] = x, y
        points[MIRROR[index]] = -x, y
    return points


def sample_identity(rng: np.random.Generator) -> Identity:
    """Draw a random person: shape of the face, colours, hair, light."""
    tone = rng.uniform(0.0, 1.0)  # 0 light, 1 dark
    skin = _between((228.0, 184.0, 158.0), (146.0, 98.0, 72.0), tone) * rng.uniform(0.96, 1.04, 3)
    dark = np.array(((38.0, 28.0, 24.0), (70.0, 48.0, 34.0), (28.0, 26.0, 28.0), (120.0, 88.0, 54.0)))
    hair = dark[rng.choice(4, p=(0.4, 0.3, 0.2, 0.1) if tone < 0.6 else (0.6, 0.1, 0.3, 0.0))]
    light = np.array((rng.normal(0, 0.22), rng.uniform(-0.6, -0.25), 1.0))
    return Identity(
        points=_shape(rng),
        width=float(rng.uniform(150, 180)),
        centre=(float(rng.uniform(0.47, 0.53)), float(rng.uniform(0.40, 0.44))),
        skin=skin,
        lips=skin * np.array((0.86, 0.62, 0.62)) * rng.uniform(0.9, 1.05),
        iris=_between((52.0, 36.0, 26.0), (96.0, 110.0, 118.0), max(0.0, rng.normal(0.0, 0.5)) * (tone < 0.5)),
        hair=hair * rng.uniform(0.8, 1.2),
        cloth=rng.uniform(30, 200, 3),
        backdrop=rng.uniform(95, 215) * rng.uniform(0.92, 1.05, 3),
        light=light / np.linalg.norm(light),
        ambient=float(rng.uniform(0.42, 0.58)),
        hairline=float(rng.uniform(-0.50, -0.40)),
        hair_length=float(rng.choice((-0.05, 0.25, 1.6), p=(0.5, 0.2, 0.3))),
        brow_thickness=float(rng.uniform(0.030, 0.044)),
        brow_weight=float(rng.uniform(0.65, 0.92)),
        nose_height=float(rng.uniform(0.85, 1.2)),
        socket_depth=float(rng.uniform(0.8, 1.25)),
        cheekbone=float(rng.uniform(0.5, 1.3)),
        crease=float(rng.uniform(0.4, 1.2)),
        stubble=float(rng.choice((0.0, 1.0), p=(0.7, 0.3)) * rng.uniform(0.06, 0.2)),
        freckles=float(rng.choice((0.0, 1.0), p=(0.75, 0.25)) * rng.uniform(0.3, 1.0)),
        glasses=float(rng.choice((0.0, 1.0), p=(0.85, 0.15)) * rng.uniform(0.6, 0.95)),
        texture_seed=int(rng.integers(2**31)),
    )


def _between(low: tuple[float, ...], high: tuple[float, ...], share: float) -> Float[np.ndarray, " 3"]:
    return np.asarray(low) + (np.asarray(high) - np.asarray(low)) * min(share, 1.0)


def _shape(rng: np.random.Generator) -> Float[np.ndarray, "68 2"]:
    """Draw the landmarks of a person: the average face with varied sizes, places and slopes, slightly asymmetric."""
    points = canon()

    def scale(index: np.ndarray, x: float, y: float) -> None:
        middle = points[index].mean(axis=0)
        points[index] = middle + (points[index] - middle) * (x, y)

    jaw = points[JAW]
    low = np.clip((jaw[:, 1] + 0.03) / 0.79, 0, 1)
    jaw[:, 0] *= 1 + rng.normal(0, 0.05) * np.sin(np.pi * low) ** 2  # square or pointed
    jaw[:, 1] = -0.03 + (jaw[:, 1] + 0.03) * np.clip(rng.normal(1, 0.035), 0.92, 1.08)
    points[JAW] = jaw
    brow_y, brow_slope, brow_width = rng.normal(0, 0.010), rng.normal(0, 0.05), np.clip(rng.normal(1, 0.04), 0.9, 1.1)
    eye_x, eye_y = rng.normal(0, 0.007), rng.normal(0, 0.004)
    eye_size, eye_open, eye_slope = rng.normal(1, 0.04), np.clip(rng.normal(1, 0.10), 0.8, 1.25), rng.normal(0, 0.04)
    for side, brow, eye in ((-1, BROWS[:5], EYES[:6]), (1, BROWS[5:], EYES[6:])):
        scale(brow, brow_width, 1 + rng.normal(0, 0.1))
        x = points[brow, 0] - points[brow, 0].mean()
        points[brow, 1] += brow_y + side * brow_slope * x + rng.normal(0, 0.002)
        scale(eye, eye_size, eye_size * eye_open)
        x = points[eye, 0] - points[eye, 0].mean()
        points[eye] += np.stack([np.full(6, side * eye_x), eye_y + side * eye_slope * x + rng.normal(0, 0.001)], 1)
    nose_length, nose_width = np.clip(rng.normal(1, 0.05), 0.9, 1.1), np.clip(rng.normal(1, 0.07), 0.85, 1.2)
    points[NOSE] *= (nose_width, nose_length)
    scale(MOUTH, np.clip(rng.normal(1, 0.07), 0.85, 1.18), np.clip(rng.normal(1, 0.12), 0.75, 1.3))
    points[MOUTH, 1] += (nose_length - 1) * 0.25 + rng.normal(0, 0.010)
    points[MOUTH, 0] += rng.normal(0, 0.003)
    return points
