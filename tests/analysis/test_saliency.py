"""Integrated gradients against what they must sum to, rollout against products written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stag_jax.analysis import saliency
from stag_jax.model.network import Statistics, Weights, forward, make_network
from stag_jax.training import fold

FRAMES, WINDOW = 7, 2


@pytest.fixture(scope="module")
def study(face_graph, make_config, make_batch):
    """A network with random parameters, its task and raw clips of which one has hidden frames."""
    config = make_config(model={"window": WINDOW, "dropout": 0.0, "edge_dropout": 0.0})
    task = fold.make_task(config, face_graph, 5)
    mask = np.ones((5, FRAMES), bool)
    mask[2, 4:] = False
    clips = make_batch(t=FRAMES, frame_mask=mask)
    member = fold.Member(jnp.ones(5), jnp.asarray(0), jnp.asarray(0), {})
    with jax.numpy_dtype_promotion("standard"):
        state = fold.init(task, clips, member)
    params = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), state.params)
    return task.network, clips, Weights(params, state.statistics)


@pytest.fixture(scope="module")
def said(study):
    network, clips, weights = study
    with jax.numpy_rank_promotion("allow"):
        return forward(network, weights, clips)


def test_log_odds():
    logits = jnp.array([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]])
    target = jnp.array([1, 2])
    probability = np.asarray(jax.nn.softmax(logits))[np.arange(2), np.asarray(target)]
    np.testing.assert_allclose(saliency.log_odds(logits, target), np.log(probability / (1 - probability)), rtol=1e-5)


def test_shares_sum_to_what_the_clip_adds_to_a_still_face(study, said):
    network, clips, weights = study
    logits, _ = said
    target = jnp.argmax(logits, axis=-1)
    shares = jax.jit(lambda clips, target: saliency.integrated_gradients(network, weights, clips, target, 60))(
        clips, target
    )
    still, _ = forward(network, weights, clips._replace(nodes=jnp.zeros_like(clips.nodes)))
    gained = saliency.log_odds(logits, target) - saliency.log_odds(still, target)
    assert float(jnp.abs(gained).max()) > 0.05
    np.testing.assert_allclose(shares.sum(axis=(1, 2)), gained, atol=0.02 * float(jnp.abs(gained).max()))


def test_hidden_frames_have_no_share(study, said):
    network, clips, weights = study
    target = jnp.argmax(said[0], axis=-1)
    shares = saliency.integrated_gradients(network, weights, clips, target, 2)
    assert float(jnp.abs(shares[2, 4:]).max()) == 0
    assert float(jnp.abs(shares[2, :4]).min()) > 0


def test_a_linear_answer_is_shared_out_exactly(face_graph, make_config, make_batch, monkeypatch):
    """Where the log odds are w . x, the share of a place is w . x there, whatever the number of steps."""
    weight = jnp.asarray(np.random.default_rng(1).normal(size=(FRAMES, 5, 11)), jnp.float32)

    def linear(network, weights, clips):
        return jnp.einsum("btnd,tnd->b", clips.nodes, weight)[:, None] * jnp.array([[1.0, 0.0]]), {}

    monkeypatch.setattr(saliency, "forward", linear)
    clips, target = make_batch(t=FRAMES), jnp.zeros(5, jnp.int32)
    weights = Weights({}, Statistics(jnp.zeros(11), jnp.ones(11), jnp.ones(3)))
    for steps in (1, 4):
        shares = saliency.integrated_gradients(make_network(make_config(), face_graph), weights, clips, target, steps)
        np.testing.assert_allclose(shares, jnp.einsum("btnd,tnd->btn", clips.nodes, weight), rtol=2e-4, atol=1e-4)


def slow_rollout(aux, clip, window):
    """Token by token, for one clip whose frames are all there."""
    space_maps = [np.asarray(aux[f"space_attention_{i}"][clip]).mean(axis=1) for i in range(2)]
    time_maps = [np.asarray(aux[f"time_attention_{i}"][clip]).mean(axis=1) for i in range(2)]
    t, n = space_maps[0].shape[:2]
    offsets = [step for step in range(-window, window + 1) if step]
    tokens = np.eye(t * n)
    for space, time in zip(space_maps, time_maps, strict=True):
        joint = np.zeros((t * n, t * n))
        for frame in range(t):
            for node in range(n):
                for other in range(n):
                    joint[frame * n + node, frame * n + other] += space[frame, node, other]
                for place, step in enumerate(offsets):
                    if 0 <= frame + step < t:
                        joint[frame * n + node, (frame + step) * n + node] += time[frame, node, place]
        np.testing.assert_allclose(joint.sum(axis=1), 1, rtol=1e-5)
        tokens = 0.5 * tokens + 0.5 * joint @ tokens
    over_time, over_nodes = np.asarray(aux["node_over_time"][clip]), np.asarray(aux["frame_over_nodes"][clip])
    spatial = np.stack([sum(over_time[i, f] * tokens[f * n + i] for f in range(t)) for i in range(n)])
    temporal = np.stack([sum(over_nodes[f, i] * tokens[f * n + i] for i in range(n)) for f in range(t)])
    encoder = np.asarray(aux["encoder_attention_0"][clip]).mean(axis=0)
    temporal = 0.5 * temporal + 0.5 * encoder @ temporal
    to_space = np.asarray(aux["space_from_time_0"][clip]).mean(axis=0)
    to_time = np.asarray(aux["time_from_space_0"][clip]).mean(axis=0)
    spatial, temporal = (spatial + to_space @ temporal) / 2, (temporal + to_time @ spatial) / 2
    final = np.asarray(aux["temporal_attention"][clip]) @ temporal
    return ((spatial.mean(axis=0) + final) / 2).reshape(t, n)


def test_rollout_is_the_product_of_all_layers(study, said):
    _, clips, _ = study
    found = np.asarray(saliency.rollout(said[1], clips.frame_mask, WINDOW))
    for clip in (0, 1, 3, 4):
        np.testing.assert_allclose(found[clip], slow_rollout(said[1], clip, WINDOW), rtol=1e-4, atol=1e-6)


def test_rollout_sums_to_one_and_passes_over_hidden_frames(study, said):
    _, clips, _ = study
    found = np.asarray(saliency.rollout(said[1], clips.frame_mask, WINDOW))
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, rtol=1e-5)
    assert (found >= 0).all() and (found[2, 4:] == 0).all() and (found[2, :4] > 0).all()


def test_there_is_no_rollout_without_the_maps_of_both_streams():
    assert saliency.rollout({"temporal_attention": jnp.ones((2, 3))}, jnp.ones((2, 3), bool), WINDOW) is None


def test_layers_are_found_by_number_whatever_their_order():
    aux = dict.fromkeys(("gat_10", "gat_2", "gat_0", "gat", "other_1"))
    assert saliency.layers(aux, "gat") == [0, 2, 10]


def test_ranks():
    values = jnp.array([[[0.1, 0.9], [0.5, 7.0]], [[3.0, 1.0], [2.0, 4.0]]])
    mask = jnp.array([[True, False], [True, True]])
    rank, count = saliency.ranks(values, mask)
    np.testing.assert_array_equal(rank[0, 0], [1, 0])
    assert set(np.asarray(rank[0, 1]).tolist()) == {2, 3}  # hidden: last, however salient
    np.testing.assert_array_equal(rank[1], [[1, 3], [2, 0]])
    np.testing.assert_array_equal(count, [2, 4])


def test_spread_keeps_what_speaks_for_the_answer():
    found = saliency.spread(np.array([[[1.0, -2.0], [3.0, 0.0]], [[-1.0, -1.0], [0.0, -3.0]]]))
    np.testing.assert_allclose(found, [[[0.25, 0], [0.75, 0]], [[0, 0], [0, 0]]])
