"""The tracker on rendered people, whose landmarks are known, and on real ones where there are any."""

import dataclasses
import os

import cv2
import numpy as np
import pytest

from stag_configs import base
from stag_datasets.synth_me import render, script
from stag_jax.config import FaceConfig, from_config_dict
from stag_jax.face import alignment, appearance, face_checks, pose, tracking

CONFIG = from_config_dict(base.get_config()["face"], FaceConfig)
MEDIA = os.environ.get("STAG_TEST_MEDIA", "")
EXPRESSION = slice(8, 14)  # the frames that the tests spoil


@pytest.fixture(scope="module")
def people():
    """Clips of three persons who do not exist."""
    recipe = script.Recipe(frames=(23, 23))
    return [render.render_clip(script.subject_clips(recipe, subject)[0]) for subject in (0, 5, 9)]


@pytest.fixture(scope="module")
def person(people):
    return people[0]


def track(frames, **changes):
    return tracking.track(frames, dataclasses.replace(CONFIG, **changes), clip="c")


def eyes(points):
    return np.linalg.norm(points[..., 45, :] - points[..., 36, :], axis=-1)


def warped(frame, matrix):
    return cv2.warpAffine(frame, matrix, frame.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def test_tracking_finds_the_true_landmarks(people):
    for rendered in people:
        found = track(rendered.frames)
        assert found.refused == ("",) * len(rendered.frames)
        error = np.linalg.norm(found.landmarks - rendered.landmarks, axis=-1) / eyes(rendered.landmarks)[:, None]
        assert np.median(error) < 0.025 and error.mean(axis=1).max() < 0.035
        assert np.ptp(error.mean(axis=1)) < 0.01  # no drift
        assert (found.confidence > 0.7).all() and (found.confidence <= 1).all()
        assert found.jump.max() < 0.03
        assert (found.box[:, 2] - found.box[:, 0] == found.box[:, 3] - found.box[:, 1]).all()
        inside = (found.landmarks[:, 17:] > found.box[:, None, :2]) & (found.landmarks[:, 17:] < found.box[:, None, 2:])
        assert inside.mean() > 0.95


def test_blinks_are_not_taken_for_things_before_the_face():
    specs = [spec for s in range(4) for spec in script.subject_clips(script.Recipe(), s) if spec.blinks][:3]
    shut = 0.0
    for spec in specs:
        rendered = render.render_clip(spec)
        shut = max(shut, rendered.blink.max())
        assert not any(track(rendered.frames).refused)
    assert shut > 0.9


def test_a_cut_to_noise_is_refused_there_and_only_there(person):
    frames = person.frames.copy()
    frames[EXPRESSION] = np.random.default_rng(0).integers(0, 256, frames[EXPRESSION].shape, np.uint8)
    found = track(frames)
    refused = np.zeros(len(frames), bool)
    refused[EXPRESSION] = True
    assert found.refused == tuple("no face" if bad else "" for bad in refused)
    np.testing.assert_array_equal(np.isnan(found.landmarks).all(axis=(1, 2)), refused)
    np.testing.assert_array_equal(np.isnan(found.landmarks).any(axis=(1, 2)), refused)
    np.testing.assert_array_equal(found.confidence == 0, refused)


def covered(rendered, part, kind):
    """The frames with something over a part of the face in those of EXPRESSION."""
    rng = np.random.default_rng(1)
    frames = rendered.frames.copy()
    for f in range(*EXPRESSION.indices(len(frames))):
        points, e = rendered.landmarks[f], eyes(rendered.landmarks[f])
        middle = points[{"mouth": slice(48, 60), "eye": slice(36, 42), "half": slice(36, 60)}[part]].mean(axis=0)
        middle[0] -= 0.75 * e * (part == "half")
        reach = np.array({"mouth": (0.45, 0.35), "eye": (0.3, 0.27), "half": (0.75, 1.5)}[part]) * e
        left, top = np.clip(middle - reach, 0, 256).astype(int)
        right, bottom = np.clip(middle + reach, 0, 256).astype(int)
        patch = rng.normal(size=(bottom - top, right - left)).astype(np.float32)
        patch = cv2.GaussianBlur(patch, (0, 0), 3)
        grey = np.clip(130 + 45 * patch / patch.std(), 0, 255) if kind == "textured" else np.full_like(patch, 90)
        frames[f, top:bottom, left:right] = grey.astype(np.uint8)[..., None]
    return frames


@pytest.mark.parametrize("kind", ["flat", "textured"])
@pytest.mark.parametrize("part", ["mouth", "eye", "half"])
def test_what_comes_before_the_face_is_noticed(people, part, kind):
    caught, others = [], []
    for rendered in people:
        refused = np.array([bool(reason) for reason in track(covered(rendered, part, kind)).refused])
        caught.append(refused[EXPRESSION])
        others.append(np.delete(refused, EXPRESSION))
    assert np.mean(caught) > (0.9 if part == "eye" else 0.99)
    assert not np.any([other[: EXPRESSION.start] for other in others])
    assert np.mean([other[EXPRESSION.start :].mean() for other in others]) < 0.3  # it is taken up again


def test_a_covered_face_is_not_taken_from_the_start(people):
    frames = [covered(rendered, "half", "textured")[EXPRESSION] for rendered in people]
    assert all(found for clip in frames for found in track(clip).refused)


def test_fast_movement_is_followed(person):
    shifts = [(round(60 * np.sin(f)), round(25 * np.cos(1.3 * f))) for f in range(len(person.frames))]
    frames = np.zeros((len(shifts), 331, 397, 3), np.uint8) + np.uint8(90)
    for frame, shown, (dx, dy) in zip(frames, person.frames, shifts, strict=True):
        frame[37 + dy : 293 + dy, 70 + dx : 326 + dx] = shown
    found = track(frames)
    assert not any(found.refused) and found.jump.max() > 0.4
    truth = person.landmarks + (70, 37) + np.array(shifts)[:, None]
    assert np.median(np.linalg.norm(found.landmarks - truth, axis=-1)) < 0.025 * eyes(person.landmarks).mean()


@pytest.mark.parametrize("angle", [-30, 30])
def test_a_head_may_be_tilted(person, angle):
    matrix = cv2.getRotationMatrix2D((127.5, 127.5), -angle, 0.8)
    found = track(np.stack([warped(frame, matrix) for frame in person.frames]))
    assert not any(found.refused)
    error = np.linalg.norm(found.landmarks - alignment.apply(matrix, person.landmarks), axis=-1)
    assert np.median(error) < 0.03 * 0.8 * eyes(person.landmarks).mean()
    upright = np.mean([pose.fit(points).roll for points in track(person.frames[:5]).landmarks])
    assert np.mean([pose.fit(points).roll for points in found.landmarks]) - upright == pytest.approx(angle, abs=3)


def test_movement_of_a_fraction_of_a_pixel_is_seen(person):
    steps = np.arange(21) * 0.25
    frames = np.stack([warped(person.frames[0], np.array([[1, 0, s], [0, 1, -s]], float)) for s in steps])
    found = track(frames).landmarks
    moved = np.median(found - found[0], axis=1) * (1, -1)
    slope = np.polyfit(steps, moved, 1)[0]
    np.testing.assert_allclose(slope, 1, atol=0.06)
    assert np.abs(moved - steps[:, None]).max() < 0.5


def test_smoothing_makes_landmarks_steadier(person):
    still = person.frames[:1].repeat(25, axis=0).astype(np.int16)
    still = still + np.random.default_rng(2).normal(0, 3, (*still.shape[:3], 1)).astype(np.int16)
    frames = np.clip(still, 0, 255).astype(np.uint8)
    raw, smooth = (track(frames, smooth=window).landmarks for window in (0, 7))
    assert raw[4:-4].std(axis=0).mean() / smooth[4:-4].std(axis=0).mean() > 1.5
    np.testing.assert_allclose(smooth.mean(axis=0), raw.mean(axis=0), atol=0.3)


def test_frames_of_any_kind_and_size(person):
    four = person.frames[:4]
    width = eyes(person.landmarks[0])

    def same(frames, scale=(1.0, 1.0), shift=(0, 0)):
        found = track(frames)
        assert not any(found.refused)
        back = (found.landmarks - shift) / scale
        assert np.median(np.linalg.norm(back - person.landmarks[:4], axis=-1)) < 0.03 * width

    grey = four[..., 1:2].repeat(3, axis=-1)
    same(grey)
    same(np.ascontiguousarray(four[:, :, ::-1])[:, :, ::-1])
    same(np.asfortranarray(four))
    small = np.stack([cv2.resize(frame, (61, 61), interpolation=cv2.INTER_AREA) for frame in four])
    same(small[:, :, 6:54], scale=(61 / 256, 61 / 256), shift=(-6, 0))
    big = np.zeros((1, 2160, 3840, 3), np.uint8)
    big[0, 60:2108, 1000:3048] = cv2.resize(four[0], (2048, 2048))
    found = track(big)
    error = (found.landmarks[0] - (1000, 60)) / 8 - person.landmarks[0]
    assert np.median(np.linalg.norm(error, axis=-1)) < 0.03 * width


def test_pictures_without_a_face_are_refused_without_an_error():
    rng = np.random.default_rng(3)
    cloud = cv2.GaussianBlur(rng.normal(size=(240, 320)).astype(np.float32), (0, 0), 9)
    cloud = np.clip(128 + 50 * cloud / cloud.std(), 0, 255).astype(np.uint8)
    for picture in (np.full((97, 131, 3), 127, np.uint8), cloud[..., None].repeat(3, 2), np.zeros((1, 1, 3), np.uint8)):
        found = track(picture[None].repeat(3, axis=0))
        assert found.refused == ("no face",) * 3
        assert np.isnan(found.landmarks).all() and not found.box.any() and not found.confidence.any()


def test_a_limit_on_turning_is_in_degrees(person):
    angles = [pose.fit(points) for points in track(person.frames, smooth=0).landmarks]
    pitch = np.array([angle.pitch for angle in angles])
    limit = float(np.median(pitch))
    found = track(person.frames, max_turn=limit, smooth=0)
    for f in np.flatnonzero(pitch > limit + 1):
        assert found.refused[f].startswith("head bent by 1") and found.refused[f].endswith(" degrees")
    assert (pitch > limit + 0.5).any()


def view(frame, points):
    small = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (80, 80), interpolation=cv2.INTER_AREA)
    return appearance.view(small, (points + 0.5) * 80 / 256 - 0.5)


def test_views_do_not_see_micro_expressions_but_persons(people):
    still = [view(rendered.frames[0], rendered.landmarks[0]) for rendered in people]
    for one, rendered in zip(still, people, strict=True):
        apex = view(rendered.frames[rendered.apex], rendered.landmarks[rendered.apex])
        assert appearance.likeness(one, apex).min() > face_checks.EQUAL
        np.testing.assert_allclose(appearance.likeness(one, one), 1, atol=0.1)
    assert appearance.likeness(still[0], still[1]).min() < face_checks.ALIKE


def test_views_tell_which_region_has_changed(person):
    first, f = view(person.frames[0], person.landmarks[0]), EXPRESSION.start
    likes = appearance.likeness(first, view(covered(person, "eye", "textured")[f], person.landmarks[f]))
    names = list(appearance.REGIONS)
    assert likes.argmin() == names.index("right eye")
    assert likes[[names.index("left eye"), names.index("left mouth")]].min() > face_checks.EQUAL


def test_views_do_not_see_the_light(person):
    shade = np.linspace(-60, 60, 256)[None, :, None]
    lit = np.clip(0.6 * person.frames[0] + 40 + shade, 0, 255).astype(np.uint8)
    points = person.landmarks[0]
    assert appearance.likeness(view(person.frames[0], points), view(lit, points)).min() > face_checks.EQUAL


GOOD, HALF, BAD = 0.004, 0.01, 0.05  # spreads
_RNG = np.random.default_rng(0)
BEFORE = _RNG.normal(size=(5, 400))
BEFORE /= np.linalg.norm(BEFORE, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("known", "changed", "spread", "score", "reason"),
    [
        # Nothing is known: score and spread must be good.
        (False, (), (GOOD,) * 4, 2.0, ""),
        (False, (), (GOOD,) * 4, 1.0, ""),
        (False, (), (GOOD, GOOD, GOOD, HALF), 2.0, ""),
        (False, (), (GOOD, GOOD, GOOD, HALF), 1.0, "partly hidden"),
        (False, (), (GOOD, GOOD, GOOD, BAD), 2.0, "partly hidden"),
        (False, (), (GOOD,) * 4, 0.5, "partly hidden"),
        (False, (), (BAD,) * 4, 0.5, "landmarks lost"),
        (False, (), (BAD,) * 4, -0.5, "no face"),
        # One witness is not enough: a blink, a smile, a nod.
        (True, (), (BAD, BAD, GOOD, GOOD), 2.0, ""),
        (True, (3, 4), (GOOD,) * 4, 2.0, ""),
        (True, (), (GOOD,) * 4, 1.4, ""),
        (True, (), (HALF, GOOD, GOOD, GOOD), 1.4, ""),
        # Two are.
        (True, (0,), (HALF, GOOD, GOOD, GOOD), 2.0, "partly hidden"),
        (True, (3,), (GOOD, GOOD, GOOD, HALF), 2.0, "partly hidden"),
        (True, (4,), (GOOD, GOOD, GOOD, HALF), 2.0, "partly hidden"),
        (True, (3,), (GOOD,) * 4, 1.2, "partly hidden"),
        (True, (3,), (HALF, GOOD, GOOD, GOOD), 1.6, "partly hidden"),
        # But they must speak of the same region, or the third agree.
        (True, (3,), (HALF, GOOD, GOOD, GOOD), 2.0, ""),
        (True, (3,), (BAD,) * 4, 1.0, "landmarks lost"),
        (True, (0, 1, 2, 3, 4), (BAD,) * 4, -0.5, "no face"),
        # Nothing looks as it did: somebody else, who is judged without a past.
        (True, (0, 1, 2, 3, 4), (GOOD,) * 4, 1.0, ""),
        (True, (0, 1, 2, 3, 4), (GOOD, GOOD, GOOD, HALF), 1.0, "partly hidden"),
    ],
)
def test_the_verdict_takes_two_witnesses(known, changed, spread, score, reason):
    now = BEFORE.copy()
    now[list(changed)] = np.roll(now[list(changed)], 7, axis=1)
    pixel, points = np.zeros((1, 1), np.uint8), np.zeros((68, 2), np.float32)
    seen = face_checks.Look(pixel, pixel, points, points, np.eye(2, 3), now)
    face = face_checks.Face(BEFORE, 2.0, GOOD) if known else None
    assert face_checks.verdict(seen, face_checks.Exam(score, np.array(spread)), face, 0.0) == reason


@pytest.mark.parametrize("tilt", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("wide", [23.0, 61.3, 190.0, 900.0])
def test_the_crop_shows_what_its_transform_says(wide, tilt):
    size = 1501
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    ramp = np.stack([(x + y) / (2 * size) * 250] * 3, axis=-1).astype(np.uint8)
    c, s = np.cos(tilt) * face_checks.EYES / wide, np.sin(tilt) * face_checks.EYES / wide
    place = np.array([[c, s, 0], [-s, c, 0]])
    place[:, 2] = (face_checks.SIDE - 1) / 2 - place[:, :2] @ (737.3, 761.8)
    crop, matrix = face_checks._cut(ramp, place)
    corners = np.array([(20, 20), (340, 20), (20, 340), (340, 340), (180, 180)])
    at = alignment.apply(alignment.inverse(matrix), corners.astype(float))
    expected = np.clip(at, 0, size - 1).sum(axis=1) / (2 * size) * 250
    np.testing.assert_allclose([crop[v, u] for u, v in corners], expected, atol=1.5)
    # It is the crop that was asked for, but for a tilt of a few degrees and a pixel of the frame.
    np.testing.assert_allclose(face_checks.centre(matrix), face_checks.centre(place), atol=1)
    assert face_checks.eyes(matrix) == pytest.approx(wide, rel=1 / wide)


@pytest.mark.parametrize("at", [(-40, 50), (300, -80), (50, 2000), (5000, 5000)])
def test_beyond_the_frame_its_edge_goes_on(at):
    frame = np.zeros((97, 131, 3), np.uint8)
    frame[..., :] = np.arange(131, dtype=np.uint8)[None, :, None]
    place = np.array([[4.0, 0, 0], [0, 4, 0]])
    place[:, 2] = (face_checks.SIDE - 1) / 2 - 4 * np.array(at)
    crop, matrix = face_checks._cut(frame, place)
    assert crop.shape == (face_checks.SIDE,) * 2
    u = np.arange(0, face_checks.SIDE, 30)
    x = np.clip(alignment.apply(alignment.inverse(matrix), np.stack([u, u], axis=1).astype(float))[:, 0], 0, 130)
    np.testing.assert_allclose(crop[u, u], x, atol=1.01)


def test_a_place_is_a_face_in_the_crop(person):
    points = person.landmarks[0].astype(np.float32)
    place = face_checks.place_of(points)
    assert face_checks.eyes(place) == pytest.approx(eyes(points), rel=0.15)
    left, top, right, bottom = face_checks.box(place)
    assert (points[17:] > (left, top)).all() and (points[17:] < (right, bottom)).all()
    seen = face_checks.look(person.frames[0], place, "", times=2)
    assert seen.crop.shape == (face_checks.SIDE,) * 2 and seen.small.shape == (face_checks.SMALL,) * 2
    assert eyes(seen.raw) == pytest.approx(face_checks.EYES, rel=0.15)


@pytest.mark.skipif(not MEDIA, reason="STAG_TEST_MEDIA names no folder with videos of faces")
def test_real_films():
    """Faces are followed, films that begin with no_face have none."""
    kinds = set()
    for name in sorted(os.listdir(MEDIA)):
        if not name.endswith(".mp4"):
            continue
        capture = cv2.VideoCapture(os.path.join(MEDIA, name))
        frames = [picture for _ in range(31) for there, picture in (capture.read(),) if there]
        capture.release()
        found = track(np.ascontiguousarray(np.stack(frames)[..., ::-1]))
        empty = name.startswith("no_face")
        kinds.add(empty)
        assert [bool(reason) for reason in found.refused] == [empty] * len(frames), name
        if not empty:
            assert (found.landmarks[:, 45, 0] > found.landmarks[:, 36, 0]).all()
            assert found.confidence.min() > 0.5
    assert kinds
