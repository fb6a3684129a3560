"""The order experiment: the classes are one another played backwards, and nothing summed over space or time tells them.

Motion is the true one of the script, without pictures: of the landmarks, and of the regions that a network looks at.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest

from stag_configs import synth_me_order
from stag_datasets.synth_me import encode, labels, muscles, order, script, synth_me_dataset_builder, timing
from stag_jax.face import alignment, regions, template
from stag_jax.motion import nodes, optical_flow

RECIPE = synth_me_dataset_builder.Builder.builder_configs["order"].recipe
SIDE = 64  # pixels of the canonical face, half of what is the default
PATCH, SPACING = 4, 1.5
SUBJECTS = 24  # the twelve of the corpus and twelve more


class Seen(NamedTuple):
    """What a clip shows."""

    spec: script.ClipSpec
    points: np.ndarray  # displacement of the landmarks, [f, 68, 2], in units of its largest
    early: np.ndarray  # pooled statistics of each region, [n, 6], when the first part is at its peak
    late: np.ndarray  # ... and when the second one is


@pytest.fixture(scope="module")
def specs() -> list[script.ClipSpec]:
    return [spec for subject in range(RECIPE.subjects) for spec in order.subject_clips(RECIPE, subject)]


@pytest.fixture(scope="module")
def seen() -> list[Seen]:
    return [clip for subject in range(SUBJECTS) for clip in _watch(order.subject_clips(RECIPE, subject))]


def middle(spec: script.ClipSpec) -> int:
    return (spec.onset + spec.offset) // 2


def landmark_motion(specs: list[script.ClipSpec]) -> list[np.ndarray]:
    """Displacement of the landmarks in each clip of one person, [f, 68, 2], in face units at the script's strengths."""
    who = specs[0].who
    x, y = who.points[:, :1], who.points[:, 1:]
    units = {(pulse.unit, pulse.side) for spec in specs for pulse in spec.pulses}
    fields = {key: muscles.unit_field(who, *key, x, y)[:, 0] for key in units}
    return [
        sum(np.multiply.outer(timing.envelope(p, spec.frames), fields[p.unit, p.side]) for p in spec.pulses)
        for spec in specs
    ]


def _watch(specs: list[script.ClipSpec]) -> list[Seen]:
    who = specs[0].who
    to_face = alignment.similarity(who.points[list(template.STABLE)], alignment.canonical_points(SIDE))
    grid = np.stack(np.meshgrid(np.arange(SIDE, dtype=float), np.arange(SIDE, dtype=float)), axis=-1)
    places = alignment.apply(alignment.inverse(to_face), grid)
    centres = regions.roi_centres(alignment.apply(to_face, who.points))
    units = {(pulse.unit, pulse.side) for spec in specs for pulse in spec.pulses}
    fields = {key: muscles.unit_field(who, *key, places[..., 0], places[..., 1]) @ to_face[:, :2].T for key in units}
    clips = []
    for spec, points in zip(specs, landmark_motion(specs), strict=True):
        largest = np.linalg.norm(points, axis=-1).max()
        both = []
        for apex in sorted({round(pulse.apex) for pulse in spec.pulses}):
            weights = [timing.envelope(pulse, spec.frames)[apex] for pulse in spec.pulses]
            moved = sum(w * fields[p.unit, p.side] for w, p in zip(weights, spec.pulses, strict=True))
            moved = (moved * spec.peak / largest / 100)[None].astype(np.float32)
            both.append(
                nodes.node_features(moved, optical_flow.strain(moved), centres, PATCH, SPACING)[0, :, -nodes.POOLED :]
            )
        clips.append(Seen(spec, points / largest, *both))
    return clips


def held_out_accuracy(features: np.ndarray, is_lips_first: np.ndarray, subject: np.ndarray) -> float:
    """Of a ridge classifier that never saw the subject it is asked about."""
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    x = np.column_stack([x, np.ones(len(x))])
    target = np.where(is_lips_first, 1.0, -1.0)
    right = []
    for name in np.unique(subject):
        test = subject == name
        inner = x[~test].T @ x[~test] + np.eye(x.shape[1])
        weights = np.linalg.solve(inner, x[~test].T @ target[~test])
        right.extend((x[test] @ weights > 0) == is_lips_first[test])
    return float(np.mean(right))


def test_every_subject_plays_both_classes_equally_often(specs):
    assert len(specs) == RECIPE.subjects * RECIPE.clips == 192
    count = Counter((spec.subject, spec.emotion) for spec in specs)
    assert set(count.values()) == {RECIPE.clips // 2} and len(count) == 2 * RECIPE.subjects
    assert tuple(synth_me_order.get_config().data.classes) == order.CLASSES


def test_the_class_says_what_moves_first(specs):
    units = [{unit for part in parts for unit, _ in part} for parts in (order.BROWS, order.LIPS)]
    for spec in specs:
        (brow_apex,), (lip_apex,) = ({p.apex for p in spec.pulses if p.unit in own} for own in units)
        assert (brow_apex < lip_apex) == (spec.emotion == "brows_first")
        assert 75 <= abs(brow_apex - lip_apex) * 1000 / spec.fps <= 120
        assert (brow_apex + lip_apex) / 2 == pytest.approx(middle(spec))
        assert {p.apex for p in spec.pulses} == {brow_apex, lip_apex}
        assert {p.unit for p in spec.pulses} == {action.unit for action in spec.actions}


def test_phases_hold_the_whole_movement(specs):
    for spec in specs:
        total = sum(timing.envelope(pulse, spec.frames) for pulse in spec.pulses)
        assert 0 < spec.onset < spec.offset < spec.frames - 1
        still = np.r_[0 : spec.onset + 1, spec.offset : spec.frames]
        assert not total[still].any() and (total[spec.onset + 1 : spec.offset] > 0).all()
    # When it happens says nothing: the middle of the movement lies anywhere.
    assert np.std([middle(spec) for spec in specs]) > 3


def test_the_other_class_is_the_same_clip_played_backwards(specs):
    for spec in specs[::5]:
        twin = order.backwards(spec)
        assert {spec.emotion, twin.emotion} == set(order.CLASSES)
        apart = {"pulses", "emotion", "who"}
        assert all(getattr(spec, name) == getattr(twin, name) for name in spec._fields if name not in apart)
        motion, other = landmark_motion([spec, twin])
        scale = np.abs(motion).max()
        t0, reach = middle(spec), (spec.offset - spec.onset) // 2
        around = slice(t0 - reach, t0 + reach + 1)
        np.testing.assert_allclose(other[around], motion[around][::-1], atol=1e-9 * scale)
        # The frame in the middle is the same, each point moves as much in all, and a frame before it is another.
        np.testing.assert_allclose(other[t0], motion[t0], atol=1e-9 * scale)
        np.testing.assert_allclose(other.sum(axis=0), motion.sum(axis=0), atol=1e-6 * scale)
        assert np.abs(other[t0 - 5] - motion[t0 - 5]).max() > 0.1 * scale


def test_the_largest_movement_is_in_the_middle_and_mirrored_in_time():
    away = []
    for subject in range(RECIPE.subjects):
        specs = order.subject_clips(RECIPE, subject)
        pairs = landmark_motion([*specs, *map(order.backwards, specs)])
        apexes = [np.linalg.norm(motion, axis=-1).mean(axis=1).argmax() for motion in pairs]
        for spec, apex, turned in zip(specs, apexes[: len(specs)], apexes[len(specs) :], strict=True):
            assert apex + turned == 2 * middle(spec)
            away.append(abs(apex - middle(spec)))
    assert max(away) <= 5 and np.median(away) <= 2


def test_what_moves_is_no_matter_of_class():
    recipe = script.Recipe(subjects=60, clips=16, task="order")
    count = {name: Counter() for name in order.CLASSES}
    for subject in range(recipe.subjects):
        for spec in order.subject_clips(recipe, subject):
            count[spec.emotion].update(action.unit for action in spec.actions)
    first, second = (count[name] for name in order.CLASSES)
    assert set(first) == set(second) == {1, 2, 4, 6, 7, 9, 14, 15, 17}
    total = recipe.subjects * recipe.clips // 2
    for unit in first:
        share = (first[unit] + second[unit]) / (2 * total)
        assert 0.4 < share < 0.95
        assert abs(first[unit] - second[unit]) / total < 3 * np.sqrt(2 * share * (1 - share) / total)


def test_motion_summed_over_space_rises_and_falls_alike(seen):
    magnitude = nodes.MEAN_MAGNITUDE
    early, late = (np.array([getattr(c, when)[:, magnitude].sum() for c in seen]) for when in ("early", "late"))
    lean = (early - late) / (early + late)
    lips_first = np.array([clip.spec.emotion == "lips_first" for clip in seen])
    for ours in (lips_first, ~lips_first):
        assert abs(lean[ours].mean()) < 3 * lean[ours].std() / np.sqrt(ours.sum())
    assert lean.std() > 0.03  # and yet it is not zero: single clips lean either way
    # Region by region the same numbers tell: the brows move more at one of the two moments, the lips at the other.
    brows = np.array(["brow" in name for name in regions.table()])
    first = np.array([(c.early - c.late)[brows, magnitude].sum() > 0 for c in seen])
    np.testing.assert_array_equal(first, ~lips_first)


def test_statistics_summed_over_space_tell_a_linear_classifier_nothing(seen):
    lips_first = np.array([clip.spec.emotion == "lips_first" for clip in seen])
    subject = np.array([clip.spec.subject for clip in seen])
    pooled = np.stack([np.concatenate([c.early.mean(axis=0), c.late.mean(axis=0)]) for c in seen])
    by_region = np.stack([(c.early - c.late)[:, nodes.MEAN_MAGNITUDE] for c in seen])
    assert held_out_accuracy(pooled, lips_first, subject) == pytest.approx(0.5, abs=0.1)
    assert held_out_accuracy(by_region, lips_first, subject) == 1.0


def test_records_say_what_was_played():
    recipe = script.Recipe(subjects=2, clips=2, frames=(20, 24), size=96, task="order")
    specs = order.subject_clips(recipe, 1)
    for record, spec in zip(encode.encode_subject(recipe, 1), specs, strict=True):
        assert record.emotion == spec.emotion in order.CLASSES
        assert record.action_units == labels.notation(spec.actions)
        assert (record.onset, record.offset) == (spec.onset, spec.offset)
        assert abs(record.apex - middle(spec)) <= 5
        assert len(record.frames) == spec.frames >= spec.offset - spec.onset + 8  # longer than asked, to hold it all
    assert {spec.emotion for spec in specs} == set(order.CLASSES)


def test_the_default_corpus_is_what_it_was():
    recipe = synth_me_dataset_builder.Builder.builder_configs["default"].recipe
    assert recipe == script.Recipe() and recipe.task == "emotion"
    specs = [spec for subject in range(recipe.subjects) for spec in encode.TASKS[recipe.task](recipe, subject)]
    assert len(specs) == 246
    assert sum(spec.frames for spec in specs) == 10970
    assert sum(spec.peak for spec in specs) == pytest.approx(382.8601829532, rel=1e-9)
    strengths = [pulse.strength * pulse.apex for spec in specs for pulse in (*spec.pulses, *spec.blinks)]
    assert sum(strengths) == pytest.approx(19431.899462097, rel=1e-9)
