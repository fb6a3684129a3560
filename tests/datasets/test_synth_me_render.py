"""Rendered clips against the truth that the renderer tells about them."""

import cv2
import numpy as np
import pytest

from stag_datasets.synth_me import labels, muscles, render, script, timing

RECIPE = script.Recipe(subjects=3, clips=5, frames=(20, 32), seed=101)


@pytest.fixture(scope="module")
def stage() -> render.Stage:
    return render.set_stage(script.identity(RECIPE, 0))


def acted(stage: render.Stage, text: str, *, peak: float = 2.0, blink: bool = False, frames: int = 19):
    """A clip of the actions in `text`, all halves alike, without noise."""
    actions = tuple(labels.parse(text))
    pulses = tuple(
        timing.Pulse(action.unit, side, 1.0, 3, 9, 16)
        for action in actions
        for side in "LR"
        if action.side in ("", side)
    )
    blinks = tuple(timing.Pulse(muscles.BLINK, side, 1.0, 4, 9, 15) for side in "LR") if blink else ()
    spec = script.subject_clips(RECIPE, 0)[0]._replace(
        actions=actions, pulses=pulses, blinks=blinks, peak=peak, frames=frames, onset=3, offset=16
    )
    return render.render_clip(spec, stage, nuisance=False)


@pytest.mark.parametrize("text", ["4", "6+12", "1+2+5", "R14"])
def test_peak_movement_is_what_the_script_says(stage, text):
    clip = acted(stage, text, peak=1.7)
    largest = np.linalg.norm(clip.expression, axis=-1).max() * 128 / clip.face_width
    assert largest == pytest.approx(1.7, rel=1e-4)


def test_warping_by_the_true_flow_gives_the_frame(stage):
    clip = acted(stage, "1+2+12", peak=2.9)
    f = clip.apex
    y, x = np.mgrid[:256, :256].astype(np.float32)
    flow = clip.true_flow(f)
    back = cv2.remap(clip.frames[f], x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC)
    inside = slice(20, -20)
    residue = np.abs(back.astype(float) - clip.frames[0])[inside, inside]
    untouched = np.abs(clip.frames[f].astype(float) - clip.frames[0])[inside, inside]
    assert residue.mean() < 0.6
    assert residue.mean() < 0.2 * untouched.mean()
    # flow of no size would not do, nor would the head's part of it alone
    head = clip.true_flow(f) - clip.muscle_flow(f)
    rigid = cv2.remap(clip.frames[f], x + head[..., 0], y + head[..., 1], cv2.INTER_CUBIC)
    assert np.abs(rigid.astype(float) - clip.frames[0])[inside, inside].mean() > 1.5 * residue.mean()


@pytest.mark.parametrize("blink", [False, True])
def test_landmarks_move_with_the_true_flow(stage, blink):
    clip = acted(stage, "4+7+15", peak=2.5, blink=blink)
    for f in (5, 9, 13):
        flow = clip.true_flow(f)
        x, y = clip.landmarks[0].astype(np.float32).T
        at = cv2.remap(flow, x[None], y[None], cv2.INTER_LINEAR)[0]
        assert np.abs(clip.landmarks[0] + at - clip.landmarks[f]).max() < (0.6 if blink else 0.1)


def test_head_motion_is_the_motion_of_points_without_muscles(stage):
    clip = acted(stage, "12")
    for f in (0, 7, 18):
        matrix = clip.head_motion(f)
        moved = clip.landmarks[0, 27] @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(moved, clip.landmarks[f, 27], atol=0.02)
    np.testing.assert_allclose(clip.head_motion(0), np.eye(2, 3), atol=1e-9)
    turn = np.arctan2(clip.pose[:, 1, 0], clip.pose[:, 0, 0])
    assert np.abs(turn).max() <= np.radians(1.0)
    assert np.abs(np.hypot(clip.pose[:, 0, 0], clip.pose[:, 1, 0]) - 1).max() <= 0.011


def test_sides_are_the_subjects(stage):
    for text, moves, rests in (("L12", 54, 48), ("R12", 48, 54), ("L2", 25, 18), ("R5", 37, 44)):
        clip = acted(stage, text)
        motion = np.linalg.norm(clip.expression[clip.apex], axis=-1)
        assert motion[moves] > 0.9 * motion.max()
        assert motion[rests] < 0.01 * motion.max()
        flow = np.linalg.norm(clip.muscle_flow(clip.apex), axis=-1)
        middle = int(clip.landmarks[0, 27, 0])
        left, right = flow[:, middle + 8 :].sum(), flow[:, : middle - 8].sum()
        assert (left > 20 * right) if text[0] == "L" else (right > 20 * left)


def test_muscles_pull_where_facs_says(stage):
    def shift(text: str, point: int) -> np.ndarray:
        clip = acted(stage, text)
        return clip.expression[clip.apex, point] / np.linalg.norm(clip.expression[clip.apex], axis=-1).max()

    up, down, outwards = -1, 1, 1  # of image y, y and (at image right) x
    assert shift("1", 22)[1] * up > 0.8 and abs(shift("1", 26)[1]) < 0.1
    assert shift("2", 25)[1] * up > 0.6 and abs(shift("2", 22)[1]) < 0.3
    assert shift("4", 23)[1] * down > 0.5 and shift("4", 22)[0] * outwards < -0.3
    assert shift("5", 43)[1] * up > 0.8
    assert shift("7", 47)[1] * up > 0.5
    assert shift("9", 35)[1] * up > 0.6
    assert shift("10", 52)[1] * up > 0.6
    assert shift("12", 54)[1] * up > 0.4 and shift("12", 54)[0] * outwards > 0.4
    assert shift("14", 54)[0] * outwards > 0.8
    assert shift("15", 54)[1] * down > 0.8
    assert shift("17", 57)[1] * up > 0.6


def test_no_muscle_moves_the_bridge_of_the_nose(stage):
    for unit in muscles.UNITS:
        clip = acted(stage, str(unit))
        motion = np.linalg.norm(clip.expression, axis=-1)
        assert motion[:, [27, 28, 39, 42]].max() < 0.05 * motion.max(), unit


def test_a_blink_closes_the_lids_and_is_no_expression(stage):
    open_eyed, blinking = acted(stage, "12"), acted(stage, "12", blink=True)
    np.testing.assert_array_equal(open_eyed.expression, blinking.expression)
    assert open_eyed.apex == blinking.apex

    def opening(clip: render.Rendered) -> np.ndarray:
        return clip.landmarks[:, 41, 1] - clip.landmarks[:, 37, 1]

    assert opening(blinking)[9] < 0.3 * opening(open_eyed)[9]
    assert blinking.blink.max() > 0.95 and not open_eyed.blink.any()


def test_lids_never_cross(stage):
    clip = acted(stage, "7", peak=2.9, blink=True)
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        assert (clip.landmarks[:, lower, 1] > clip.landmarks[:, upper, 1]).all()


def test_inverse_field_leads_back():
    y, x = np.mgrid[:60, :60].astype(np.float32)
    hill = np.exp(-((x - 30) ** 2 + (y - 30) ** 2) / 120)
    field = np.dstack([3.0 * hill, -4.0 * hill])
    back = muscles.inverse_field(field)
    at = np.dstack([x, y])[20:40, 20:40] * muscles.GRID
    start = at + muscles.sample_field(back, at)
    np.testing.assert_allclose(start + muscles.sample_field(field, start), at, atol=0.1)


def test_clips_of_a_corpus_keep_what_was_promised():
    for subject in range(RECIPE.subjects):
        stage = None
        for spec in script.subject_clips(RECIPE, subject)[:2]:
            stage = stage or render.set_stage(spec.who)
            clip = render.render_clip(spec, stage)
            motion = np.linalg.norm(clip.expression, axis=-1)
            assert clip.frames.shape == (spec.frames, 256, 256, 3)
            assert 0 < clip.onset < clip.apex < clip.offset < spec.frames
            assert clip.apex == motion.mean(axis=1).argmax()
            assert 0.1 <= (clip.offset - clip.onset) / spec.fps <= 0.5
            assert 0.5 <= motion.max() * 128 / clip.face_width <= 3.0
            still = np.r_[0 : clip.onset + 1, clip.offset : spec.frames]
            assert not motion[still].any() and motion[clip.onset + 1 : clip.offset].any(axis=1).all()
            assert {int(name[1:]) for name in clip.units} == {action.unit for action in spec.actions}
            assert not clip.muscle_flow(0).any()


def test_the_same_script_renders_the_same(stage):
    spec = script.subject_clips(RECIPE, 0)[1]
    first, again = render.render_clip(spec, stage), render.render_clip(spec)
    np.testing.assert_array_equal(first.frames, again.frames)
    quiet = render.render_clip(spec, stage, nuisance=False)
    grain = (first.frames[1:].astype(float) - first.frames[:-1]) - (quiet.frames[1:].astype(float) - quiet.frames[:-1])
    assert 1.0 < grain.std() < 8.0  # noise of two frames, and flicker


def test_an_added_head_movement_is_part_of_the_truth(stage):
    spec = acted(stage, "1+12", peak=2.0).spec
    turn = np.array([[0.0, -0.03, 4.0], [0.03, 0.01, -2.0]])
    path = np.stack([np.eye(2, 3) + turn * f / (spec.frames - 1) for f in range(spec.frames)])
    plain, moved = (render.render_clip(spec, stage, nuisance=False, head=head) for head in (None, path))
    carried = np.einsum("fij,fpj->fpi", path[..., :2], plain.landmarks) + path[:, None, :, 2]
    np.testing.assert_allclose(moved.landmarks, carried, atol=1e-3)
    np.testing.assert_array_equal(moved.frames[0], plain.frames[0])
    f = spec.frames - 1
    whole = np.einsum("ij,yxj->yxi", path[f, :, :2], plain.true_flow(f) + _places(256)) + path[f, :, 2] - _places(256)
    np.testing.assert_allclose(moved.true_flow(f), whole, atol=0.05)
    np.testing.assert_allclose(moved.muscle_flow(f), plain.muscle_flow(f), atol=1e-4)


def _places(size):
    return np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1)
