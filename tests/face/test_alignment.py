import cv2
import numpy as np
import pytest

from stag_jax.config import FaceConfig
from stag_jax.face import alignment, template

CONFIG = FaceConfig(
    predictor="", size=96, reference_frames=3, min_score=0.0, redetect_jump=0.1, max_turn=40.0, smooth=0
)


def turn(scale, angle, shift):
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def texture(height, width, seed=0):
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    grey = np.uint8(np.clip(128 + 40 * smooth / smooth.std(), 0, 255))
    return np.repeat(grey[..., None], 3, axis=2)


def landmarks_in(matrix, f):
    """Mean face landmarks as they would lie in a frame that `matrix` takes to the canonical face."""
    canonical = template.to_pixels(template.in_canonical(template.mean_face()), CONFIG.size, CONFIG.size)
    raw = (canonical - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    return np.repeat(raw[None], f, axis=0).astype(np.float32)


@pytest.mark.parametrize("angle", [0.0, 0.3, -2.5])
def test_similarity_recovers_a_known_transform(angle):
    points = np.random.default_rng(1).normal(size=(7, 2)) * 30
    known = turn(1.7, angle, (5, -11))
    np.testing.assert_allclose(alignment.similarity(points, alignment.apply(known, points)), known, atol=1e-10)


def test_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(2)
    source, target = rng.normal(size=(2, 11, 2))
    best = alignment.similarity(source, target)
    x, y = source.T
    one, zero = np.ones(11), np.zeros(11)
    design = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    (a, b, dx, dy), *_ = np.linalg.lstsq(design, target.T.ravel(), rcond=None)
    np.testing.assert_allclose(best, [[a, -b, dx], [b, a, dy]], atol=1e-12)


def test_one_transform_a_clip_so_a_static_clip_stays_static():
    matrix = turn(0.45, 0.2, (-20, 7))
    f = 7
    rng = np.random.default_rng(3)
    landmarks = landmarks_in(matrix, f) + rng.normal(size=(f, 68, 2)).astype(np.float32)  # the predictor's noise
    frames = np.repeat(texture(311, 257)[None], f, axis=0)
    faces = [alignment.warp(frame, alignment.clip_transform(landmarks, CONFIG), 96) for frame in frames]
    assert faces[0].shape == (96, 96) and faces[0].dtype == np.uint8
    assert all((face == faces[0]).all() for face in faces)


def test_frames_without_landmarks_do_not_count():
    matrix = turn(0.45, 0.2, (-20, 7))
    landmarks = landmarks_in(matrix, 5)
    landmarks[1] = np.nan
    landmarks[4] += 50  # beyond the frames that count
    np.testing.assert_allclose(alignment.clip_transform(landmarks, CONFIG), matrix, atol=1e-3)


def test_transforms_are_undone_and_combined():
    first, second = turn(0.45, 0.2, (-20, 7)), turn(1.3, -1.1, (3, 9))
    points = np.random.default_rng(1).normal(size=(5, 3, 2))
    there = alignment.apply(second, alignment.apply(first, points))
    np.testing.assert_allclose(alignment.apply(alignment.compose(second, first), points), there, atol=1e-12)
    np.testing.assert_allclose(alignment.apply(alignment.inverse(second), there), alignment.apply(first, points))


@pytest.mark.parametrize("scale", [0.31, 0.45, 1.0, 1.9])
def test_the_crop_holds_what_lies_under_the_canonical_square(scale):
    matrix = turn(scale, -0.15, (13.4, -8.7))
    image = texture(401, 397)
    landmarks = landmarks_in(matrix, 1)
    found = alignment.clip_transform(landmarks, CONFIG)
    np.testing.assert_allclose(found, matrix, atol=1e-3)
    np.testing.assert_allclose(
        alignment.apply(found, landmarks[0, [27]]), alignment.canonical_points(96)[:1], atol=1e-2
    )
    face = alignment.warp(image, found, 96)
    # Slow and obvious: average a fine grid of source samples under each pixel.
    fine = (np.mgrid[: 96 * 8, : 96 * 8] + 0.5) / 8 - 0.5
    inverse = np.linalg.inv(matrix[:, :2])
    at = (np.stack([fine[1], fine[0]], -1) - matrix[:, 2]) @ inverse.T
    grey = image[..., 0].astype(np.float32)
    slow = cv2.remap(grey, *np.moveaxis(at.astype(np.float32), -1, 0), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    slow = slow.reshape(96, 8, 96, 8).mean(axis=(1, 3))
    assert np.abs(slow - face)[2:-2, 2:-2].mean() < 4  # of 40 grey levels; half a pixel off gives 7 and more


def test_the_canonical_face_has_brows_and_chin_inside():
    face = template.in_canonical(template.mean_face())
    assert face.min() > 0.04 and face.max() < 0.96


def test_the_mean_face_is_symmetric():
    face = template.mean_face()
    assert np.isfinite(face).all()
    np.testing.assert_array_equal(template.MIRROR[template.MIRROR], np.arange(68))
    np.testing.assert_allclose(face[template.MIRROR], face * (-1, 1), atol=1e-12)
    assert np.linalg.norm(face[45] - face[36]) == pytest.approx(1)
    # The subject's left is the right of the picture.
    assert (face[22:27, 0] > 0).all() and (face[42:48, 0] > 0).all()
