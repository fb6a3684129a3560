import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stag_configs import base
from stag_datasets.synth_me import render, script
from stag_jax.config import from_config_dict
from stag_jax.face import alignment
from stag_jax.motion import optical_flow, tvl1

SHAPE = (29, 37)  # one scale only, which compiles fastest
HEIGHT, WIDTH = SHAPE


def texture(f, height=HEIGHT, width=WIDTH, seed=0):
    noise = np.random.default_rng(seed).normal(size=(f, height, width)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(picture, (0, 0), 1.5) for picture in noise])
    return np.uint8(np.clip(128 + 150 * smooth, 0, 255))


def moved(pictures, u, v):
    """The content of the pictures moved by u, v."""
    y, x = np.mgrid[: pictures.shape[1], : pictures.shape[2]].astype(np.float32)
    at = np.float32(x - u), np.float32(y - v)
    return np.stack([cv2.remap(picture, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT) for picture in pictures])


def quadratic(f, height, width, step, seed=0):
    """A random positive data term ½ w'Jw + b'w a pixel, and its proximal step as `minimise` wants it."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(f, height, width, 2, 2))
    j, b = root @ root.swapaxes(-1, -2), rng.normal(size=(f, height, width, 2))
    a = np.linalg.inv(np.eye(2) + step * j)
    c = -step * np.einsum("fyxij,fyxj->fyxi", a, b)
    data = (np.stack([a[..., 0, 0], a[..., 1, 1]]), a[..., 0, 1], np.moveaxis(c, -1, 0))
    return j, b, a, c, tuple(part.astype(np.float32) for part in data)


def one_iteration(w, p, a, c, settings):
    """The two steps as they are written, pixel by pixel. w: [y x 2]; p: [y x component axis]."""
    height, width = w.shape[:2]
    up = tvl1.STABILITY / 8 / settings.step
    new_p, new_w = np.zeros_like(p), np.zeros_like(w)
    for y in range(height):
        for x in range(width):
            for i in (0, 1):
                q = np.zeros(2)
                if x + 1 < width:
                    q[0] = p[y, x, i, 0] + up * (w[y, x + 1, i] - w[y, x, i])
                if y + 1 < height:
                    q[1] = p[y, x, i, 1] + up * (w[y + 1, x, i] - w[y, x, i])
                q /= 1 + up * settings.huber
                new_p[y, x, i] = q / max(1, np.linalg.norm(q))
    for y in range(height):
        for x in range(width):
            divergence = new_p[y, x, :, 0] + new_p[y, x, :, 1]
            if x > 0:
                divergence = divergence - new_p[y, x - 1, :, 0]
            if y > 0:
                divergence = divergence - new_p[y - 1, x, :, 1]
            new_w[y, x] = a[y, x] @ (w[y, x] + settings.step * divergence) + c[y, x]
    return new_w, new_p


minimise = jax.jit(tvl1.minimise, static_argnames="settings")


@pytest.mark.parametrize("iterations", [1, 3])
def test_the_inner_iteration_is_the_one_written_down(iterations):
    f, height, width = 2, 5, 7
    settings = tvl1.TVL1Settings(step=0.2, huber=0.05, iterations=iterations)
    rng = np.random.default_rng(1)
    w = rng.normal(size=(f, height, width, 2))
    p = rng.normal(size=(f, height, width, 2, 2))
    _, _, a, c, data = quadratic(f, height, width, settings.step)
    components = np.moveaxis(w, -1, 0).astype(np.float32)
    dual = tuple(np.moveaxis(p[..., axis], -1, 0).astype(np.float32) for axis in (0, 1))
    found, (px, py) = minimise(components, dual, data, settings=settings)
    for each in range(f):
        now, p_now = w[each], p[each]
        for _ in range(iterations):
            now, p_now = one_iteration(now, p_now, a[each], c[each], settings)
        np.testing.assert_allclose(np.moveaxis(found[:, each], 0, -1), now, atol=1e-5)
        np.testing.assert_allclose(np.moveaxis(px[:, each], 0, -1), p_now[..., 0], atol=1e-5)
        np.testing.assert_allclose(np.moveaxis(py[:, each], 0, -1), p_now[..., 1], atol=1e-5)


def energy(w, j, b, huber):
    """What the inner iteration minimises, for one picture. w: [y x 2]"""
    gradient = np.zeros((*w.shape, 2))
    gradient[:, :-1, :, 0] = np.diff(w, axis=1)
    gradient[:-1, :, :, 1] = np.diff(w, axis=0)
    size = np.linalg.norm(gradient, axis=-1)
    variation = np.where(size < huber, size**2 / 2 / huber, size - huber / 2).sum()
    return variation + 0.5 * np.einsum("yxi,yxij,yxj", w, j, w) + (b * w).sum()


def test_the_inner_iteration_ends_at_the_minimum():
    settings = tvl1.TVL1Settings(huber=0.05, iterations=3000)
    j, b, _, _, data = quadratic(1, 7, 11, settings.step, seed=2)
    zero = np.zeros((2, 1, 7, 11), np.float32)
    found = np.moveaxis(np.asarray(minimise(zero, (zero, zero), data, settings=settings)[0], float)[:, 0], 0, -1)
    least = energy(found, j[0], b[0], settings.huber)
    assert least < energy(0 * found, j[0], b[0], settings.huber) - 1
    rng = np.random.default_rng(3)
    for size in (1e-3, 1e-2, 0.1) * 10:
        away = found + size * rng.normal(size=found.shape)
        assert energy(away, j[0], b[0], settings.huber) > least


def test_pictures_that_are_alike_have_no_flow():
    still = texture(3)
    np.testing.assert_allclose(tvl1.flows(still, still), 0, atol=2e-3)
    np.testing.assert_allclose(tvl1.flows(0 * still, 0 * still), 0)


def test_a_mirrored_pair_has_the_mirrored_flow():
    prev = texture(3)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    next = moved(prev, 0.8 * np.exp(-((x - 15) ** 2 + (y - 12) ** 2) / 50), 0.3)
    found = tvl1.flows(prev, next)
    assert np.abs(found).max() > 0.5
    flipped = tvl1.flows(prev[:, :, ::-1], next[:, :, ::-1])[:, :, ::-1] * np.float32((-1, 1))
    # Not to the last digit: differences are taken forwards.
    assert np.abs(flipped - found).mean() < 0.003
    transposed = tvl1.flows(prev.swapaxes(1, 2), next.swapaxes(1, 2)).swapaxes(1, 2)[..., ::-1]
    np.testing.assert_allclose(transposed, found, atol=1e-3)


def test_pairs_do_not_touch_each_other_and_blocks_change_nothing():
    prev = texture(5)
    next = np.concatenate([moved(prev[:4], 0.4, -0.2), texture(1, seed=9)])
    alone = np.concatenate([tvl1.flows(prev[f : f + 1], next[f : f + 1]) for f in range(5)])
    assert np.linalg.norm(alone[:4], axis=-1).mean() > 0.3
    for pairs in (None, 3):
        np.testing.assert_allclose(tvl1.flows(prev, next, pairs=pairs), alone, atol=1e-4)
    one = tvl1.flows(prev[:1], next, pairs=3)
    np.testing.assert_allclose(one, tvl1.flows(np.repeat(prev[:1], 5, axis=0), next, pairs=3))


def test_the_number_of_pairs_compiles_nothing():
    prev = texture(7)
    tvl1.flows(prev[:2], prev[:2], pairs=3)
    size = tvl1.tvl1._cache_size()
    for f in (1, 3, 4, 7):
        assert tvl1.flows(prev[:f], prev[:f], pairs=3).shape == (f, HEIGHT, WIDTH, 2)
    assert tvl1.tvl1._cache_size() == size
    tvl1.flows(prev[:2, :-2], prev[:2, :-2], pairs=3)
    assert tvl1.tvl1._cache_size() == size + 1


@pytest.mark.parametrize(("height", "width"), [(2, 3), (61, 53)])
def test_any_size(height, width):
    prev = texture(1, height, width)
    found = tvl1.flows(prev, np.roll(prev, 1, axis=2))
    assert found.shape == (1, height, width, 2) and found.dtype == np.float32
    assert np.isfinite(found).all()
    if height > 20:
        np.testing.assert_allclose(np.median(found, axis=(0, 1, 2)), (1, 0), atol=0.05)


def test_precision_is_single_throughout():
    traced = tvl1.tvl1.trace(*[jax.ShapeDtypeStruct((1, *SHAPE), jnp.uint8)] * 2)
    text = str(traced.jaxpr)
    assert "f32[2,1,29,37]" in text and "f64" not in text and "bf16" not in text
    floats = texture(1).astype(np.float32)
    next = moved(texture(1), 0.5, 0)
    from_floats = tvl1.flows(floats, next.astype(np.float32))
    np.testing.assert_allclose(from_floats, tvl1.flows(texture(1), next), atol=1e-5)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_a_program_without_gathers_in_the_inner_loop(platform):
    shapes = [jax.ShapeDtypeStruct((4, *SHAPE), jnp.uint8)] * 2
    lowered = tvl1.tvl1.trace(*shapes).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count('"stablehlo.gather"(') == 16  # the taps of one warp
    field = jax.ShapeDtypeStruct((2, 4, *SHAPE), jnp.float32)
    picture = jax.ShapeDtypeStruct((4, *SHAPE), jnp.float32)
    inner = minimise.trace(field, (field, field), (field, picture, field), settings=tvl1.DEFAULT)
    assert "gather" not in inner.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(("gain", "lift"), [(0.9, 0), (1.12, -20), (0.8, 30)])
def test_brightness_does_not_pass_for_movement(gain, lift):
    prev = texture(2) // 2 + 50
    next = moved(prev, 0.6, -0.3)
    found = tvl1.flows(prev, next)
    changed = tvl1.flows(prev, np.uint8(np.rint(next * gain + lift)))
    assert np.linalg.norm(changed - found, axis=-1).mean() < 0.02


@pytest.fixture(scope="module")
def faces():
    """Aligned faces at rest and at the apex, the true flow between them, and where the face is."""
    cfg = from_config_dict(base.get_config()).face
    prev, next, truth, inside = [], [], [], []
    for subject in (0, 3):
        specs = [spec for spec in script.subject_clips(script.Recipe(), subject) if not spec.blinks]
        rendered = render.render_clip(max(specs, key=lambda spec: spec.peak))
        matrix = alignment.clip_transform(rendered.landmarks.astype(np.float32), cfg)
        y, x = np.mgrid[: cfg.size, : cfg.size]
        raw = ((np.stack([x, y], -1) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T).astype(np.float32)
        true = cv2.remap(rendered.true_flow(rendered.apex), raw[..., 0], raw[..., 1], cv2.INTER_LINEAR)
        hull = cv2.convexHull(alignment.apply(matrix, rendered.landmarks[0]).astype(np.int32))
        prev.append(alignment.warp(rendered.frames[0], matrix, cfg.size))
        next.append(alignment.warp(rendered.frames[rendered.apex], matrix, cfg.size))
        truth.append(true @ matrix[:, :2].T.astype(np.float32))
        inside.append(cv2.fillConvexPoly(np.zeros((cfg.size, cfg.size), np.uint8), hull, 1) > 0)
    return tuple(map(np.stack, (prev, next, truth, inside)))


def errors(found, faces):
    _, _, truth, inside = faces
    return np.array([np.linalg.norm(f - t, axis=-1)[i].mean() for f, t, i in zip(found, truth, inside, strict=True)])


def test_on_faces_it_errs_least(faces):
    prev, next, truth, _ = faces
    assert errors(0 * truth, faces).min() > 0.2
    error = errors(tvl1.flows(prev, next), faces)
    assert error.max() < 0.13
    assert error.mean() < errors(optical_flow.flows(prev, next, "dis"), faces).mean()


def test_on_faces_it_errs_less_than_scikit_image(faces):
    registration = pytest.importorskip("skimage.registration")
    prev, next, _, _ = faces
    pairs = zip(prev.astype(np.float32) / 255, next.astype(np.float32) / 255, strict=True)
    theirs = np.stack([registration.optical_flow_tvl1(*pair, dtype=np.float32)[::-1] for pair in pairs])
    assert errors(tvl1.flows(prev, next), faces).mean() < 0.7 * errors(np.moveaxis(theirs, 1, -1), faces).mean()
