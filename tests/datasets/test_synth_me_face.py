"""The faces drawn: a detector made for photographs must find them, and find their features where they are."""

import importlib.util

import cv2
import dlib
import numpy as np
import pytest

from stag_datasets.synth_me import face, identity, render, script

PEOPLE = 12


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, np.ndarray]]:
    """First frame and true landmarks of people that are in no corpus of ours."""
    recipe = script.Recipe(subjects=PEOPLE, clips=1, frames=(20, 20), seed=1000)
    clips = [render.render_clip(script.subject_clips(recipe, subject)[0]) for subject in range(PEOPLE)]
    assert any(clip.spec.who.glasses for clip in clips) and not all(clip.spec.who.glasses for clip in clips)
    return [(clip.frames[0], clip.landmarks[0]) for clip in clips]


def test_dlib_finds_every_face_and_its_landmarks(drawn):
    package = importlib.util.find_spec("face_recognition_models").submodule_search_locations[0]
    predictor = dlib.shape_predictor(f"{package}/models/shape_predictor_68_face_landmarks.dat")
    detector = dlib.get_frontal_face_detector()
    errors = []
    for frame, true in drawn:
        boxes = detector(frame, 0)
        assert len(boxes) == 1
        found = np.array([(p.x, p.y) for p in predictor(frame, boxes[0]).parts()])
        errors.append(np.linalg.norm(found - true, axis=1) / np.linalg.norm(true[45] - true[36]))
    assert np.median(errors) < 0.03
    assert np.max(np.mean(errors, axis=1)) < 0.05


def test_points_are_mirror_images():
    points = identity.canon()
    np.testing.assert_array_equal(points[identity.MIRROR] * (-1, 1), points)
    np.testing.assert_array_equal(identity.MIRROR[identity.MIRROR], np.arange(68))
    assert points[16, 0] - points[0, 0] == 1  # the unit of length


def test_the_same_person_is_drawn_the_same():
    recipe = script.Recipe(size=96)
    first, again = (face.draw(script.identity(recipe, 3), recipe.size) for _ in range(2))
    other = face.draw(script.identity(recipe, 4), recipe.size)
    np.testing.assert_array_equal(first.canvas, again.canvas)
    assert np.abs(first.canvas.astype(float) - other.canvas).mean() > 5


def test_skin_has_texture_that_flow_can_follow(drawn):
    for frame, points in drawn:
        half = np.abs(points[16, 0] - points[0, 0]) / 10
        x, y = points[[1, 31]].mean(axis=0)  # the middle of a cheek
        cheek = frame[int(y - half) : int(y + half), int(x - half) : int(x + half)].mean(axis=-1)
        fine = cheek - cv2.GaussianBlur(cheek, (0, 0), 4)
        assert fine.std() > 1.2  # grey levels
