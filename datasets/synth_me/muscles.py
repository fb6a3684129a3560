"""Action units as displacement fields of the skin over the face.

The table follows the Facial Action Coding System (Ekman, Friesen & Hager 2002), frontal view:

    1  inner brow raiser    inner brow and the forehead above it go up
    2  outer brow raiser    outer brow goes up, the forehead above it too
    4  brow lowerer         brow goes down, its inner half towards the midline; glabella down
    5  upper lid raiser     upper lid up
    6  cheek raiser         cheek up, lower lid up, outer corner of the eye inwards
    7  lid tightener        lower lid up and inwards, upper lid slightly down
    9  nose wrinkler        wing and side of the nose up, inner brow down, middle of the upper lip up
    10 upper lip raiser     upper lip up, most between middle and corner; nasolabial fold up
    12 lip corner puller    corner of the mouth up and outwards, cheek up
    14 dimpler              corner of the mouth outwards and tight, the cheek beside it inwards
    15 lip corner depressor corner of the mouth down
    17 chin raiser          chin boss up, lower lip pushed up
    45 blink                lids close

Every unit has a left and a right half, the SUBJECT's: the subject's left is at image right (x > 0).
"""

import cv2
import numpy as np
from jaxtyping import Float

from stag_datasets.synth_me.face import Face
from stag_datasets.synth_me.identity import MIRROR, Identity
from stag_datasets.synth_me.relief import bump, lids, smoothstep

GRID = 2  # pixels of the stage between nodes of a displacement field
BLINK = 45
_REACH = 0.045  # distance over which the skin follows a moving point, face units

# Extra places on the subject's left half: a landmark, and their offset from it.
_PLACES: dict[str, tuple[int, tuple[float, float]]] = {
    "forehead_in": (22, (0.02, -0.13)), "forehead_out": (25, (-0.06, -0.11)), "glabella": (22, (-0.055, 0.03)),
    "cheek": (46, (0.01, 0.13)), "cheek_in": (47, (-0.02, 0.10)), "crow": (45, (0.055, 0.01)),
    "nose_side": (29, (0.055, 0.02)), "nasolabial": (35, (0.065, 0.02)), "fold": (54, (-0.03, -0.09)),
    "dimple": (54, (0.075, 0.0)), "marionette": (54, (0.01, 0.075)), "chin_boss": (8, (0.035, -0.085)),
    "chin_side": (8, (0.11, -0.10)),
}  # fmt: skip
# Places that no muscle of the table moves.
_PINS: dict[str, tuple[int, tuple[float, float]]] = {
    "temple": (26, (0.04, -0.05)), "hairline": (22, (0.02, -0.28)), "hairline_out": (25, (0.0, -0.22)),
    "ear": (15, (-0.05, 0.05)), "jaw_angle": (13, (-0.07, 0.0)), "bridge": (27, (0.035, 0.02)),
}  # fmt: skip

# Displacement at full strength, in hundredths of a face unit, on the subject's left half: x outwards, y DOWN.
_UNITS: dict[int, dict[int | str, tuple[float, float]]] = {
    1: {22: (0.1, -1.6), 23: (0.0, -1.2), 24: (0, -0.45), "forehead_in": (0, -0.9), "glabella": (0, -0.8)},
    2: {26: (0, -1.2), 25: (0, -1.6), 24: (0, -1.2), 23: (0, -0.3), "forehead_out": (0, -0.9)},
    4: {22: (-0.9, 1.1), 23: (-0.7, 1.2), 24: (-0.4, 0.9), 25: (-0.1, 0.35), "glabella": (-0.3, 0.8),
        "forehead_in": (-0.1, 0.5)},
    5: {},
    6: {"cheek": (-0.1, -1.3), "cheek_in": (0, -0.7), "crow": (-0.6, -0.3), 45: (-0.3, -0.1), "nasolabial": (0, -0.3)},
    7: {47: (-0.3, 0.0), 46: (-0.4, 0.0)},
    9: {35: (0.1, -1.2), 34: (0, -0.8), 33: (0, -0.5), "nose_side": (-0.1, -1.1), "nasolabial": (-0.1, -1.1),
        22: (-0.3, 0.5), "glabella": (0, 0.4), "cheek_in": (0, -0.5), 52: (0, -0.6), 51: (0, -0.4), 53: (0, -0.4),
        63: (0, -0.4), 62: (0, -0.3)},
    10: {52: (0, -1.4), 53: (0.1, -1.2), 51: (0, -1.0), 63: (0, -1.2), 62: (0, -0.9), 35: (0.1, -0.4),
         "nasolabial": (0, -0.9), "fold": (0.1, -1.2), 54: (0, -0.3), 64: (0, -0.4)},
    12: {54: (1.3, -1.2), 64: (1.1, -1.0), 53: (0.7, -0.7), 55: (0.8, -0.6), 63: (0.3, -0.3), 65: (0.3, -0.3),
         56: (0.3, -0.2), "fold": (0.6, -1.0), "dimple": (0.6, -0.8), "cheek": (0.1, -0.7), "nasolabial": (0.3, -0.5),
         "marionette": (0.5, -0.5)},
    14: {54: (1.2, 0.0), 64: (1.0, 0.0), 53: (0.6, 0.0), 55: (0.6, 0.0), "dimple": (-0.7, 0.0), 63: (0.3, 0.0),
         65: (0.3, 0.0), "marionette": (0.3, -0.2)},
    15: {54: (0.2, 1.4), 64: (0.1, 1.1), 55: (0.1, 0.7), 53: (0, 0.5), "marionette": (0.1, 0.9), "dimple": (0, 0.8),
         "fold": (0, 0.4)},
    17: {57: (0, -1.3), 56: (0, -1.2), 55: (0, -0.7), 66: (0, -0.9), 65: (0, -0.8), 62: (0, -0.5), 63: (0, -0.4),
         "chin_boss": (0, -1.5), "chin_side": (0, -0.7), 8: (0, -0.5), 9: (0, -0.3)},
    BLINK: {},
}  # fmt: skip
# Movement of the lids as a fraction of the opening of the eye: upper lid down, lower lid up.
_LIDS: dict[int, tuple[float, float]] = {
    5: (-0.26, 0.0), 6: (0.04, 0.14), 7: (0.10, 0.26), BLINK: (0.80, 0.06),
}  # fmt: skip
UNITS = tuple(unit for unit in _UNITS if unit != BLINK)


def unit_field(
    who: Identity, unit: int, side: str, x: Float[np.ndarray, "y x"], y: Float[np.ndarray, "y x"]
) -> Float[np.ndarray, "y x 2"]:
    """Return the displacement of the skin at (x, y) by one half (L or R) of a unit at full strength, in face units.

    Raises ValueError for an unknown unit or side.
    """
    if unit not in _UNITS:
        raise ValueError(f"no action unit {unit}; there are: {', '.join(map(str, _UNITS))}")
    if side not in ("L", "R"):
        raise ValueError(f"a side is L or R, not {side!r}")
    half = smoothstep(x, -0.03, 0.03) if side == "L" else smoothstep(x, 0.03, -0.03)
    # The bridge of the nose and the inner corners of the eyes have no muscle to move them.
    free = 1 - smoothstep(_stiffness(who, x, y), 0.0, 0.8)
    field = _skin(who, unit, x, y) * (half * free)[..., None]
    if unit in _LIDS:
        field[..., 1] += _lid(who, 42 if side == "L" else 36, *_LIDS[unit], x, y)
    return field


def stage_field(who: Identity, face: Face, unit: int, side: str) -> Float[np.ndarray, "gy gx 2"]:
    """Return the same in pixels, at the nodes of a grid over the stage: node g lies at GRID * g pixels."""
    return (unit_field(who, unit, side, *stage_grid(face)) * face.width).astype(np.float32)


def stage_grid(face: Face) -> tuple[Float[np.ndarray, "gy gx"], Float[np.ndarray, "gy gx"]]:
    """Return the nodes of a grid over the stage, x and y in face units."""
    node = np.arange(face.canvas.shape[0] // 2 // GRID + 1) * GRID
    x, y = np.meshgrid((node - face.origin[0]) / face.width, (node - face.origin[1]) / face.width)
    return x, y


def sample_field(field: Float[np.ndarray, "gy gx 2"], at: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
    """Sample a field on the grid, bilinearly, at places in pixels of the stage."""
    position = np.clip(at / GRID, 0, np.array(field.shape[1::-1]) - 1.001)
    corner = position.astype(int)
    x, y = corner[..., 0], corner[..., 1]
    right, down = np.moveaxis((position - corner)[..., None], -2, 0)
    top = field[y, x] * (1 - right) + field[y, x + 1] * right
    bottom = field[y + 1, x] * (1 - right) + field[y + 1, x + 1] * right
    return top * (1 - down) + bottom * down


def inverse_field(field: Float[np.ndarray, "gy gx 2"], *, steps: int = 4) -> Float[np.ndarray, "gy gx 2"]:
    """Return the inverse of the displacement D: E with E(Y) = X - Y for X + D(X) = Y. In pixels of the stage.

    Newton's method with the vertical stretch only, because closing lids make it large.
    """
    count_y, count_x = field.shape[:2]
    x, y = np.meshgrid(np.arange(count_x, dtype=np.float32), np.arange(count_y, dtype=np.float32))
    forward = np.dstack([field, np.gradient(field[..., 1], GRID, axis=0)]).astype(np.float32)
    back_x, back_y = -field[..., 0], -field[..., 1]
    for _ in range(steps):
        sampled = cv2.remap(
            forward, x + back_x / GRID, y + back_y / GRID, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        back_x = back_x - (back_x + sampled[..., 0])
        back_y = back_y - (back_y + sampled[..., 1]) / np.maximum(1 + sampled[..., 2], 0.15)
    return np.dstack([back_x, back_y])


def _skin(who: Identity, unit: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interpolate a smooth field through the moved points of the unit; all other points and the pins stay fixed."""
    p = who.points
    anchors, moved = [*p], np.zeros((68, 2))
    for key, (dx, dy) in _UNITS[unit].items():
        if isinstance(key, int):
            middle = MIRROR[key] == key
            moved[MIRROR[key]] = 0 if middle else -dx, dy
            moved[key] = 0 if middle else dx, dy
    extra = []
    for places, table in ((_PLACES, _UNITS[unit]), (_PINS, {})):
        for key, (landmark, (outward, down)) in places.items():
            dx, dy = table.get(key, (0.0, 0.0))
            for side, anchor in ((1, landmark), (-1, MIRROR[landmark])):
                anchors.append(p[anchor] + (side * outward, down))
                extra.append((side * dx, dy))
    weights, total = np.zeros((*x.shape, 2)), np.full(x.shape, 0.04)
    for anchor_point, shift in zip(anchors, np.concatenate([moved, extra]) / 100, strict=True):
        weight = bump(x, y, tuple(anchor_point), (_REACH, _REACH))
        total += weight
        if shift.any():
            weights += weight[..., None] * shift
    return weights / total[..., None]


def _stiffness(who: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    p = who.points
    along = np.clip(y, p[27, 1] - 0.01, p[28, 1])
    stiff = bump(x, y - along, (p[27, 0], 0.0), (0.032, 0.032))
    for corner in (39, 42):
        stiff = np.maximum(stiff, bump(x, y, tuple(p[corner]), (0.022, 0.022)))
    return stiff


def _lid(who: Identity, eye: int, down: float, up: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the vertical displacement by the lids of one eye: the skin outside follows and covers the eyeball."""
    upper, lower, along = lids(who.points, eye, x)
    opening = np.clip(lower - upper, 0, None) * ((along > 0) & (along < 1))
    between = np.clip((y - upper) / np.maximum(opening, 1e-6), 0, 1)
    above = np.exp(-0.5 * (np.clip(upper - y, 0, None) / 0.035) ** 2)
    below = np.exp(-0.5 * (np.clip(y - lower, 0, None) / 0.035) ** 2)
    return opening * (down * above * (1 - between) - up * below * between)
