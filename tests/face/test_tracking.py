"""The state machine on a scripted world: what is asked when, and what is taken, refused and found again."""

import numpy as np
import pytest

from stag_configs import base
from stag_jax.config import FaceConfig, from_config_dict
from stag_jax.face import face_checks, landmarks, pose, template, tracking
from stag_jax.face.tracking import Track
from stag_jax.types import UserError

CONFIG = from_config_dict(base.get_config()["face"], FaceConfig)
EYES = 40.0  # pixels between the outer eye corners of everybody here
SIZE = (480, 640)
HOME = (320, 240)
_RNG = np.random.default_rng(0)
PERSONS = [view / np.linalg.norm(view, axis=1, keepdims=True) for view in _RNG.normal(size=(3, 5, 400))]
NOBODY, FINE, COVERED, TURNED, WILD = range(5)


class Face:
    """Someone at a place in a frame."""

    def __init__(self, at=HOME, state=FINE, who=0):
        self.at, self.state, self.who = at, state, who

    @property
    def points(self):
        face = template.mean_face() * EYES
        if self.state == TURNED:
            face[27:36] += (0.35 * EYES, 0)  # the nose comes to lie before the cheek
        if self.state == WILD:
            face += (0.5 * EYES, 0.5 * EYES)  # the predictor is at a loss
        return (face + self.at).astype(np.float32)

    @property
    def found(self):
        x, y = (round(v + d * EYES) for v, d in zip(self.at, (0, 0.33), strict=True))
        half = round(0.875 * EYES)
        return landmarks.Found(landmarks.Box(x - half, y - half, x + half, y + half), 2.0, 0.0)


@pytest.fixture
def scripted(monkeypatch):
    """run(world): tracks a film that shows the faces of each frame; returns Track and the detector's searches."""
    world, searches = [], []

    def search(image, scales, least, *, margin=False):
        f = int(image[0, 0, 0])
        searches.append((f, len(scales), margin))
        if seen := [face.found for face in world[f] if face.state != WILD]:
            yield seen

    def look(frame, place, predictor, times=1):
        centre = face_checks.centre(place)
        near = [face for face in world[int(frame[0, 0, 0])] if np.linalg.norm(face.at - centre) < EYES]
        face = near[0] if near else None
        points = face.points if face else (template.mean_face() * EYES + centre).astype(np.float32)
        view = PERSONS[face.who].copy() if face else np.zeros((5, 400))
        state = face.state if face else NOBODY
        if state in (COVERED, WILD):
            view[3:] = np.roll(view[3:], 7, axis=1)
        pixel = np.full((1, 1), state, np.uint8)
        return face_checks.Look(pixel, pixel, points, points, face_checks.place_of(points), view.astype(np.float32))

    def examine(seen, predictor):
        state = int(seen.crop[0, 0])
        spread = np.full(4, 0.1 if state == NOBODY else 0.004)
        spread[3] += 0.03 * (state == COVERED)
        spread += 0.02 * (state == WILD)
        return face_checks.Exam({NOBODY: -1.0, COVERED: 1.0, WILD: 1.0}.get(state, 2.0), spread)

    monkeypatch.setattr(landmarks, "search", search)
    monkeypatch.setattr(face_checks, "look", look)
    monkeypatch.setattr(face_checks, "examine", examine)

    def run(films):
        world[:], searches[:] = films, []
        frames = np.zeros((len(films), *SIZE, 3), np.uint8)
        frames[:, 0, 0, 0] = np.arange(len(films))
        return tracking.track(frames, CONFIG, clip="c"), searches

    return run


def test_a_face_that_moves_slowly_is_searched_once(scripted):
    film = [[Face((100 + 3 * f, 200 + f))] for f in range(90)]
    track, searches = scripted(film)
    assert [f for f, _, _ in searches] == [0]
    assert track.refused == ("",) * 90
    np.testing.assert_allclose(track.landmarks, [faces[0].points for faces in film], atol=1e-3)
    np.testing.assert_allclose(track.jump[1:], np.hypot(3, 1) / EYES, rtol=1e-3)
    boxes = track.box.astype(float)
    np.testing.assert_allclose(np.diff(boxes[:, 2] - boxes[:, 0]), 0, atol=1)  # neither shrinks nor grows
    np.testing.assert_allclose(boxes[-1] - boxes[0], (267, 89, 267, 89), atol=1)
    assert (track.confidence > 0.8).all()


def test_a_jump_asks_the_detector_again(scripted):
    track, searches = scripted([[Face()]] * 3 + [[Face((420, 240))]] * 4)
    assert [f for f, _, _ in searches] == [0, 3]
    assert track.refused == ("",) * 7
    assert track.jump[3] == pytest.approx(100 / EYES, rel=1e-3) and track.jump[[0, 2, 4]].max() == 0
    np.testing.assert_allclose(track.landmarks[6], Face((420, 240)).points, atol=1e-3)


def test_a_face_that_vanishes_is_refused_and_taken_up_again(scripted):
    track, _ = scripted([[Face()]] * 5 + [[]] * 4 + [[Face()]] * 5)
    assert track.refused == ("",) * 5 + ("no face",) * 4 + ("",) * 5
    gone = slice(5, 9)
    assert np.isnan(track.landmarks[gone]).all() and np.isfinite(track.landmarks[9:]).all()
    assert not track.confidence[gone].any() and not track.jump[gone].any()
    np.testing.assert_array_equal(track.box[5], track.box[4])  # where it is looked for


def test_a_hidden_face_is_refused_until_it_is_not(scripted):
    track, searches = scripted([[Face()]] * 30 + [[Face(state=COVERED)]] * 20 + [[Face()]] * 5)
    assert track.refused == ("",) * 30 + ("partly hidden",) * 20 + ("",) * 5
    assert [f for f, _, _ in searches] == [0, 30, 30 + tracking.RETRY]  # it is known where the face is


def test_a_face_that_comes_back_changed_must_stay(scripted):
    changed = Face(who=1)
    track, _ = scripted([[Face()]] * 5 + [[]] * 2 + [[changed]] * 5)
    wait = tracking.CALM - 1
    assert track.refused == ("",) * 5 + ("no face",) * 2 + ("not yet steady",) * wait + ("",) * (5 - wait)


def test_a_face_hidden_from_the_start_is_taken_when_it_comes_out(scripted):
    track, _ = scripted([[Face(state=COVERED)]] * 7 + [[Face()]] * 7)
    wait = tracking.CALM - 1
    assert track.refused[: 7 + wait] == ("partly hidden",) * 7 + ("not yet steady",) * wait
    assert track.refused[7 + wait :] == ("",) * (7 - wait)


def test_the_largest_face_decides_even_if_it_is_hidden(scripted):
    track, _ = scripted([[Face(state=COVERED), Face((500, 240), who=1)]] * 5)
    assert track.refused == ("partly hidden",) * 5


def test_a_bystander_is_not_taken_for_the_face_that_is_lost(scripted):
    other = Face((500, 240), who=1)
    for lost in ([other], [Face(state=COVERED), other]):
        track, _ = scripted([[Face(), other]] * 3 + [lost] * 30 + [[Face(), other]] * 3)
        assert all(track.refused[3:33])
        assert track.refused[33:] == ("",) * 3
        np.testing.assert_allclose(track.landmarks[-1], Face().points, atol=1e-3)


def test_after_a_while_the_bystander_will_do(scripted):
    other = Face((500, 240), who=1)
    track, _ = scripted([[Face(), other]] * 3 + [[other]] * (tracking.FORGET + 2 * tracking.RETRY))
    assert all(track.refused[3 : tracking.FORGET])
    np.testing.assert_allclose(track.landmarks[-1], other.points, atol=1e-3)


def test_the_same_face_is_known_elsewhere(scripted):
    track, _ = scripted([[Face()]] * 3 + [[]] * 2 + [[Face((520, 300), who=1), Face((150, 300))]] * 3)
    assert track.refused == ("",) * 3 + ("no face",) * 2 + ("",) * 3
    np.testing.assert_allclose(track.landmarks[-1], Face((150, 300)).points, atol=1e-3)


def test_of_two_alike_the_nearer_is_taken(scripted):
    track, _ = scripted([[Face()]] * 3 + [[]] * 2 + [[Face((560, 240)), Face((365, 240))]] * 3)
    np.testing.assert_allclose(track.landmarks[-1], Face((365, 240)).points, atol=1e-3)


def test_where_landmarks_are_lost_the_place_is_kept(scripted):
    track, _ = scripted([[Face()]] * 3 + [[Face(state=WILD)]] * 30 + [[Face()]] * 3)
    assert track.refused == ("",) * 3 + ("landmarks lost",) * 30 + ("",) * 3
    assert np.abs(track.box[3:33] - track.box[0]).max() <= 1


def test_where_landmarks_are_lost_the_face_may_be_elsewhere(scripted):
    moved = Face((470, 240))
    track, _ = scripted([[Face()]] * 3 + [[Face(state=WILD)]] * 3 + [[Face(state=WILD), moved]] * 3)
    assert track.refused == ("",) * 3 + ("landmarks lost",) * 3 + ("",) * 3
    np.testing.assert_allclose(track.landmarks[-1], moved.points, atol=1e-3)


def test_a_missing_face_is_not_looked_for_at_all_sizes_in_every_frame(scripted):
    _, searches = scripted([[]] * 30)
    every = len(landmarks.scales(max(SIZE)))
    assert [f for f, count, margin in searches if count == every and margin] == [0, tracking.RETRY, 2 * tracking.RETRY]
    assert all(count == 1 for f, count, _ in searches if f % tracking.RETRY)
    _, searches = scripted([[Face()]] * 3 + [[]] * 40)
    thorough = [f for f, count, margin in searches if count == every and margin]
    assert thorough == [0, *range(3 + tracking.RETRY, 43, tracking.RETRY)]
    assert all(count == 1 and not margin for f, count, margin in searches if f not in thorough)


def test_a_turned_head_is_refused_with_its_angle(scripted):
    track, _ = scripted([[Face()]] * 3 + [[Face(state=TURNED)]] * 2 + [[Face()]] * 3)
    angle = pose.fit(Face(state=TURNED).points).yaw
    assert angle > CONFIG.max_turn
    assert track.refused[3:5] == (f"head turned by {angle:.0f} degrees",) * 2
    assert track.refused[5:] == ("",) * 3


def test_a_face_at_the_edge_is_refused(scripted):
    film = [[Face((60 - 4 * f, 240))] for f in range(12)]
    track, _ = scripted(film)
    for faces, reason in zip(film, track.refused, strict=True):
        cut = faces[0].points[17:, 0].min() < -0.05 * EYES
        assert reason == ("partly outside the picture" if cut else "")
    assert track.refused[0] == "" and track.refused[-1]


def test_several_faces_are_reported_once(scripted, caplog):
    film = [[Face(), Face((500, 240), who=1)]] * 3 + [[Face((250, 240)), Face((500, 240), who=1)]] * 40
    with caplog.at_level("WARNING", logger="absl"):
        track, searches = scripted(film)
    assert len(searches) > 1
    assert [record.getMessage() for record in caplog.records] == ["c: 2 faces in frame 0, the largest is used"]
    np.testing.assert_allclose(track.landmarks[0], Face().points, atol=1e-3)


def test_a_step_is_a_function(scripted):
    scripted([[Face()]] * 3)  # sets the scene
    frame = np.zeros((*SIZE, 3), np.uint8)
    state, first = tracking.step(tracking.TrackingState(), frame, CONFIG)
    before = [np.copy(part) for part in (state.points, state.place, state.face.view)]
    once, twice = (tracking.step(state, frame, CONFIG) for _ in range(2))
    for one, two in zip((*once[0][1:], *once[1]), (*twice[0][1:], *twice[1]), strict=True):
        np.testing.assert_array_equal(one, two)
    for part, copy in zip((state.points, state.place, state.face.view), before, strict=True):
        np.testing.assert_array_equal(part, copy)
    assert first.refused == "" and first.faces == 1 and once[0].age == 1


def made(*refused):
    f = len(refused)
    zeros = np.zeros(f, np.float32)
    return Track(np.zeros((f, 68, 2), np.float32), np.zeros((f, 4), int), zeros, zeros, refused)


def test_a_clip_of_use_passes():
    tracking.require(made(""), clip="c")
    tracking.require(made("", "no face", "", "partly hidden"), clip="c")  # half is enough


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ((), "corpus/s1/c1: no frames"),
        (("no face", "", ""), "corpus/s1/c1 frame 0: no face"),
        (("", "", *("partly hidden",) * 3), "corpus/s1/c1 frame 2: partly hidden; 3 of 5 frames are refused"),
    ],
)
def test_what_is_missing_names_clip_frame_and_reason(refused, message):
    with pytest.raises(landmarks.NoFaceError) as caught:
        tracking.require(made(*refused), clip="corpus/s1/c1")
    assert str(caught.value) == message
    assert isinstance(caught.value, UserError)


def test_a_clip_without_frames_is_a_track_without_frames():
    track = tracking.track(np.zeros((0, 5, 7, 3), np.uint8), CONFIG, clip="c")
    assert track.landmarks.shape == (0, 68, 2) and track.box.shape == (0, 4) and track.refused == ()
