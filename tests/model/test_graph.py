import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stag_jax.model import graph

AU = jnp.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 1], [1, 1, 1]], jnp.float32)
KNOWN = jnp.ones((5, 3), bool).at[3, 2].set(False)  # clip 3 has no label for the last unit
TRAIN = jnp.array([1, 1, 1, 1, 0], jnp.float32)  # clip 4 is held out


def test_cooccurrence_by_hand():
    found = graph.cooccurrence(AU, KNOWN, TRAIN, prior=0.0)
    np.testing.assert_allclose(found, [[1, 2 / 3, 1 / 3], [2 / 3, 1, 1 / 2], [1 / 3, 1 / 2, 1]], rtol=1e-6)
    found = graph.cooccurrence(AU, KNOWN, TRAIN)
    np.testing.assert_allclose(found, [[1, 2 / 4, 1 / 4], [2 / 4, 1, 1 / 3], [1 / 4, 1 / 3, 1]], rtol=1e-6)
    # Were clip 3 labelled, its last unit would be one more clip in which that is seen alone.
    found = graph.cooccurrence(AU, jnp.ones((5, 3), bool), TRAIN)
    np.testing.assert_allclose(found, [[1, 2 / 4, 1 / 5], [2 / 4, 1, 1 / 4], [1 / 5, 1 / 4, 1]], rtol=1e-6)


@pytest.mark.parametrize("known, train", [(jnp.zeros((5, 3), bool), TRAIN), (KNOWN, jnp.zeros(5))])
def test_cooccurrence_without_labels_is_the_identity(known, train):
    np.testing.assert_array_equal(graph.cooccurrence(AU, known, train), np.eye(3))


def test_cooccurrence_sees_training_clips_only():
    expected = graph.cooccurrence(AU, KNOWN, TRAIN)
    other = graph.cooccurrence(AU.at[4].set(0), KNOWN.at[4].set(False), TRAIN)
    np.testing.assert_array_equal(other, expected)
    grad = jax.grad(lambda au: graph.cooccurrence(au, KNOWN, TRAIN)[0, 2])(AU)
    assert (grad[4] == 0).all() and grad[3, 2] == 0 and (grad[:4] != 0).any()
    assert (graph.cooccurrence(AU.at[0].set(0), KNOWN, TRAIN) != expected).any()


def test_dynamic_connectivity_is_its_formula_in_loops(face_graph):
    rng = np.random.default_rng(0)
    prob, together = rng.random((2, 7, 3)).astype(np.float32), rng.random((3, 3)).astype(np.float32)
    found = graph.dynamic_connectivity(*map(jnp.asarray, (prob, face_graph.incidence, together)))
    expected = np.zeros((2, 7, 5, 5))
    m = face_graph.incidence
    for b, t, i, j in np.ndindex(expected.shape):
        for u in range(3):
            for v in range(3):
                expected[b, t, i, j] += m[u, i] * prob[b, t, u] * together[u, v] * prob[b, t, v] * m[v, j]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # Nothing active, nothing linked; one unit, its own regions.
    assert (graph.dynamic_connectivity(jnp.zeros(3), jnp.asarray(m), jnp.asarray(together)) == 0).all()
    one = graph.dynamic_connectivity(jnp.array([1.0, 0, 0]), jnp.asarray(m), jnp.eye(3))
    np.testing.assert_array_equal(one, np.outer(m[0], m[0]))


def test_attention_bias_is_the_log_of_the_sum():
    rng = np.random.default_rng(0)
    static, dynamic = rng.random((5, 5)).astype(np.float32), rng.random((2, 7, 5, 5)).astype(np.float32)
    static[0, 1] = dynamic[:, :, 0, 1] = 0
    found = graph.attention_bias(jnp.asarray(static), jnp.asarray(dynamic))
    np.testing.assert_allclose(found, np.log(0.01 + static + dynamic), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[:, :, 0, 1], np.log(0.01), rtol=1e-5)
    found = graph.attention_bias(jnp.asarray(static), None)
    np.testing.assert_allclose(found, np.log(0.01 + static), rtol=1e-5, atol=1e-6)


def test_space_edges_by_hand_and_under_a_flip(face_graph):
    found = graph.space_edge_features(face_graph)
    assert found.shape == (5, 5, 5) and found.dtype == np.float32
    np.testing.assert_allclose(found[0, 1], [0.5, 0, 0.5, 0, 1], atol=1e-6)
    np.testing.assert_allclose(found[1, 4], [0.25, 0.65, np.hypot(0.25, 0.65), 0, 0], atol=1e-6)
    np.testing.assert_allclose(found[4, 1], [0.25, -0.65, np.hypot(0.25, 0.65), 0, 0], atol=1e-6)
    np.testing.assert_array_equal(found[4, 4], [0, 0, 0, 1, 0])  # on the midline a node is itself, not a pair
    flipped = found[np.ix_(face_graph.mirror, face_graph.mirror)]
    np.testing.assert_allclose(flipped, found, atol=1e-6)


def test_time_window_by_hand():
    index, exists = graph.time_window(4, 1)
    np.testing.assert_array_equal(index, [[0, 1], [0, 2], [1, 3], [2, 3]])
    np.testing.assert_array_equal(exists, [[False, True], [True, True], [True, True], [True, False]])
    index, exists = graph.time_window(7, 3)
    for t, w in np.ndindex(7, 6):
        at = t + (-3, -2, -1, 1, 2, 3)[w]
        assert exists[t, w] == (0 <= at < 7) and index[t, w] == min(max(at, 0), 6)
    assert graph.time_window(5, 0)[0].shape == (5, 0)
    assert not graph.time_window(1, 2)[1].any()


def test_time_edges_know_real_time_and_not_frames():
    times = jnp.array([0.0, 10, 40, 100])
    index, _ = graph.time_window(4, 1)
    found = graph.time_edge_features(times, index)
    assert found.shape == (4, 2, 3)
    np.testing.assert_allclose(found[1], [[-1, -0.1, np.tanh(-0.1)], [1, 0.3, np.tanh(0.3)]], rtol=1e-6)
    np.testing.assert_allclose(found[2], [[-1, -0.3, np.tanh(-0.3)], [1, 0.6, np.tanh(0.6)]], rtol=1e-6)
    np.testing.assert_allclose(graph.time_edge_features(times + 64, index), found, atol=1e-6)


def test_frame_rate_does_not_matter():
    """Every frame at 100 fps, and every second one at 200 fps."""
    slow, fast = jnp.arange(0.0, 110, 1000 / 100), jnp.arange(0.0, 110, 1000 / 200)
    np.testing.assert_allclose(graph.time_code(fast, 16)[::2], graph.time_code(slow, 16), atol=1e-5)
    index, exists = graph.time_window(11, 2)
    found, expected = (graph.time_edge_features(times, index) for times in (fast[::2], slow))
    np.testing.assert_allclose(found[exists], expected[exists], atol=1e-5)
    # And the same places at another rate are another code.
    assert np.abs(graph.time_code(fast[:11], 16) - graph.time_code(slow, 16)).max() > 0.5


def test_time_code_runs_from_40_ms_to_2_s():
    code = graph.time_code(jnp.array([[0.0, 10, 500]]), 16)
    assert code.shape == (1, 3, 16)
    np.testing.assert_array_equal(code[0, 0], [0] * 8 + [1] * 8)
    np.testing.assert_allclose([code[0, 1, 0], code[0, 1, 8]], [1, 0], atol=1e-5)  # a quarter of 40 ms
    np.testing.assert_allclose([code[0, 2, 7], code[0, 2, 15]], [1, 0], atol=1e-5)  # a quarter of 2 s
    np.testing.assert_allclose(code[..., :8] ** 2 + code[..., 8:] ** 2, 1, atol=1e-5)


def test_softplus_inverse_goes_there_and_back():
    values = jnp.array([1e-3, 1e-2, 0.3, 1.0, 7.0, 53.0])
    np.testing.assert_allclose(graph.non_negative(graph.softplus_inverse(values)), values, rtol=1e-4)
    assert (graph.non_negative(jnp.array([-90.0, -3.0, 0.0, 3.0])) >= 0).all()
