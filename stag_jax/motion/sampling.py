"""Bilinear sampling of fields at points between pixels."""

import numpy as np
from jaxtyping import Float


def bilinear(
    field: Float[np.ndarray, "f y x c"], points: Float[np.ndarray, "*where 2"]
) -> Float[np.ndarray, "f *where c"]:
    """Sample every frame of `field` at the same points x, y; outside, the nearest border value is used.

    Exact, unlike cv2.remap, which rounds coordinates to 1/32 pixel and so breaks the symmetry under mirroring.
    """
    height, width = field.shape[1:3]
    x = np.clip(points[..., 0], 0, width - 1)
    y = np.clip(points[..., 1], 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across = (x - left)[..., None].astype(field.dtype)
    down = (y - top)[..., None].astype(field.dtype)
    above = (1 - across) * field[:, top, left] + across * field[:, top, right]
    below = (1 - across) * field[:, bottom, left] + across * field[:, bottom, right]
    return (1 - down) * above + down * below
