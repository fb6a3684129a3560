"""The named regions of the face: the position of each, and the action units that move it.

Sources. Units: P. Ekman, W. V. Friesen and J. C. Hager, *Facial Action Coding System*, A Human Face, 2002. A unit moves
the skin over its muscle and where the muscle pulls, as in the manual's list of appearance changes; the muscles are
named beside the table. Centres: the rule of JAA-Net (Z. Shao et al., *JAA-Net: Joint Facial Action Unit Detection and
Face Alignment via Adaptive Attention*, IJCV 129, 2021), landmarks moved by a fraction of the inner eye distance; the
landmarks and distances are chosen here, so that the regions lie apart. `stag_jax.face.topology` validates the table
when it is imported.
"""

import difflib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stag_jax.face import template
from stag_jax.types import UserError

INNER_EYES = (39, 42)


class Region(NamedTuple):
    """One region, defined by the landmarks around it. Of a pair, that on the subject's right (the picture's left)."""

    landmarks: tuple[int, ...]  # the centre is their mean ...
    offset: tuple[float, float]  # ... plus this offset, in inner eye distances: away from the midline, down
    units: tuple[int, ...]  # the action units that move it


PAIRS = {
    # Frontalis: pars medialis (1), pars lateralis (2); corrugator and depressor supercilii (4).
    "inner_brow": Region((20, 21), (0.0, -0.10), (1, 4)),
    "outer_brow": Region((17, 18, 19), (0.0, -0.05), (2, 4)),
    # Levator palpebrae (5; relaxed in 43, 45, 46); orbicularis oculi, pars palpebralis (7, 43, 45, 46), orbitalis (6).
    "upper_lid": Region((37, 38), (0.0, -0.12), (5, 7, 43, 45, 46)),
    "lower_lid": Region((40, 41), (0.0, 0.15), (6, 7, 46)),
    # Zygomaticus major (12) and levator anguli oris (13) push up the skin that orbicularis oculi (6) raises.
    "cheek": Region((40, 41), (0.15, 0.65), (6, 12, 13)),
    # Levator labii superioris alaeque nasi (9), levator labii superioris (10), nasalis (38, 39).
    "nose_wing": Region((31,), (0.05, -0.20), (9, 10, 38, 39)),
    # The furrow, upper to lower part: 10, zygomaticus minor (11), major (12), buccinator (14).
    "nasolabial": Region((31, 48), (0.15, -0.05), (10, 11, 12, 14)),
    # As above, and depressor anguli oris (15), risorius (20), incisivii (18) and orbicularis oris (22, 23, 24).
    "lip_corner": Region((48,), (0.05, 0.0), (12, 13, 14, 15, 18, 20, 22, 23, 24)),
}
MIDLINE = {
    # Between the heads of the brows, which 1 raises, 4 draws together and 9 lowers; below, procerus (4, 9).
    "glabella": Region((21, 22), (0.0, 0.05), (1, 4, 9)),
    "nose_root": Region((27, 28), (0.0, 0.0), (4, 9)),
    # Both levators of the lip (9, 10); orbicularis oris (22 to 25, 28), incisivii (18).
    "upper_lip": Region((50, 51, 52), (0.0, -0.05), (9, 10, 18, 22, 23, 24, 25, 28)),
    # Depressor labii inferioris (16, 25), mentalis (17), and units that stretch (15, 20), purse or drop the lip.
    "lower_lip": Region((56, 57, 58), (0.0, 0.0), (15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 27, 28)),
    # Mentalis (17), depressor anguli oris (15), jaw (26, 27).
    "chin": Region((57, 8), (0.0, 0.0), (15, 17, 26, 27)),
    "jaw": Region((8, 57, 8, 8), (0.0, 0.0), (26, 27)),
}

# Where the skin hardly moves: nose ridge, inner eye corners, and the sides of the face outside all regions above, which
# are far apart and so make the fit of head motion accurate. Robust fitting handles strong expressions near one of them.
_RIGID = ((27,), (28,), (29,), (30,), (39,), (42,), (0, 17, 36, 36), (16, 26, 45, 45), (1, 2, 48), (15, 14, 54))


BLINKING = ("upper_lid_r", "upper_lid_l")  # moved by a blink more than by any expression


def _mirrored(region: Region) -> Region:
    landmarks = tuple(int(template.MIRROR[i]) for i in region.landmarks)
    return region._replace(landmarks=landmarks, offset=(-region.offset[0], region.offset[1]))


def table() -> dict[str, Region]:
    """Return all regions by name; `_r`, `_l` are the subject's sides. Offsets are to the picture's right and down."""
    regions = {}
    for name, region in PAIRS.items():
        right = region._replace(offset=(-region.offset[0], region.offset[1]))
        regions[f"{name}_r"] = right
        regions[f"{name}_l"] = _mirrored(right)
    return regions | MIDLINE


def places(names: tuple[str, ...]) -> Int[np.ndarray, " n"]:
    """Return the indices in `table` of the regions `names`, in the order of the table; all of them if `names` is empty.

    Raises:
      UserError: an unknown name, or one side of a pair without the other.
    """
    all_names = list(table())
    for name in names:
        if name not in all_names:
            close = difflib.get_close_matches(name, all_names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(all_names)}"
            raise UserError(f"config.graph.nodes: no region is named {name!r}; {hint}")
        other_side = name[:-2] + {"_l": "_r", "_r": "_l"}.get(name[-2:], name[-2:])
        if other_side not in names:
            raise UserError(
                f"config.graph.nodes has {name} without {other_side}: faces are mirrored, so sides go together"
            )
    return np.flatnonzero([not names or name in names for name in all_names])


def roi_centres(landmarks: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "n 2"]:
    """Return the centres x, y of the regions in the order of `table`, in the unit of the landmarks (upright face)."""
    unit = np.linalg.norm(landmarks[INNER_EYES[1]] - landmarks[INNER_EYES[0]])
    return np.stack(
        [landmarks[list(r.landmarks)].mean(axis=0) + unit * np.array(r.offset) for r in table().values()]
    ).astype(landmarks.dtype)


def rigid_points(landmarks: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "r 2"]:
    """Return points x, y that move with the skull."""
    return np.stack([landmarks[list(group)].mean(axis=0) for group in _RIGID])
