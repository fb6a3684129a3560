import dataclasses

import cv2
import numpy as np
import pytest

from stag_configs import base
from stag_jax.config import from_config_dict
from stag_jax.motion import flow
from stag_jax.types import UserError

CONFIG = from_config_dict(base.get_config()).motion
FINE = 4  # the texture is drawn this much finer than the pictures


def texture(size, seed=0):
    """Texture of three scales, FINE times larger than a picture of `size`."""
    rng = np.random.default_rng(seed)
    side = (size + 16) * FINE
    layers = []
    for scale in (1.5, 4, 10):
        layer = cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), scale * FINE)
        layers.append(layer / layer.std())
    return 128 + 20 * sum(layers)


def pair(size, motion, seed=0):
    """Two pictures of one texture between which the content moves by motion(x, y)."""
    drawn = texture(size, seed)
    y, x = np.mgrid[:size, :size].astype(np.float32)

    def picture(dx, dy):
        at = [np.float32((c + d + 8) * FINE + (FINE - 1) / 2) for c, d in ((x, dx), (y, dy))]
        return np.uint8(np.clip(np.rint(cv2.remap(drawn, *at, cv2.INTER_CUBIC)), 0, 255))

    u, v = motion(x, y)
    return picture(u, v), picture(0, 0), np.stack(np.broadcast_arrays(u, v), -1)


@pytest.mark.parametrize("backend", ["dis", "farneback"])
@pytest.mark.parametrize("shift", [(0.1, 0.0), (0.3, -0.2), (-0.7, 0.5), (1.5, -1.2)])
def test_known_shifts(backend, shift):
    prev, next, truth = pair(101, lambda x, y: (np.full_like(x, shift[0]), np.full_like(x, shift[1])))
    found = flow.flow(prev, next, backend)
    assert found.shape == (101, 101, 2) and found.dtype == np.float32
    error = np.linalg.norm(found - truth, axis=-1)[8:-8, 8:-8]
    assert error.mean() < 0.1
    np.testing.assert_allclose(found[8:-8, 8:-8].mean(axis=(0, 1)), shift, atol=0.05)


@pytest.mark.parametrize("backend", ["dis", "farneback"])
def test_most_of_a_small_local_movement_is_found(backend):
    found, true = [], []
    for seed in range(4):
        prev, next, truth = pair(
            97, lambda x, y: (0.5 * np.exp(-((x - 48) ** 2 + (y - 48) ** 2) / 2 / 8**2), np.zeros_like(x)), seed
        )
        found.append(flow.flow(prev, next, backend)[44:53, 44:53, 0].mean())
        true.append(truth[44:53, 44:53, 0].mean())
    assert 0.6 < np.mean(found) / np.mean(true) < 1.1  # OpenCV's preset as it comes finds 0.47


@pytest.mark.parametrize("backend", ["dis", "farneback"])
def test_no_motion_no_flow(backend):
    prev, _, _ = pair(61, lambda x, y: (0 * x, 0 * y))
    # Farnebäck's border, where its window leaves the picture, is off by up to 0.06 px.
    np.testing.assert_allclose(flow.flow(prev, prev, backend)[8:-8, 8:-8], 0, atol=1e-3)


def test_clip_flow_from_the_onset_and_from_the_frame_before():
    frames = np.stack([pair(67, lambda x, y, f=f: (-0.5 * f + 0 * x, 0 * y))[0] for f in range(4)])
    centre = (slice(None), slice(8, -8), slice(8, -8), 0)
    onset = flow.clip_flow(frames, CONFIG)[centre].mean(axis=(1, 2))
    np.testing.assert_allclose(onset, [0, 0.5, 1.0, 1.5], atol=0.06)
    assert onset[0] == 0
    previous = flow.clip_flow(frames, dataclasses.replace(CONFIG, reference="previous"))[centre].mean(axis=(1, 2))
    np.testing.assert_allclose(previous, [0, 0.5, 0.5, 0.5], atol=0.06)


def test_unknown_names():
    picture = np.zeros((31, 37), np.uint8)
    with pytest.raises(UserError, match=r"config\.motion\.flow: 'raft' is none of dis, farneback"):
        flow.flow(picture, picture, "raft")
    with pytest.raises(UserError, match=r"config\.motion\.reference: 'apex'"):
        flow.clip_flow(picture[None], dataclasses.replace(CONFIG, reference="apex"))


def field(u, v):
    y, x = np.mgrid[:19, :23].astype(np.float32)
    return np.stack([u(x, y), v(x, y)], axis=-1)


def test_strain_of_a_rigid_movement_is_zero():
    rigid = field(lambda x, y: 1.5 - 0.02 * y, lambda x, y: -0.7 + 0.02 * x)
    np.testing.assert_allclose(flow.strain(rigid), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("u", "v", "expected"),
    [
        (lambda x, y: 0.1 * x, lambda x, y: 0 * y, 0.1),  # stretch along one axis
        (lambda x, y: 0.1 * x, lambda x, y: 0.1 * y, 0.1 * np.sqrt(2)),  # growth
        (lambda x, y: 0.1 * y, lambda x, y: 0 * x, 0.1 / np.sqrt(2)),  # simple shear: e_xy = 0.05
        (lambda x, y: 0.1 * y, lambda x, y: 0.1 * x, 0.1 * np.sqrt(2)),  # pure shear: e_xy = 0.1
    ],
)
def test_strain_of_linear_fields(u, v, expected):
    strain = flow.strain(np.stack([field(u, v), 2 * field(u, v)]))
    assert strain.shape == (2, 19, 23)
    np.testing.assert_allclose(strain[0], expected, rtol=1e-4)
    np.testing.assert_allclose(strain[1], 2 * expected, rtol=1e-4)
