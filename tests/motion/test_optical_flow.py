import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest

from stag_jax.motion import optical_flow
from stag_jax.types import UserError

SIZE = 97  # one for all that is compiled
EXACT = ["dis", "farneback", "tvl1"]
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


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("shift", [(0.1, 0.0), (0.3, -0.2), (-0.7, 0.5), (1.5, -1.2), (4.0, -3.0)])
def test_known_shifts(backend, shift):
    prev, next, truth = pair(SIZE, lambda x, y: (np.full_like(x, shift[0]), np.full_like(x, shift[1])))
    found = optical_flow.flow(prev, next, backend)
    assert found.shape == (SIZE, SIZE, 2) and found.dtype == np.float32
    error = np.linalg.norm(found - truth, axis=-1)[8:-8, 8:-8]
    assert error.mean() < 0.1
    np.testing.assert_allclose(found[8:-8, 8:-8].mean(axis=(0, 1)), shift, atol=0.05)


def bump(x, y):
    return 0.5 * np.exp(-((x - 48) ** 2 + (y - 48) ** 2) / 2 / 8**2), np.zeros_like(x)


# OpenCV's preset as it comes finds 0.47.
@pytest.mark.parametrize(("backend", "least"), [("dis", 0.75), ("farneback", 0.75), ("tvl1", 0.85)])
def test_most_of_a_small_local_movement_is_found(backend, least):
    found, true = [], []
    for seed in range(4):
        prev, next, truth = pair(SIZE, bump, seed)
        found.append(optical_flow.flow(prev, next, backend)[44:53, 44:53, 0].mean())
        true.append(truth[44:53, 44:53, 0].mean())
    assert least < np.mean(found) / np.mean(true) < 1.1


@pytest.mark.parametrize("backend", optical_flow.BACKENDS)
def test_no_motion_no_flow(backend):
    prev, _, _ = pair(SIZE, lambda x, y: (0 * x, 0 * y))
    # Farnebäck's border, where its window leaves the picture, is off by up to 0.06 px.
    np.testing.assert_allclose(optical_flow.flow(prev, prev, backend)[8:-8, 8:-8], 0, atol=1e-3)


@pytest.mark.parametrize("backend", [*optical_flow.BACKENDS, "auto"])
def test_a_batch_is_its_pairs_and_one_picture_serves_all(backend):
    frames = np.stack([pair(SIZE, lambda x, y, f=f: (-0.3 * f + 0 * x, 0.2 * f + 0 * y))[0] for f in range(4)])
    alone = [optical_flow.flow(frames[0], frame, backend) for frame in frames[1:]]
    together = optical_flow.flows(frames[:1], frames[1:], backend)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(optical_flow.flows(frames[[0, 0, 0]], frames[1:], backend), together)
    previous = optical_flow.flows(frames[:-1], frames[1:], backend)
    np.testing.assert_array_equal(previous[2], optical_flow.flow(frames[2], frames[3], backend))
    assert optical_flow.flows(frames[:1], frames[:0], backend).shape == (0, SIZE, SIZE, 2)


def test_unknown_names():
    picture = np.zeros((31, 37), np.uint8)
    with pytest.raises(UserError, match=r"config\.motion\.flow: 'raft' is none of auto, dis"):
        optical_flow.flow(picture, picture, "raft")


def test_auto_goes_by_the_device(monkeypatch):
    assert optical_flow.resolve("auto") == "dis"  # tests run on the CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert optical_flow.resolve("auto") == "tvl1"
    assert [optical_flow.resolve(name) for name in optical_flow.BACKENDS] == list(optical_flow.BACKENDS)


def test_import_leaves_the_devices_alone():
    script = (
        "import stag_jax.motion.optical_flow\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def field(u, v):
    y, x = np.mgrid[:19, :23].astype(np.float32)
    return np.stack([u(x, y), v(x, y)], axis=-1)


def test_strain_of_a_rigid_movement_is_zero():
    rigid = field(lambda x, y: 1.5 - 0.02 * y, lambda x, y: -0.7 + 0.02 * x)
    np.testing.assert_allclose(optical_flow.strain(rigid), 0, atol=1e-6)


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
    strain = optical_flow.strain(np.stack([field(u, v), 2 * field(u, v)]))
    assert strain.shape == (2, 19, 23)
    np.testing.assert_allclose(strain[0], expected, rtol=1e-4)
    np.testing.assert_allclose(strain[1], 2 * expected, rtol=1e-4)


def test_strain_of_jax_arrays_is_the_same():
    flows = np.random.default_rng(0).normal(size=(3, 11, 13, 2)).astype(np.float32)
    traced = jax.jit(jax.vmap(optical_flow.strain))(flows)
    assert isinstance(traced, jax.Array) and traced.dtype == np.float32
    np.testing.assert_allclose(traced, optical_flow.strain(flows), rtol=1e-5)
