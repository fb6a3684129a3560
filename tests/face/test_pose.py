import numpy as np
import pytest

from stag_jax.face import pose, template
from stag_jax.face.pose import Pose

ANGLES = [(0, 0, 0), (31, 0, 0), (0, -23, 0), (0, 0, 67), (-19, 29, -41), (43, 11, 13)]


def seen(angles, scale=97.0, distance=np.inf):
    """The 68 landmarks of a turned average head from so many outer eye distances away; only the rigid ones count."""
    head = pose.model() @ pose.rotation(Pose(*angles)).T
    depth = np.ones(len(head)) if distance == np.inf else 1 + head[:, 2] / distance
    points = np.full((68, 2), 3.0)
    points[list(pose.RIGID)] = scale * head[:, :2] / depth[:, None] + (211, -57)
    return points


@pytest.mark.parametrize("angles", ANGLES)
def test_the_pose_of_a_projected_head_is_recovered(angles):
    np.testing.assert_allclose(pose.fit(seen(angles)), angles, atol=1e-6)


@pytest.mark.parametrize("angles", ANGLES)
def test_a_camera_forty_eye_distances_away_changes_little(angles):
    np.testing.assert_allclose(pose.fit(seen(angles, distance=40.0)), angles, atol=1.0)


def test_noise_of_the_predictor_moves_the_pose_by_about_a_degree():
    rng = np.random.default_rng(0)
    found = [pose.fit(seen((13, -7, 5)) + 97 * 0.004 * rng.normal(size=(68, 2))) for _ in range(200)]
    assert np.std(found, axis=0).max() < 1.3
    np.testing.assert_allclose(np.mean(found, axis=0), (13, -7, 5), atol=0.3)


def test_the_average_face_looks_into_the_camera():
    np.testing.assert_allclose(pose.fit(template.mean_face()), (0, 0, 0), atol=1e-9)


def test_signs_are_those_of_the_picture():
    tip, root = pose.RIGID.index(30), pose.RIGID.index(27)
    right, down = (pose.model() @ pose.rotation(Pose(*a)).T for a in ((20, 0, 0), (0, 20, 0)))
    assert right[tip, 0] - right[root, 0] > 0.05  # the nose points to the right of the picture
    assert down[tip, 1] > pose.model()[tip, 1]  # and down when the chin is on the chest
    turned = pose.rotation(Pose(0, 0, 20)) @ (1, 0, 0)
    assert turned[1] > 0  # clockwise: what was to the right is further down


def test_mirroring_the_face_turns_the_other_way():
    points = seen((17, 9, 5))
    mirrored = points[template.MIRROR] * (-1, 1)
    np.testing.assert_allclose(pose.fit(mirrored), (-17, 9, -5), atol=1e-6)
