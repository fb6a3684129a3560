import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stag_jax.model import layers

FRAMES, NODES, WIDTH = 5, 5, 6


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    h, bias = rng.normal(size=(FRAMES, NODES, WIDTH)), rng.normal(size=(FRAMES, NODES, NODES))
    times = np.array([0, 20, 50, 90, 140])
    return *(jnp.asarray(x, jnp.float32) for x in (h, bias, times)), jnp.ones(FRAMES, bool)


def layer(**changes):
    settings = {"heads": 2, "score_dim": 3, "window": 1, "mlp_ratio": 2, "dropout": 0.0, "edge_dropout": 0.0}
    return layers.GraphAttention(**(settings | changes))


def test_one_layer_reaches_its_frame_and_the_same_node_of_the_next(inputs, face_graph, random_params, jit):
    h, *rest = inputs
    module = layer()
    params = random_params(module, h, *rest, face_graph, train=False)

    def strength(h):  # how much of h [t2, n2] is in the output [t, n]
        def out(h):
            return module.apply({"params": params}, h, *rest, face_graph, train=False)[0].sum(axis=-1)

        return jnp.abs(jax.jacrev(out)(h)).sum(axis=-1)

    found = np.asarray(jit(strength)(h))
    for t, n, t2, n2 in np.ndindex(found.shape):
        reached = t == t2 or (abs(t - t2) == 1 and n == n2)
        assert (found[t, n, t2, n2] > 0) == reached


def test_masked_frames_are_no_neighbours(inputs, face_graph, random_params, jit):
    h, bias, times, mask = inputs
    module = layer(window=2)
    params = random_params(module, *inputs, face_graph, train=False)
    run = jit(lambda h, mask: module.apply({"params": params}, h, bias, times, mask, face_graph, train=False))
    mask = mask.at[2].set(False)
    out, aux = run(h, mask)
    garbage, _ = run(h.at[2].set(1e3), mask)
    np.testing.assert_array_equal(out[jnp.asarray([0, 1, 3, 4])], garbage[jnp.asarray([0, 1, 3, 4])])
    assert (aux["time_attention"][1, :, :, 2] == 0).all() and (aux["time_attention"][1, :, :, 3] > 0).all()
    assert (aux["space_attention"][2] == 0).all()


def test_edge_dropout_never_silences_a_node_itself(inputs, face_graph, random_params, jit):
    module = layer(edge_dropout=0.9)
    params = random_params(module, *inputs, face_graph, train=False)
    rngs = {"dropout": jax.random.key(0)}
    run = jit(lambda h: module.apply({"params": params}, h, *inputs[1:], face_graph, train=True, rngs=rngs)[1])
    aux = run(inputs[0])
    space, time = aux["space_attention"], aux["time_attention"]
    assert (jnp.diagonal(space, axis1=-2, axis2=-1) > 0).all()
    assert 0.02 < float((space > 0).mean()) - 1 / NODES < 0.2  # a tenth of the others
    np.testing.assert_allclose(space.sum(axis=-1) + time.sum(axis=-1), 1, atol=1e-6)


def test_a_unit_is_read_from_the_regions_it_moves(inputs, face_graph, random_params, jit):
    module = layers.ActionUnitHead()
    params = random_params(module, inputs[0], face_graph.incidence)
    out = jit(jax.jacrev(lambda h: module.apply({"params": params}, h, face_graph.incidence)))(inputs[0])
    strength = np.abs(out).sum(axis=-1)  # t u t2 n
    for t, u, t2, n in np.ndindex(strength.shape):
        assert (strength[t, u, t2, n] > 0) == (t == t2 and face_graph.incidence[u, n] == 1)


def test_connectivity_starts_at_anatomy(face_graph):
    au_prob = jnp.asarray(np.random.default_rng(0).random((FRAMES, 3)), jnp.float32)
    for dynamic in (False, True):
        module = layers.Connectivity(dynamic)
        variables = module.init(jax.random.key(0), au_prob, face_graph)
        assert sorted(variables["params"]) == ["adjacency", "cooccurrence"]
        found = np.exp(module.apply(variables, au_prob, face_graph)) - 0.01
        expected = np.broadcast_to(np.maximum(face_graph.adjacency, 0.01), found.shape)
        if dynamic:
            active = np.asarray(au_prob)[..., None] * face_graph.incidence
            together = np.maximum(np.eye(3), 0.01)
            expected = expected + np.einsum("tun,uv,tvm->tnm", active, together, active)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_pool_without_learning_is_the_mean_of_what_is_there(inputs):
    x, mask = inputs[0][:, 0], jnp.array([True, True, False, True, False])
    pooled, weights = layers.Pool(learned=False).apply({}, x, mask)
    np.testing.assert_allclose(pooled, x[mask].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(weights, np.array([1, 1, 0, 1, 0]) / 3, atol=1e-6)


def test_dropout_takes_the_same_features_of_all_tokens():
    rngs = {"dropout": jax.random.key(0)}

    def drop(rate):
        return layers.Dropout(rate).apply({}, jnp.ones((7, 5, 11)), train=True, rngs=rngs)

    out = drop(0.5)
    np.testing.assert_array_equal(jax.jit(drop)(jnp.float32(0.5)), out)  # the rate may be traced
    assert (jax.jit(drop)(jnp.float32(0.0)) == 1).all() and (jax.jit(drop)(jnp.float32(1.0)) == 0).all()
    assert set(np.unique(out)) == {0, 2}
    assert (out == out[:, :1]).all()
    assert (out[0] != out[1]).any()


def test_clip_level_is_a_smooth_maximum_over_the_frames_that_are_there():
    mask = jnp.array([True, True, False])
    logits = jnp.array([[0.3, -2.0], [0.3, 9.0], [50.0, 50.0]])
    expected = [0.3, np.log((np.exp(-2) + np.exp(9)) / 2)]
    np.testing.assert_allclose(layers.clip_level(logits, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(layers.clip_level(logits[:1], mask[:1]), logits[0], rtol=1e-6)
