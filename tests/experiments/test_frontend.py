"""The measurements of the benchmark, where they could deceive."""

import dataclasses

import numpy as np
import pytest

from stag_configs import base
from stag_datasets.synth_me import render, script
from stag_experiments.benchmarks import frontend
from stag_jax.config import from_config_dict
from stag_jax.motion import observe

CONFIG = from_config_dict(base.get_config())


@pytest.fixture(scope="module")
def rendered():
    spec = script.subject_clips(script.Recipe(subjects=1, clips=3, frames=(20, 24), seed=5), 0)[0]
    return render.render_clip(spec._replace(peak=2.9))


@pytest.fixture(scope="module")
def seen(rendered):
    config = dataclasses.replace(CONFIG, motion=dataclasses.replace(CONFIG.motion, flow="dis"))
    return observe.observe(frontend._clip(rendered), config)


def test_the_head_movement_added_is_as_large_as_it_says(rendered):
    path = frontend._head_path(rendered)
    np.testing.assert_allclose(path[0], np.eye(2, 3), atol=1e-12)
    whole = path[rendered.apex]
    np.testing.assert_allclose(path[-1], whole)
    assert np.isclose(np.hypot(*whole[:, 0]), 1.02)
    assert np.isclose(np.rad2deg(np.arctan2(whole[1, 0], whole[0, 0])), 2.0)
    nose = rendered.landmarks[0, 27:31].mean(axis=0)
    assert np.isclose(np.linalg.norm(whole[:, :2] @ nose + whole[:, 2] - nose), 3.0)


def test_truth_is_brought_to_the_canonical_face(rendered, seen):
    f = rendered.apex
    truth = frontend._to_canonical(rendered.true_flow(f), seen)
    there = [rendered.landmarks[i] @ seen.transform[:, :2].T + seen.transform[:, 2] for i in (0, f)]
    for p in (21, 30, 48, 54, 57):  # landmarks move with the flow
        x, y = np.rint(there[0][p]).astype(int)
        np.testing.assert_allclose(truth[y, x], there[1][p] - there[0][p], atol=0.12)


def test_pairs_are_those_that_move_by_one_to_three_pixels(rendered, seen):
    pairs = frontend._flow_pairs(rendered, seen, CONFIG)
    assert pairs
    for pair in pairs:
        most = np.linalg.norm(pair["truth"], axis=-1)[pair["inside"]].max()
        assert 1 <= most <= 3
        assert 0.2 < pair["inside"].mean() < 0.8
    nothing = np.zeros((len(pairs), 128, 128, 2), np.float32)
    size = np.mean([np.linalg.norm(pair["truth"], axis=-1)[pair["inside"]].mean() for pair in pairs])
    assert frontend._flow_figure(nothing, pairs, 0.002).startswith(f"{size:.3f} px")
    exact = np.stack([pair["truth"] for pair in pairs])
    assert frontend._flow_figure(exact, pairs, 0.002).startswith("0.000 px")


def test_errors_are_none_where_the_truth_is_found(rendered, seen):
    true = seen._replace(track=seen.track._replace(landmarks=rendered.landmarks.astype(np.float32)))
    found = frontend._against_truth(rendered, true)
    assert found["error"].max() < 1e-4 and found["refused"] == 0
    five_off = rendered.landmarks.astype(np.float32) + np.float32((3, 4))
    shifted = seen._replace(track=seen.track._replace(landmarks=five_off))
    pupils = rendered.landmarks[0, 42:48].mean(axis=0) - rendered.landmarks[0, 36:42].mean(axis=0)
    np.testing.assert_allclose(
        np.median(frontend._against_truth(rendered, shifted)["error"]), 5 / np.linalg.norm(pupils), rtol=0.02
    )
