import numpy as np
import pytest

from stag_jax.face import regions, template
from stag_jax.motion import stabilise

SIZE = 113
FACE = template.to_pixels(template.in_canonical(template.mean_face()), SIZE, SIZE)
RIGID = regions.rigid_points(FACE)


def grid():
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    return x, y


def similarity(shift, scale, angle):
    """The displacement of a similarity about the picture's origin."""
    x, y = grid()
    a, b = scale * np.cos(angle) - 1, scale * np.sin(angle)
    return np.stack([a * x - b * y + shift[0], b * x + a * y + shift[1]], axis=-1).astype(np.float32)


def affine():
    x, y = grid()
    return np.stack([0.5 + 0.01 * x - 0.02 * y, -1 + 0.005 * x + 0.03 * y], axis=-1).astype(np.float32)


def heads():
    return np.stack([similarity((0, 0), 1, 0), similarity((1.7, -0.9), 1.02, 0.01), similarity((-3, 4), 0.97, -0.03)])


def test_a_head_movement_is_removed_everywhere():
    for kind in ("similarity", "affine"):
        np.testing.assert_allclose(stabilise.remove_head_motion(heads(), RIGID, kind), 0, atol=1e-3)
    left = stabilise.remove_head_motion(affine()[None], RIGID, "affine")
    np.testing.assert_allclose(left, 0, atol=1e-3)
    assert np.abs(stabilise.remove_head_motion(affine()[None], RIGID, "similarity")).max() > 0.1


def test_a_muscle_movement_stays():
    x, y = grid()
    smile = 0.8 * np.exp(-((x - FACE[48, 0]) ** 2 + (y - FACE[48, 1]) ** 2) / 2 / 5**2)
    muscle = np.stack([-smile, -smile], axis=-1)
    left = stabilise.remove_head_motion(heads() + muscle, RIGID, "similarity")
    np.testing.assert_allclose(left, np.repeat(muscle[None], 3, axis=0), atol=0.02)


@pytest.mark.parametrize("corner", [0, 1, 2])
def test_a_third_of_wild_samples_does_not_pull_the_fit(corner):
    rng = np.random.default_rng(corner)
    flow = heads() + rng.normal(scale=0.02, size=(3, SIZE, SIZE, 2)).astype(np.float32)
    wild = rng.permutation(len(RIGID))[:3]  # 3 of 10 points, moved together: the hardest case
    x, y = grid()
    for px, py in RIGID[wild]:
        region = (np.abs(x - px) < 6) & (np.abs(y - py) < 6)
        flow[:, region] += np.float32((2.5, -1.5))
    head = flow - stabilise.remove_head_motion(flow, RIGID, "similarity")
    assert np.abs(head - heads()).max() < 0.1


def test_none_passes_through():
    flow = heads()
    assert stabilise.remove_head_motion(flow, RIGID, "none") is flow
