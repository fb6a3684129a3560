import cv2
import dlib
import numpy as np
import pytest

from stag_datasets.synth_me import render, script
from stag_jax.face import landmarks
from stag_jax.types import UserError


@pytest.fixture(scope="module")
def frame():
    """A person who does not exist."""
    spec = script.subject_clips(script.Recipe(frames=(12, 12)), 0)[0]
    return render.render_clip(spec).frames[0]


def faces(image):
    return next(landmarks.search(image, landmarks.scales(max(image.shape)), 0.0, margin=True), [])


def test_the_predictor_is_found_without_importing_its_package():
    path = landmarks.predictor_path()
    assert path.is_file() and path.name == "shape_predictor_68_face_landmarks.dat"


def test_a_missing_predictor_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.face\.predictor: .*nowhere\.dat is not a file"):
        landmarks.predictor_path(str(tmp_path / "nowhere.dat"))


def test_an_unusable_predictor_is_named(tmp_path):
    path = tmp_path / "broken.dat"
    path.write_bytes(b"not a predictor")
    with pytest.raises(UserError, match=r"broken\.dat is not a dlib shape predictor"):
        landmarks.predict(np.zeros((89, 83), np.uint8), landmarks.Box(10, 10, 70, 70), str(path))


def test_a_predictor_of_five_points_is_refused(tmp_path):
    options = dlib.shape_predictor_training_options()
    options.cascade_depth = options.num_trees_per_cascade_level = options.tree_depth = 1
    options.oversampling_amount = options.num_test_splits = 1
    options.feature_pool_size = 2
    box = dlib.rectangle(2, 2, 30, 30)
    images = [np.random.default_rng(seed).integers(0, 256, (37, 41), np.uint8) for seed in range(2)]
    marks = [dlib.full_object_detection(box, [dlib.point(5 * i, 7 + i + j) for i in range(5)]) for j in range(2)]
    path = tmp_path / "five.dat"
    dlib.train_shape_predictor(images, [[mark] for mark in marks], options).save(str(path))
    with pytest.raises(UserError, match=r"config\.face\.predictor: .*five\.dat gives 5 points, not 68"):
        landmarks.predict(np.zeros((89, 83), np.uint8), landmarks.Box(10, 10, 70, 70), str(path))


def test_the_memory_of_a_picture_makes_no_difference(frame):
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    ((box, _, _), *_) = landmarks.detect(grey, 0.0)
    wide = np.zeros((grey.shape[0], 2 * grey.shape[1]), np.uint8)
    wide[:, ::2] = grey
    for view in (np.asfortranarray(grey), wide[:, ::2], grey[::-1].copy()[::-1]):
        np.testing.assert_array_equal(landmarks.predict(view, box), landmarks.predict(grey, box))
        assert landmarks.detect(view, 0.0) == landmarks.detect(grey, 0.0)
        assert landmarks.score(view, -1.0) == landmarks.score(grey, -1.0)


def test_the_score_tells_a_face_from_noise(frame):
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    noise = np.random.default_rng(0).integers(0, 256, grey.shape, np.uint8)
    assert landmarks.score(grey, -1.0) > 1
    assert landmarks.score(noise, -1.0) <= 0
    assert landmarks.score(noise, -0.3) == -0.3


def test_the_usual_sizes_start_small_and_never_enlarge_the_first():
    for longest in (7, 61, 256, 640, 3840):
        scales = landmarks.scales(longest)
        assert list(scales) == sorted(scales)
        assert scales[0] <= 1 and scales[0] * longest <= 320
        assert scales[-1] <= 2 and scales[-1] * longest <= 1280
    assert landmarks.scales(640) == (0.5, 1.0, 2.0)


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0, 11.0])
def test_detection_scales_with_the_picture(frame, scale):
    box = faces(frame)[0].box
    image = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    scaled = np.array(faces(image)[0].box) / scale
    width = box.right - box.left
    # The detector's own steps are a fifth of a face.
    assert 0.75 < (scaled[2] - scaled[0]) / width < 1.33
    np.testing.assert_allclose((scaled[:2] + scaled[2:]) / 2, np.add(box[:2], box[2:]) / 2, atol=0.1 * width)


@pytest.mark.parametrize("tilt", [-25, 0, 25])
def test_a_tilted_face_is_found_with_its_tilt(frame, tilt):
    centre = (frame.shape[1] / 2, frame.shape[0] / 2)
    turn = cv2.getRotationMatrix2D(centre, -tilt, 1.0)  # OpenCV turns the other way round
    image = cv2.warpAffine(frame, turn, frame.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    assert faces(image)[0].tilt == tilt


def test_a_tight_crop_is_still_a_face(frame):
    left, top, right, bottom = faces(frame)[0].box
    left, top = max(left, 0) + 9, max(top, 0) + 9
    tight = np.ascontiguousarray(frame[top : bottom - 9, left : right - 9])
    assert faces(tight)
    *_, framed = landmarks.search(tight, (1.0,), 0.0, margin=True)
    np.testing.assert_allclose(framed[0].box, (-9, -9, right - left, bottom - top), atol=0.12 * (right - left))


def test_the_largest_face_comes_first(frame):
    small = cv2.resize(frame, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    pad = np.zeros((frame.shape[0] - small.shape[0], small.shape[1], 3), np.uint8)
    large, other = faces(np.concatenate([np.concatenate([small, pad]), frame], axis=1))
    assert large.box.left > small.shape[1] > other.box.right


def test_where_there_is_no_face_none_is_found():
    for shape in ((1, 1, 3), (5, 7, 3), (97, 131, 3), (61, 1201, 3)):
        assert faces(np.full(shape, 127, np.uint8)) == []
