import dataclasses
import os

import cv2
import numpy as np
import pytest

from stag_datasets.synth_me import render, script
from stag_jax.config import FaceConfig
from stag_jax.face import alignment, landmarks
from stag_jax.types import UserError

CONFIG = FaceConfig(predictor="", size=128, reference_frames=3, redetect_jump=0.1)
MEDIA = os.environ.get("STAG_TEST_MEDIA", "")


@pytest.fixture(scope="module")
def rendered():
    """A clip of a person who does not exist, and where the landmarks truly are."""
    return render.render_clip(script.subject_clips(script.Recipe(), 0)[0])


@pytest.fixture(scope="module")
def video(rendered):
    return rendered.frames[:13]


def test_no_face_names_clip_and_frame():
    grey = np.full((3, 97, 131, 3), 127, np.uint8)
    with pytest.raises(landmarks.NoFaceError, match="corpus/s1/c1 frame 0: no face"):
        landmarks.track(grey, CONFIG, clip="corpus/s1/c1")
    assert issubclass(landmarks.NoFaceError, UserError)


def test_the_predictor_is_found_without_importing_its_package():
    path = landmarks.predictor_path()
    assert path.is_file() and path.name == "shape_predictor_68_face_landmarks.dat"


def test_a_missing_predictor_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.face\.predictor: .*nowhere\.dat is not a file"):
        landmarks.predictor_path(str(tmp_path / "nowhere.dat"))


def test_an_unusable_predictor_is_named(tmp_path):
    path = tmp_path / "broken.dat"
    path.write_bytes(b"not a predictor")
    config = dataclasses.replace(CONFIG, predictor=str(path))
    with pytest.raises(UserError, match=r"broken\.dat is not a dlib shape predictor"):
        landmarks.predict(np.zeros((89, 83, 3), np.uint8), landmarks.Box(10, 10, 70, 70), config)


@pytest.fixture
def scripted(monkeypatch):
    """Replaces dlib by a face that lies where the test says: (calls to the detector, set the path of the face)."""
    calls, path = [], []
    shape = np.random.default_rng(0).uniform(0, 40, (68, 2)).astype(np.float32)
    shape[36], shape[45] = (0, 0), (40, 0)

    def detect(image, *, where):
        f = int(image[0, 0, 0])
        calls.append(f)
        if path[f] is None:
            raise landmarks.NoFaceError(f"{where}: no face found")
        x, y = path[f]
        return landmarks.Box(x, y, x + 40, y + 40)

    def predict(image, box, cfg):
        position = path[int(image[0, 0, 0])]
        return shape + np.float32(position if position is not None else (90, 90))

    monkeypatch.setattr(landmarks, "detect", detect)
    monkeypatch.setattr(landmarks, "predict", predict)

    def run(where):
        path[:] = where
        frames = np.zeros((len(where), 5, 7, 3), np.uint8)
        frames[:, 0, 0, 0] = np.arange(len(where))
        return landmarks.track(frames, CONFIG, clip="c"), calls, shape

    return run


def test_a_face_that_moves_slowly_is_detected_once(scripted):
    path = [(3 * f, 2 * f) for f in range(30)]  # three boxes away in the end
    tracked, calls, shape = scripted(path)
    assert calls == [0]
    np.testing.assert_allclose(tracked, shape + np.array(path)[:, None])


def test_a_jump_asks_for_a_new_detection(scripted):
    path = [(10, 10)] * 3 + [(30, 10)] * 4
    tracked, calls, shape = scripted(path)
    assert calls == [0, 3]
    np.testing.assert_allclose(tracked[6], shape + np.float32((30, 10)))


def test_a_face_that_leaves_names_clip_and_frame(scripted):
    with pytest.raises(landmarks.NoFaceError, match="c frame 2: no face"):
        scripted([(10, 10), (11, 10), None, None])


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_detection_scales_with_the_picture(video, scale):
    box = landmarks.detect(video[0])
    image = cv2.resize(video[0], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    scaled = np.array(landmarks.detect(image)) / scale
    width = box.right - box.left
    # The detector's own steps are a fifth of a face.
    assert 0.75 < (scaled[2] - scaled[0]) / width < 1.33
    np.testing.assert_allclose((scaled[:2] + scaled[2:]) / 2, np.add(box[:2], box[2:]) / 2, atol=0.1 * width)


def test_a_tight_crop_is_still_a_face(video):
    left, top, right, bottom = landmarks.detect(video[0])
    landmarks.detect(np.ascontiguousarray(video[0, top:bottom, left:right]))


def test_several_faces_the_largest_with_a_warning(video, caplog):
    small = cv2.resize(video[0], None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    height = video.shape[1]
    pad = np.zeros((height - small.shape[0], small.shape[1], 3), np.uint8)
    pair = np.concatenate([np.concatenate([small, pad]), video[0]], axis=1)
    with caplog.at_level("WARNING", logger="absl"):
        box = landmarks.detect(pair, where="c frame 0")
    assert "c frame 0: 2 faces" in caplog.text
    assert box.left > small.shape[1]


def check_tracking(frames):
    tracked = landmarks.track(frames, CONFIG, clip="c")
    assert tracked.shape == (len(frames), 68, 2)
    assert (tracked[:, 45, 0] > tracked[:, 36, 0]).all()  # the subject's left eye is on the right of the picture
    faces, points, _ = alignment.align(frames, tracked, CONFIG)
    assert faces.shape == (len(frames), 128, 128)
    eyes = points[0, [36, 45]]
    np.testing.assert_allclose(eyes, alignment.canonical_points(128)[[4, 7]], atol=6)
    return tracked


def test_tracking_finds_the_true_landmarks(rendered):
    tracked = check_tracking(rendered.frames)
    error = np.linalg.norm(tracked - rendered.landmarks, axis=-1).mean(axis=1)
    assert error.max() < 0.04 * rendered.face_width  # dlib's own idea of jaw and brows is most of it
    assert np.ptp(error) < 0.01 * rendered.face_width  # no drift


@pytest.mark.skipif(not MEDIA, reason="STAG_TEST_MEDIA names no folder with videos of faces")
def test_tracking_follows_a_real_face():
    found = 0
    for name in sorted(os.listdir(MEDIA)):
        if name.endswith(".mp4") and not name.startswith("no_face"):
            capture = cv2.VideoCapture(os.path.join(MEDIA, name))
            frames = [capture.read()[1][..., ::-1] for _ in range(13)]
            capture.release()
            check_tracking(np.ascontiguousarray(frames))
            found += 1
    assert found
