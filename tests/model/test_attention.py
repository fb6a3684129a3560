import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from stag_jax.model import attention, graph

B, T, H, N, D, W = 2, 3, 2, 5, 3, 2


def leaky(x):
    return x if x > 0 else attention.SLOPE * x


def slow_gatv2(query, key, edge, weight):
    """score[h, i, j] = weight[h] . leaky_relu(query[h, i] + key[h, j] + edge[h, i, j]), one number at a time."""
    heads, d = weight.shape
    rows, columns = query.shape[1], key.shape[2]
    out = np.zeros((heads, rows, columns))
    for h in range(heads):
        for i in range(rows):
            for j in range(columns):
                for c in range(d):
                    mixed = query[h, i, 0, c] + key[h, min(i, key.shape[1] - 1), j, c]
                    out[h, i, j] += weight[h, c] * leaky(mixed + edge[h, min(i, edge.shape[1] - 1), j, c])
    return out


def slow_egat(query, key, value, space_edge, time_edge, weight, bias, space_mask, time_mask, index):
    """E-GAT message to each region of each frame, over edges in space and in time: weights and sums in plain loops."""
    frames, heads, nodes, _ = query.shape
    message = np.zeros((frames, heads, nodes, value.shape[-1]))
    space, time = np.zeros((frames, heads, nodes, nodes)), np.zeros((frames, heads, nodes, index.shape[1]))
    for t in range(frames):
        for h in range(heads):
            for n in range(nodes):
                neighbours = []
                for m in range(nodes):
                    if space_mask[t, n, m]:
                        mixed = query[t, h, n] + key[t, h, m] + space_edge[h, n, m]
                        neighbours.append((space, m, sum(map(leaky_times, weight[h], mixed)) + bias[t, n, m], t, m))
                for w, t2 in enumerate(index[t]):
                    if time_mask[t, n, w]:
                        mixed = query[t, h, n] + key[t2, h, n] + time_edge[t, h, w]
                        neighbours.append((time, w, sum(map(leaky_times, weight[h], mixed)), t2, n))
                total = sum(np.exp(score) for _, _, score, _, _ in neighbours)
                for weights, place, score, t2, m in neighbours:
                    weights[t, h, n, place] = np.exp(score) / total
                    message[t, h, n] += np.exp(score) / total * value[t2, h, m]
    return message, space, time


def leaky_times(weight, x):
    return weight * leaky(x)


def fast_egat(query, key, value, space_edge, time_edge, weight, bias, space_mask, time_mask, index):
    space = attention.space_scores(query, key, space_edge, weight) + bias[..., None, :, :]
    time = attention.time_scores(query, attention.windowed(key, index), time_edge, weight)
    space, time = attention.joint_weights(space, time, space_mask=space_mask, time_mask=time_mask)
    return attention.joint_messages(space, time, value, attention.windowed(value, index)), space, time


def egat_inputs(seed=0, lead=()):
    """Random float inputs, and masks where every edge in space exists with probability 0.6."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=lead + shape).astype(np.float32)

    shared = np.random.default_rng(seed + 1).normal
    index, exists = graph.time_window(T, 1)
    inputs = {
        "query": draw(T, H, N, D),
        "key": draw(T, H, N, D),
        "value": draw(T, H, N, 4),
        "space_edge": shared(size=(H, N, N, D)).astype(np.float32),
        "time_edge": draw(T, H, W, D),
        "weight": shared(size=(H, D)).astype(np.float32),
        "bias": draw(T, N, N),
    }
    masks = {
        "space_mask": rng.random((*lead, T, N, N)) < 0.6,
        "time_mask": np.broadcast_to(exists[:, None], (*lead, T, N, W)) & (rng.random((*lead, T, N, W)) < 0.8),
    }
    return {k: jnp.asarray(v) for k, v in (inputs | masks).items()}, index


def lattice(rng, *shape):
    """Multiples of 1/2: sums of three, one of them shifted by 1/4, keep away from the kink of the leaky ReLU."""
    return jnp.asarray(rng.integers(-3, 4, shape) / 2, jnp.float32)


def gatv2_inputs(kind):
    """Shapes as in `space_scores` and `time_scores`."""
    rng = np.random.default_rng(7)
    query = lattice(rng, B, T, H, N, 1, D)
    key = lattice(rng, B, T, H, 1, N, D) if kind == "space" else lattice(rng, B, T, H, N, W, D)
    edge = lattice(rng, 1, 1, H, N, N, D) if kind == "space" else lattice(rng, B, T, H, 1, W, D)
    return query, key, edge + 0.25, jnp.asarray(rng.normal(size=(H, D)), jnp.float32)


@pytest.mark.parametrize("kind", ["space", "time"])
def test_gatv2_is_its_formula_in_loops(kind):
    query, key, edge, weight = gatv2_inputs(kind)
    found = attention.gatv2(query, key, edge, weight)
    assert found.shape == (B, T, H, N, N if kind == "space" else W)
    edge = np.broadcast_to(edge, (B, T, *edge.shape[2:]))
    for b in range(B):
        for t in range(T):
            slow = slow_gatv2(np.asarray(query[b, t]), np.asarray(key[b, t]), edge[b, t], np.asarray(weight))
            np.testing.assert_allclose(found[b, t], slow, atol=1e-5)


@pytest.mark.parametrize("kind", ["space", "time"])
def test_the_written_gradient_of_gatv2_is_the_automatic_one(kind):
    inputs = gatv2_inputs(kind)
    cotangent = np.random.default_rng(1).normal(size=attention.gatv2(*inputs).shape).astype(np.float32)

    def plain(query, key, edge, weight):
        mixed = jax.nn.leaky_relu(query + key + edge, attention.SLOPE)
        return jnp.einsum("...hijd,hd->...hij", mixed, weight)

    def pulled(function):
        return jax.grad(lambda *args: jnp.vdot(function(*args), cotangent), argnums=(0, 1, 2, 3))(*inputs)

    for ours, automatic in zip(pulled(attention.gatv2), pulled(plain), strict=True):
        np.testing.assert_allclose(ours, automatic, rtol=1e-4, atol=1e-4)
    check_grads(jax.jit(attention.gatv2), inputs, order=1, modes=["rev"])


def test_message_and_weights_are_those_of_the_loops():
    inputs, index = egat_inputs(lead=(B,))
    fast = fast_egat(**inputs, index=index)
    for b in range(B):
        one = {k: np.asarray(v if k in ("space_edge", "weight") else v[b]) for k, v in inputs.items()}
        for found, expected in zip(fast, slow_egat(**one, index=index), strict=True):
            np.testing.assert_allclose(found[b], expected, atol=2e-6)


def test_weights_sum_to_one_over_the_neighbours_and_are_zero_elsewhere():
    inputs, index = egat_inputs(seed=3)
    _, space, time = fast_egat(**inputs, index=index)
    some = inputs["space_mask"].any(axis=-1) | inputs["time_mask"].any(axis=-1)
    total = (space.sum(axis=-1) + time.sum(axis=-1)).swapaxes(1, 2)
    np.testing.assert_allclose(total, np.broadcast_to(some[..., None], total.shape), atol=1e-6)
    assert (space.swapaxes(1, 2)[~inputs["space_mask"].any(axis=-1)] == 0).all()
    assert (jnp.where(inputs["space_mask"][:, None], 0, space) == 0).all()
    assert (jnp.where(inputs["time_mask"][:, None], 0, time) == 0).all()
    assert (jnp.where(inputs["space_mask"][:, None], space, 1) > 0).all()


def test_a_node_without_neighbours_gets_zeros_and_a_zero_gradient(jit):
    inputs, index = egat_inputs()
    masks = {
        "space_mask": inputs["space_mask"].at[1, 2].set(False),
        "time_mask": inputs["time_mask"].at[1, 2].set(False),
    }
    names = ("query", "key", "value", "space_edge", "time_edge", "weight", "bias")

    def message(*args):
        return fast_egat(**dict(zip(names, args, strict=True)), **masks, index=index)[0]

    args = [inputs[name] for name in names]
    pull = jit(lambda cotangent: (message(*args), jax.vjp(message, *args)[1](cotangent)))
    out, everyone = pull(np.ones((T, H, N, 4), np.float32))
    assert (out[1, :, 2] == 0).all() and (out[1, :, 3] != 0).any()
    assert all(jnp.isfinite(grad).all() and (grad != 0).any() for grad in everyone)
    _, alone = pull(jnp.zeros_like(out).at[1, :, 2].set(1.0))
    assert all((grad == 0).all() for grad in alone)


def test_a_message_depends_on_its_neighbours_only(jit):
    inputs, index = egat_inputs(seed=5)

    def message(key, value):
        return fast_egat(**(inputs | {"key": key, "value": value}), index=index)[0].sum(axis=(1, 3))

    for jacobian in jit(jax.jacrev(message, argnums=(0, 1)))(inputs["key"], inputs["value"]):
        strength = np.abs(jacobian).sum(axis=(3, 5))  # t n t2 n2
        for t in range(T):
            for n in range(N):
                linked = np.zeros((T, N), bool)
                linked[t] = inputs["space_mask"][t, n]
                for w, t2 in enumerate(index[t]):
                    linked[t2, n] |= bool(inputs["time_mask"][t, n, w])
                assert (strength[t, n][~linked] == 0).all()
                if linked.sum() > 1:  # the key of an only neighbour does not matter
                    assert (strength[t, n][linked] > 0).all()


def test_no_time_edges():
    inputs, _ = egat_inputs()
    index, exists = graph.time_window(T, 0)
    inputs |= {"time_edge": jnp.zeros((T, H, 0, D)), "time_mask": jnp.zeros((T, N, 0), bool)}
    message, space, time = fast_egat(**inputs, index=index)
    assert exists.shape == (T, 0) and time.shape == (T, H, N, 0)
    np.testing.assert_allclose(message, jnp.einsum("thnm,thmd->thnd", space, inputs["value"]), atol=1e-6)


def test_windowed_takes_the_same_node_of_other_frames():
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, H, N, D)), jnp.float32)
    index, _ = graph.time_window(T, 2)
    found = attention.windowed(tokens, index)
    for t in range(T):
        for w, t2 in enumerate(index[t]):
            np.testing.assert_array_equal(found[:, t, :, :, w], tokens[:, t2])


def test_dot_product_is_its_formula_in_loops():
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(B, size, H, D)).astype(np.float32) for size in (3, 7, 7))
    mask = rng.random((B, 7)) < 0.6
    mask[1] = False
    out, weights = attention.dot_product(*map(jnp.asarray, (query, key, value, mask)))
    for b in range(B):
        for h in range(H):
            for i in range(3):
                e = [np.exp(query[b, i, h] @ key[b, j, h] / np.sqrt(D)) * mask[b, j] for j in range(7)]
                expected = np.array(e) / max(sum(e), 1e-30)
                np.testing.assert_allclose(weights[b, h, i], expected, atol=1e-6)
                np.testing.assert_allclose(out[b, i, h], expected @ value[b, :, h], atol=1e-6)
    assert (weights[~np.broadcast_to(mask[:, None, None], weights.shape)] == 0).all()
    assert (out[1] == 0).all()
    everything, _ = attention.dot_product(*map(jnp.asarray, (query, key, value)))
    np.testing.assert_allclose(
        everything, attention.dot_product(*map(jnp.asarray, (query, key, value)), mask=jnp.ones((B, 7), bool))[0]
    )


def test_pool_is_a_masked_softmax_average(jit):
    rng = np.random.default_rng(0)
    score, value = rng.normal(size=(B, 7)).astype(np.float32), rng.normal(size=(B, 7, D)).astype(np.float32)
    mask = np.array([[1, 0, 1, 1, 0, 0, 1], [0] * 7], bool)
    out, weights = attention.pool(*map(jnp.asarray, (score, value, mask)))
    expected = np.exp(score[0]) * mask[0] / (np.exp(score[0]) * mask[0]).sum()
    np.testing.assert_allclose(weights[0], expected, atol=1e-6)
    np.testing.assert_allclose(out[0], expected @ value[0], atol=1e-6)
    assert (weights[~mask] == 0).all() and (out[1] == 0).all()
    grads = jit(jax.grad(lambda s, v: attention.pool(s, v, jnp.asarray(mask))[0].sum(), (0, 1)))(score, value)
    assert all(np.isfinite(grad).all() and (np.asarray(grad)[~mask] == 0).all() for grad in grads)


def test_drop_edges_hides_the_asked_share_and_adds_none():
    mask = jnp.arange(101 * 211).reshape(101, 211) % 3 != 0
    kept = attention.drop_edges(mask, jax.random.key(0), 0.3)
    assert not (kept & ~mask).any()
    count = int(mask.sum())
    assert abs(float(kept.sum()) / count - 0.7) < 4 * np.sqrt(0.3 * 0.7 / count)
    assert (attention.drop_edges(mask, jax.random.key(0), 0.0) == mask).all()
    assert (attention.drop_edges(mask, jax.random.key(1), 0.3) != kept).any()
