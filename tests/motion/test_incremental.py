"""Motion measured once a frame: windows of it are what a clip of the same frames gives."""

import numpy as np
import pytest

from stag_configs import base
from stag_datasets.synth_me import render, script
from stag_jax.config import from_config_dict, replace
from stag_jax.face import crowd
from stag_jax.motion import extract, incremental, nodes, observe, optical_flow
from stag_jax.types import Clip, ClipIdentity

STEP_MS = 10.0


@pytest.fixture(scope="module")
def config():
    """Both looks by the fast backend, as in a stream."""
    made = from_config_dict(base.get_config())
    return replace(made, {"motion.first_look": "dis", "motion.flow": "dis", "motion.frames": 5})


@pytest.fixture(scope="module")
def rendered():
    """One clip without a blink before its middle."""
    recipe = script.Recipe(subjects=1, clips=3, frames=(47, 47), seed=77)
    return render.render_clip(script.subject_clips(recipe, 0)[1])


def watch(frames, config, *, keep_ms=5000.0, times=None, refuse=(), broken=()):
    """The state after each frame."""
    people, state, states = crowd.Crowd(), incremental.MotionState(), []
    for f, frame in enumerate(frames):
        time = f * STEP_MS if times is None else times[f]
        people, (one,) = crowd.step(people, frame, time, config.face, 1)
        seen = one.seen._replace(refused="hidden") if f in refuse else one.seen
        state, _ = incremental.step(state, frame, seen, time, config, broken=one.broken or f in broken, keep_ms=keep_ms)
        states.append(state)
    return states


@pytest.fixture(scope="module")
def watched(rendered, config):
    """All states of the clip."""
    return watch(rendered.frames, config)


def test_magnitude_is_that_of_the_clip(rendered, watched, config):
    found = incremental.window(watched[-1], 46 * STEP_MS, config)
    clip = Clip(ClipIdentity("a/b/c", "b", "a", ""), None, 100.0, rendered.frames)
    seen = observe.observe(clip, config)
    expected = seen.magnitude[1:]
    assert found.magnitude.shape == expected.shape
    assert np.corrcoef(found.magnitude, expected)[0, 1] > 0.97
    assert abs(found.magnitude.max() / expected.max() - 1) < 0.25
    truth = np.linalg.norm(rendered.expression, axis=-1).mean(axis=1)[1:]
    assert np.corrcoef(found.magnitude, truth)[0, 1] > 0.8


def test_features_are_laid_out_as_those_of_a_clip(rendered, watched, config):
    found = incremental.window(watched[-1], 46 * STEP_MS, config).clips
    clip = Clip(ClipIdentity("a/b/c", "b", "a", ""), None, 100.0, rendered.frames)
    first = found.times_ms[0] / STEP_MS
    seen = observe.observe(clip, config, keep=np.rint(first).astype(int))
    expected = nodes.node_features(
        seen.flow, optical_flow.strain(seen.flow), seen.centres, config.motion.patch, config.motion.spacing
    )
    assert found.nodes.shape == (1, *expected.shape)
    each = [np.corrcoef(found.nodes[0][..., d].ravel(), expected[..., d].ravel())[0, 1] for d in range(70)]
    assert np.median(each) > 0.85


def test_a_few_regions_are_those_of_the_whole_face(rendered, watched, config):
    """In a stream and in a clip alike: the same frames, the same features, in the order of the graph."""
    names = ("upper_lid_l", "upper_lid_r", "chin", "inner_brow_l", "inner_brow_r", "glabella")
    few = replace(config, {"graph.nodes": names, "graph.units": (1, 4, 5, 17)})
    graph = nodes.graph(few.graph, few.motion)
    at = [nodes.graph(config.graph, config.motion).node_names.index(name) for name in graph.node_names]
    assert set(graph.node_names) == set(names)
    whole, part = (incremental.window(watched[-1], 46 * STEP_MS, each) for each in (config, few))
    np.testing.assert_array_equal(part.clips.nodes, whole.clips.nodes[:, :, at])
    np.testing.assert_array_equal(part.magnitude, whole.magnitude)
    clip = Clip(ClipIdentity("a/b/c", "b", "a", ""), None, 100.0, rendered.frames)
    seen = observe.observe(clip, few)
    whole, part = (extract.from_frames(clip, seen, each) for each in (config, few))
    np.testing.assert_allclose(part.nodes, whole.nodes[:, at], atol=1e-6)
    np.testing.assert_array_equal(part.magnitude, whole.magnitude)


def test_the_gradient_of_a_linear_flow_is_its_matrix(config):
    y, x = np.mgrid[:128, :128].astype(np.float32)
    flow = np.stack([0.03 * x - 0.05 * y, 0.01 * x + 0.02 * y], axis=-1)
    centres = np.array([(40.3, 50.9), (77.0, 61.5)])
    found = incremental._sampled(flow, centres, config)
    assert found.shape == (2, 4, 4, 5)
    np.testing.assert_allclose(found[..., incremental.XX], 0.03, atol=1e-4)
    np.testing.assert_allclose(found[..., incremental.YY], 0.02, atol=1e-4)
    np.testing.assert_allclose(found[..., incremental.XY], (-0.05 + 0.01) / 2, atol=1e-4)


def test_a_change_of_anchor_does_not_show(rendered, watched, config, monkeypatch):
    monkeypatch.setattr(incremental, "ANCHOR", 230.0)  # one change, as a window of half a second has at most
    once = watch(rendered.frames, config)[-1]
    assert once.anchor.time_ms > 0
    one, other = (incremental.window(state, 46 * STEP_MS, config).magnitude for state in (watched[-1], once))
    assert np.corrcoef(one, other)[0, 1] > 0.95


def test_memory_is_bounded(rendered, config):
    states = watch(rendered.frames, config, keep_ms=110.0)
    assert max(len(state.moments) for state in states) == 12


@pytest.mark.parametrize("how", [{"refuse": (20,)}, {"broken": (20,)}, "gap"])
def test_no_window_spans_what_was_not_seen(rendered, config, how):
    frames, options = rendered.frames[:31], how
    if how == "gap":
        options = {"times": [f * STEP_MS + (incremental.GAP + 1) * (f >= 20) for f in range(31)]}
    states = watch(frames, config, **options)
    assert incremental.window(states[19], 100.0, config) is not None
    assert all(incremental.window(state, 100.0, config) is None for state in states[20:29])
    assert incremental.window(states[-1], 90.0, config) is not None


def test_a_still_face_does_not_move(rendered, config):
    states = watch(np.repeat(rendered.frames[:1], 13, axis=0), config)
    found = incremental.window(states[-1], 120.0, config)
    assert found.magnitude.max() < 1e-3 and found.travel < 1e-3
    assert np.isfinite(found.clips.nodes).all()
