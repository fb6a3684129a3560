"""Rendered people in one frame: who is followed under which number when they move, cross, swap, leave and return."""

import numpy as np
import pytest

from stag_configs import base
from stag_datasets.synth_me import render, script
from stag_jax.config import FaceConfig, from_config_dict
from stag_jax.face import crowd, face_checks, tracking
from stag_jax.face.crowd import Crowd

CONFIG = from_config_dict(base.get_config()["face"], FaceConfig)
SIDE = 131
SIZE = (239, 467)
STEP = 1000 / 29  # ms
LEFT, MIDDLE, RIGHT = (23, 53), (163, 59), (311, 47)


@pytest.fixture(scope="module")
def people():
    """Films of three people, (f, SIDE, SIDE, 3) each."""
    recipe = script.Recipe(size=SIDE, frames=(19, 20), fps=47.0, seed=7)
    return [render.render_clip(script.subject_clips(recipe, s)[0]).frames for s in range(3)]


def compose(people, where, f, size=SIZE):
    """Frame f; `where` maps people to the upper left corners of their patches, the last in front."""
    frame = np.full((*size, 3), 113, np.uint8)
    for who, (x, y) in where.items():
        patch = people[who][f % len(people[who])]
        frame[y : y + SIDE, x : x + SIDE] = patch[: size[0] - y, : size[1] - x]
    return frame


def follow(people, scenes, most, state=None, start=0.0, step_ms=STEP):
    """Results of all frames, and the last state."""
    state, results = state or Crowd(), []
    for f, where in enumerate(scenes):
        state, result = crowd.step(state, compose(people, where, f), start + f * step_ms, CONFIG, most)
        results.append(result)
    return state, results


def whose(result, where):
    """{track: person} of the faces that are tracked in a frame; nobody is where no person's patch is."""
    found = {}
    for one in result:
        if not one.seen.refused:
            centre = one.seen.landmarks[17:].mean(axis=0)
            inside = [who for who, (x, y) in where.items() if (abs(centre - (x, y) - SIDE / 2) < SIDE / 3).all()]
            assert inside, f"track {one.track} is nowhere near a face"
            found[one.track] = inside[-1]  # the one in front
    return found


def assert_honest(results, scenes):
    """No number goes from one person to another, and no two are on one face."""
    owner = {}
    for result, where in zip(results, scenes, strict=True):
        now = whose(result, where)
        assert len(set(now.values())) == len(now)
        for track, who in now.items():
            assert owner.setdefault(track, who) == who
        for one in result:
            assert not (one.broken and one.seen.refused)
    return owner


def assert_marked(results):
    """Where a face is tracked after a frame in which it was not, that is a break."""
    before = {}
    for result in results:
        now = {one.track: not one.seen.refused for one in result}
        for one in result:
            if now[one.track] and not before.get(one.track):
                assert one.broken
        before = now


def test_one_alone_is_followed_as_in_a_clip(people):
    scenes = [{0: (LEFT[0] + 2 * f, LEFT[1])} for f in range(23)] + [{}] * 5 + [{0: RIGHT}] * 19
    _, results = follow(people, scenes, most=1)
    assert {len(result) for result in results} == {1}
    state = tracking.TrackingState()
    for f, (where, (one,)) in enumerate(zip(scenes, results, strict=True)):
        state, seen = tracking.step(state, compose(people, where, f), CONFIG)
        for ours, theirs in zip(one.seen, seen, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert {one.track for (one,) in results} == {0}
    again = next(f for f in range(28, 47) if not results[f][0].seen.refused)
    assert [f for f, (one,) in enumerate(results) if one.broken] == [0, again]


def test_another_person_in_the_same_place_has_another_number(people):
    scenes = [{0: LEFT}] * 7 + [{1: LEFT}] * 7 + [{0: LEFT}] * 7
    for most in (1, 2):
        _, results = follow(people, scenes, most)
        owner = assert_honest(results, scenes)
        assert sorted(owner.values()) == [0, 1]
        first = 7 if most == 1 else 7 + tracking.CALM  # of several, a stranger must stay
        assert [f for f, (one, *_) in enumerate(results) if one.broken] == [0, first, 14]
        assert [one.seen.refused for (one,) in results[7:first]] == [tracking.UNSTEADY] * (first - 7)
        assert results[20][0].track == results[0][0].track


@pytest.mark.parametrize("most", [1, 2])
def test_one_who_looks_much_like_another_is_a_break_at_least(people, most):
    """Half one person and half another: too alike to tell from the first with a new expression."""
    mixed = np.rint(0.5 * people[0] + 0.5 * people[1]).astype(np.uint8)
    views = [tracking.step(tracking.TrackingState(), film[0], CONFIG)[0].face.view for film in (people[0], mixed)]
    assert crowd.DOUBT < crowd._mean(*views) < crowd.ABRUPT
    _, results = follow([people[0], mixed], [{0: LEFT}] * 7 + [{1: LEFT}] * 7, most)
    assert [f for f, (one,) in enumerate(results) if one.broken] == [0, 7]
    assert not any(one.seen.refused for (one,) in results)


def test_three_have_a_number_each_and_keep_it(people):
    scenes = [{0: (LEFT[0] + f // 3, LEFT[1]), 1: MIDDLE, 2: (RIGHT[0], RIGHT[1] + f // 2)} for f in range(41)]
    state, results = follow(people, scenes, most=3)
    assert sorted(assert_honest(results, scenes).values()) == [0, 1, 2]
    assert all([one.track for one in result] == [0, 1, 2] for result in results)
    assert [[one.broken for one in result] for result in results] == [[True] * 3] + [[False] * 3] * 40
    assert state.begun == 3 and state.turn == 1


def test_no_more_than_most_are_followed(people):
    scenes = [{0: LEFT, 1: MIDDLE, 2: RIGHT}] * 37
    state, results = follow(people, scenes, most=2)
    assert all([one.track for one in result] == [0, 1] for result in results)
    assert state.begun == 2 and state.turn == 1  # with no room nobody is searched for


def test_one_who_comes_later_is_found_by_the_clock(people):
    for step_ms in (101.0, 307.0):
        count = int(crowd.NEW * 3 / step_ms)
        scenes = [{0: LEFT}] * 3 + [{0: LEFT, 1: RIGHT}] * count
        _, results = follow(people, scenes, most=2, step_ms=step_ms)
        first = next(f for f, result in enumerate(results) if len(result) == 2)
        assert first * step_ms <= 2 * crowd.NEW + step_ms
        assert results[first][1].broken and not results[first][0].broken
        assert_honest(results, scenes)


def test_two_that_swap_at_once_swap_their_numbers_too(people):
    scenes = [{0: LEFT, 1: RIGHT}] * 11 + [{0: RIGHT, 1: LEFT}] * 11
    _, results = follow(people, scenes, most=2)
    assert sorted(assert_honest(results, scenes).values()) == [0, 1]
    assert [one.broken for one in results[11]] == [True, True]
    assert all(not one.broken and not one.seen.refused for result in results[12:] for one in result)
    assert_marked(results)


@pytest.mark.parametrize("speed", [4, 11])
@pytest.mark.parametrize("front", [0, 1])
def test_two_that_cross_keep_their_numbers(people, speed, front):
    moving = [(min(LEFT[0] + speed * f, RIGHT[0]), max(RIGHT[0] - speed * f, LEFT[0])) for f in range(288 // speed)]
    scenes = []
    for x, x2 in moving + [moving[-1]] * 17:
        where = {0: (x, LEFT[1]), 1: (x2, RIGHT[1])}
        scenes.append({who: where[who] for who in (1 - front, front)})
    _, results = follow(people, scenes, most=2)
    assert sorted(assert_honest(results, scenes).values()) == [0, 1]
    assert len(whose(results[-1], scenes[-1])) == 2  # both are found again
    assert any(one.seen.refused for result in results for one in result) or speed == 11
    assert_marked(results)


def test_one_who_comes_back_soon_has_the_same_number(people):
    away = [{1: RIGHT}] * 29
    scenes = [{0: LEFT, 1: RIGHT}] * 5 + away + [{0: MIDDLE, 1: RIGHT}] * 17
    _, results = follow(people, scenes, most=2, step_ms=100.0)
    assert sorted(assert_honest(results, scenes).values()) == [0, 1]
    assert len(results[-1]) == 2
    back = next(f for f in range(34, 51) if len(whose(results[f], scenes[f])) == 2)
    assert (back - 34) * 100.0 <= crowd.SEEK
    assert_marked(results)
    other = next(track for track, who in whose(results[0], scenes[0]).items() if who == 1)
    assert all(not one.broken for result in results[1:] for one in result if one.track == other)


def test_one_who_leaves_for_good_is_forgotten(people):
    gone = int(crowd.KEEP / 200) + 2
    scenes = [{0: LEFT, 1: RIGHT}] * 3 + [{1: RIGHT}] * gone + [{0: LEFT, 1: RIGHT}] * 11
    state, results = follow(people, scenes[: 3 + gone], most=2, step_ms=200.0)
    left = next(track for track, who in whose(results[0], scenes[0]).items() if who == 0)
    assert len(state.tracks) == 1 and all(one.track != left for one in results[-1])
    assert results[3][left].seen.refused == face_checks.NOTHING
    _, later = follow(people, scenes[3 + gone :], most=2, state=state, start=200.0 * (3 + gone), step_ms=200.0)
    assert {one.track for one in later[-1]} == {1 - left, 2}  # no number is given twice


def test_a_change_of_size_breaks_all_and_keeps_the_numbers(people):
    scene = {0: LEFT, 1: RIGHT}
    state, results = follow(people, [scene] * 5, most=2)
    larger = compose(people, scene, 5, size=(277, 509))
    state, result = crowd.step(state, larger, 5 * STEP, CONFIG, 2)
    assert [one.broken for one in result] == [True, True]
    assert whose(result, scene) == whose(results[0], scene)
    state, (one,) = crowd.step(Crowd(), compose(people, {0: LEFT}, 0), 0.0, CONFIG, 1)
    _, (other,) = crowd.step(state, compose(people, {0: RIGHT}, 1, size=(277, 509)), STEP, CONFIG, 1)
    assert other.broken and other.track == one.track


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (31, 479), (61, 83)])
@pytest.mark.parametrize("most", [1, 3])
def test_grey_and_tiny_frames_show_nobody(people, size, most):
    state, _ = crowd.step(Crowd(), compose(people, {0: LEFT}, 0), 0.0, CONFIG, most)
    for before in (Crowd(), state):
        after, result = crowd.step(before, np.full((*size, 3), 99, np.uint8), STEP, CONFIG, most)
        assert [one.seen.refused for one in result] == [face_checks.NOTHING] * (most == 1)
        _, (again,) = crowd.step(after, compose(people, {0: LEFT}, 1), 2 * STEP + crowd.SEEK, CONFIG, most)
        assert again.broken and not again.seen.refused
        if before is state:
            assert again.track == 0


def test_what_is_remembered_is_bounded(people):
    """People change all the time; neither tracks nor views pile up."""
    rng = np.random.default_rng(3)
    state = Crowd()
    for f in range(40):
        noise = rng.normal(size=(5, 400))
        view = (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32)
        known = crowd.Tracked(state.begun, None, f * STEP, (view,) * crowd.VIEWS)
        state = state._replace(tracks=(*state.tracks, known), begun=state.begun + 1)
        state, _ = crowd.step(state, compose(people, {0: LEFT}, f), f * STEP, CONFIG, 2)
        assert len(state.tracks) <= crowd.GONE + 2
    state, _ = follow(people, [{0: LEFT}] * (3 * tracking.CHECK), most=1, step_ms=crowd.LEARN)
    assert len(state.tracks) == 1 and 1 < len(state.tracks[0].views) <= crowd.VIEWS


def test_two_tracks_on_one_face_are_parted(people):
    """However it comes about: the one that looks less like the face yields."""
    state, results = follow(people, [{0: LEFT, 1: RIGHT}] * 3, most=2)
    owner = {who: track for track, who in whose(results[-1], {0: LEFT, 1: RIGHT}).items()}
    by_number = {track.number: track for track in state.tracks}
    for who, place in ((0, LEFT), (1, RIGHT)):
        at = by_number[owner[who]].state
        both = tuple(t._replace(state=t.state._replace(place=at.place, points=at.points)) for t in state.tracks)
        _, result = crowd.step(state._replace(tracks=both), compose(people, {who: place}, 3), 3 * STEP, CONFIG, 2)
        assert [one.track for one in result if not one.seen.refused] == [owner[who]]
        assert {one.seen.refused for one in result if one.track != owner[who]} == {tracking.ANOTHER}


def test_a_step_is_a_function(people):
    state, _ = follow(people, [{0: LEFT, 1: RIGHT}] * 3, most=2)
    frame = compose(people, {0: RIGHT, 1: LEFT}, 3)
    copies = [np.copy(track.state.place) for track in state.tracks]
    once, twice = (crowd.step(state, frame, 3 * STEP, CONFIG, 2) for _ in range(2))
    for one, two in zip(once[1], twice[1], strict=True):
        assert (one.track, one.broken) == (two.track, two.broken)
        np.testing.assert_array_equal(one.seen.landmarks, two.seen.landmarks)
    for track, place in zip(state.tracks, copies, strict=True):
        np.testing.assert_array_equal(track.state.place, place)
