"""The three networks as a whole. `random_params` gives a parameter the same values in every variant that has it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stag_jax.config import ModelConfig
from stag_jax.model import baselines, losses
from stag_jax.motion import nodes
from stag_jax.types import UserError

NAMES = ("stag", "apex_only", "two_stream")
B, T, N, U, K, H = 5, 7, 5, 3, 3, 2
WIDTH, READOUT = 8, 3


@pytest.fixture(scope="module")
def network(model_config, make_batch, face_graph, random_params, jit):
    """network(name, **changes) -> params and run(params, batch) -> (logits, aux); run.__wrapped__ is not compiled."""

    @functools.cache
    def make(name="stag", **changes):
        model = baselines.make_model(model_config(name=name, **changes), K)
        params = random_params(model, make_batch(), face_graph, train=False)
        return params, jit(lambda params, batch: model.apply({"params": params}, batch, face_graph, train=False))

    return make


def paths(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(tree)}


def test_logits_and_named_intermediates(network, make_batch):
    params, run = network()
    logits, aux = run(params, make_batch())
    assert logits.shape == (B, K) and logits.dtype == jnp.float32
    expected = {
        "au_logits": (B, U),
        "au_probability": (B, T, U),
        "connectivity": (B, T, N, N),
        "node_over_time": (B, N, T),
        "frame_over_nodes": (B, T, N),
        "encoder_attention_0": (B, H, T, T),
        "space_from_time_0": (B, H, N, T),
        "time_from_space_0": (B, H, T, N),
        "temporal_attention": (B, T),
        "features": (B, N * READOUT + WIDTH),
    }
    for index in range(2):
        expected |= {f"space_attention_{index}": (B, T, H, N, N), f"time_attention_{index}": (B, T, H, N, 2)}
    assert {name: value.shape for name, value in aux.items()} == expected
    assert all(jnp.isfinite(value).all() for value in (logits, *aux.values()))
    for name in ("node_over_time", "frame_over_nodes", "encoder_attention_0", "space_from_time_0", "time_from_space_0"):
        np.testing.assert_allclose(aux[name].sum(axis=-1), 1, atol=1e-5)
    for index in range(2):
        total = sum(aux[f"{kind}_attention_{index}"].sum(axis=-1) for kind in ("space", "time"))
        np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_in_padded_frames_does_not_matter(name, network, make_batch):
    params, run = network(name)
    batch = make_batch(b=5, t=T)
    lengths = np.array([1, 2, 3, 5, 7])
    batch = batch._replace(frame_mask=jnp.arange(T)[None] < lengths[:, None])
    there = batch.frame_mask
    other = batch._replace(
        nodes=jnp.where(there[:, :, None, None], batch.nodes, 97.0),
        times_ms=jnp.where(there, batch.times_ms, 9e3),
        magnitude=jnp.where(there, batch.magnitude, 1e3),
    )
    expected, aux = run(params, batch)
    found, other_aux = run(params, other)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(other_aux["au_logits"], aux["au_logits"], atol=1e-5)
    assert not np.allclose(run(params, batch._replace(frame_mask=jnp.ones((B, T), bool)))[0], expected, atol=1e-3)


@pytest.mark.parametrize("name", ["stag", "two_stream"])
def test_padding_changes_nothing(name, network, make_batch):
    params, run = network(name)
    short = make_batch(t=T - 2)
    garbage = make_batch(seed=9)

    def pad(x, extra):
        return jnp.concatenate([x, extra[:, T - 2 :]], axis=1)

    padded = {key: pad(getattr(short, key), getattr(garbage, key)) for key in ("nodes", "times_ms", "magnitude")}
    padded = short._replace(**padded, frame_mask=jnp.arange(T)[None].repeat(B, axis=0) < T - 2)
    (expected, aux), (found, padded_aux) = run(params, short), run(params, padded)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(padded_aux["au_logits"], aux["au_logits"], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_knows_nothing_of_the_others(name, network, make_batch):
    params, run = network(name)
    one, two = make_batch(), make_batch(seed=1)
    mixed = jax.tree.map(lambda x, y: jnp.concatenate([x[:2], y[2:]]), one, two)
    expected, found = run(params, one)[0], run(params, mixed)[0]
    np.testing.assert_array_equal(found[:2], expected[:2])
    assert (found[2:] != expected[2:]).any(axis=1).all()


@pytest.mark.parametrize("name", ["stag", "two_stream"])
def test_the_order_of_the_nodes_is_a_matter_of_names(name, network, model_config, make_batch, face_graph, jit):
    params, run = network(name)
    batch = make_batch()
    order = np.array([3, 0, 4, 1, 2])
    place = np.argsort(order)
    graph = face_graph._replace(
        node_names=tuple(face_graph.node_names[n] for n in order),
        adjacency=face_graph.adjacency[np.ix_(order, order)],
        incidence=face_graph.incidence[:, order],
        position=face_graph.position[order],
        mirror=place[face_graph.mirror[order]],
    )

    def reorder(path, x):
        path = jax.tree_util.keystr(path, simple=True, separator="/")
        if path in ("embed/node", "node"):
            return x[order]
        if path == "connectivity/adjacency":
            return x[order][:, order]
        if path == "logits/kernel":
            rows = 3 * N  # readout_dim features a node; the pooled frames come after them
            return jnp.concatenate([x[:rows].reshape(N, 3, K)[order].reshape(rows, K), x[rows:]])
        if path == "space_logits/kernel":
            return x.reshape(N, 3, K)[order].reshape(x.shape)
        return x

    model = baselines.make_model(model_config(name=name), K)
    moved = jax.tree.map_with_path(reorder, params)
    reordered = batch._replace(nodes=batch.nodes[:, :, order])
    apply = jit(lambda params, batch: model.apply({"params": params}, batch, graph, train=False))
    (expected, aux), (found, moved_aux) = run(params, batch), apply(moved, reordered)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(moved_aux["au_logits"], aux["au_logits"], atol=2e-5)
    if name == "stag":
        found, expected = moved_aux["space_attention_1"], aux["space_attention_1"][..., order, :][..., order]
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert not np.allclose(run(params, reordered)[0], run(params, batch)[0], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_gradient(name, network, make_batch, jit):
    params, run = network(name, gat_layers=1)
    batch = make_batch()

    def loss(params, batch):
        logits, aux = run.__wrapped__(params, batch)
        focal = losses.focal(logits=logits, label=batch.label, alpha=jnp.ones(K), gamma=2.0)
        units = losses.binary_focal(logits=aux["au_logits"], target=batch.au, mask=batch.au_mask, gamma=2.0)
        return jnp.mean(focal) + 0.2 * units

    # With one frame there is nobody in time to attend to, and pooling over it has nothing to choose.
    idle = ("time_edge", "encoder_0/query", "encoder_0/key", "over_time", "pool/")
    idle += ("to_space_0/query", "to_space_0/key", "to_space_0/norm")
    idle = idle if name == "apex_only" else ()
    grad = jit(jax.grad(loss))
    grads, hidden = grad(params, batch), grad(params, batch._replace(frame_mask=jnp.zeros_like(batch.frame_mask)))
    for path, value in paths(grads).items():
        assert jnp.isfinite(value).all(), path
        assert (jnp.abs(value).max() > 1e-6) == (not any(part in path for part in idle)), path
    assert all(jnp.isfinite(value).all() for value in jax.tree.leaves(hidden))


SWITCHES = [
    ("au_guidance", False, ()),
    ("dynamic", False, ()),
    ("window", 0, ()),
    ("cross_to_space", False, ("to_space_0",)),
    ("cross_to_time", False, ("to_time_0",)),
    ("temporal_attention", False, ("over_time", "pool")),
    ("gat_layers", 0, ("gat_0",)),
    ("transformer_layers", 0, ("encoder_0",)),
    ("cross_layers", 0, ("to_space_0", "to_time_0")),
]


@pytest.mark.parametrize("switch, off, gone", SWITCHES)
def test_each_block_can_be_switched_off(switch, off, gone, network, make_batch):
    batch = make_batch()
    (with_it, run), (without, run_without) = network(gat_layers=1), network(**({"gat_layers": 1} | {switch: off}))
    assert set(with_it) - set(without) == set(gone) and set(without) <= set(with_it)
    found = run_without(without, batch)[0]
    assert jnp.isfinite(found).all()
    assert np.abs(found - run(with_it, batch)[0]).max() > 1e-4


def test_apex_only_is_stag_on_the_key_frame(network, make_batch):
    params, run = network("apex_only")
    _, run_stag = network()
    batch = make_batch()
    key = jnp.argmax(batch.magnitude, axis=1)
    assert len(set(np.asarray(key))) > 1
    rows = jnp.arange(B)
    alone = batch._replace(
        nodes=batch.nodes[rows, key][:, None],
        times_ms=jnp.zeros((B, 1)),
        magnitude=batch.magnitude[rows, key][:, None],
        frame_mask=jnp.ones((B, 1), bool),
    )
    found, expected = run(params, batch), run_stag(params["stag"], alone)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(found[1]["au_logits"], expected[1]["au_logits"], atol=1e-6)


def test_apex_only_sees_the_key_frame_only(network, make_batch, jit):
    params, run = network("apex_only")
    batch = make_batch()
    key = jax.nn.one_hot(jnp.argmax(batch.magnitude, axis=1), T, dtype=bool)
    other = batch._replace(
        nodes=jnp.where(key[:, :, None, None], batch.nodes, 7.0),
        times_ms=batch.times_ms + 100,
        magnitude=jnp.where(key, batch.magnitude, 0.01),
    )
    np.testing.assert_array_equal(run(params, other)[0], run(params, batch)[0])
    params, run = network("apex_only", gat_layers=1, transformer_layers=0, cross_layers=0)
    grad = jit(jax.grad(lambda nodes: jnp.sum(run.__wrapped__(params, batch._replace(nodes=nodes))[0] ** 2)))(
        batch.nodes
    )
    strength = jnp.abs(grad).max(axis=(2, 3))
    assert (strength[~key] == 0).all() and (strength[key] > 0).all()


def test_two_stream_sees_the_two_averages_and_nothing_of_their_joint(network, make_batch):
    """Adding a_t b_n with mean a = mean b = 0 changes no node's mean over time and no frame's mean over nodes."""
    batch = make_batch()
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(B, T, 1, 11)), rng.normal(size=(B, 1, N, 11))
    joint = (a - a.mean(axis=1, keepdims=True)) * (b - b.mean(axis=2, keepdims=True))
    other = batch._replace(nodes=batch.nodes + joint.astype(np.float32))
    for axis in (1, 2):
        np.testing.assert_allclose(other.nodes.mean(axis=axis), batch.nodes.mean(axis=axis), atol=1e-5)
    params, run = network("two_stream")
    for found, expected in zip(jax.tree.leaves(run(params, other)), jax.tree.leaves(run(params, batch)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    params, run = network()
    assert (np.abs(run(params, other)[0] - run(params, batch)[0]).max(axis=-1) > 0.01).all()


def test_two_stream_adds_what_it_sees_in_space_and_in_time(network, make_batch):
    """f(space and time) - f(space) - f(time) + f(neither) = 0 for it, and not for STAG."""
    batch = make_batch()
    rng = np.random.default_rng(1)
    space, time = rng.normal(size=(B, 1, N, 11)), rng.normal(size=(B, T, 1, 11))
    space = (space - space.mean(axis=2, keepdims=True)).astype(np.float32)
    time = (time - time.mean(axis=1, keepdims=True)).astype(np.float32)

    def mixed(name):
        params, run = network(name)
        values = [run(params, batch._replace(nodes=batch.nodes + x))[0] for x in (space + time, space, time, 0 * time)]
        return np.abs(values[0] - values[1] - values[2] + values[3]).max(axis=-1)

    assert (mixed("two_stream") < 1e-4).all()
    assert (mixed("stag") > 0.01).all()


def test_dropout_acts_in_training_only(model_config, make_batch, face_graph, network, jit):
    blocks = {"gat_layers": 1, "transformer_layers": 0}
    params, run = network(**blocks)
    batch = make_batch()
    expected = run(params, batch)[0]

    def training(**rates):
        model = baselines.make_model(model_config(**blocks, **rates), K)
        variables = {"params": params}
        return lambda seed: model.apply(
            variables, batch, face_graph, train=True, rngs={"dropout": jax.random.key(seed)}
        )[0]

    np.testing.assert_allclose(jit(training())(0), expected, atol=1e-5)
    dropping = jit(training(dropout=0.3, edge_dropout=0.3))
    first, again, other = dropping(0), dropping(0), dropping(1)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3 and np.abs(first - expected).max() > 1e-3
    np.testing.assert_array_equal(network(dropout=0.3, edge_dropout=0.3, **blocks)[1](params, batch)[0], expected)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_used_and_agrees(name, network, model_config, make_batch, face_graph):
    """Activations are bfloat16 throughout, and logits stay within 5% of their range of those in float32."""
    params, run = network(name)
    batch = make_batch()
    expected = run(params, batch)[0]
    model = baselines.make_model(model_config(name=name), K)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    clips = batch._replace(nodes=batch.nodes.astype(jnp.bfloat16))
    with jax.numpy_dtype_promotion("standard"):  # flax's own norms mix dtypes
        (found, aux), inside = model.apply(
            {"params": half}, clips, face_graph, train=False, capture_intermediates=True, mutable=["intermediates"]
        )
    inner = {
        path: x.dtype for path, x in paths(inside).items() if path.split("/")[-3] in ("norm", "value", "out", "up")
    }
    assert len(inner) > 5 and set(inner.values()) == {jnp.dtype(jnp.bfloat16)}
    assert found.dtype == jnp.float32 and all(x.dtype == jnp.float32 for x in aux.values())
    assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)


def test_compiled_and_uncompiled_agree(network, make_batch):
    params, run = network("two_stream", gat_layers=0, transformer_layers=0)
    batch = make_batch()
    np.testing.assert_allclose(run.__wrapped__(params, batch)[0], run(params, batch)[0], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_networks_are_small(name, make_config):
    from stag_configs import base
    from stag_jax.config import from_config_dict
    from stag_jax.types import ClipBatch

    config = from_config_dict(base.get_config())
    graph = nodes.graph(config.graph, config.motion)
    model = baselines.make_model(ModelConfig(**(vars(config.model) | {"name": name})), K)
    b, t, n, d, u = 1, config.motion.frames, len(graph.node_names), len(graph.feature_sign), len(graph.units)
    shapes = ((b, t, n, d), (b, t), (b, t), (b, t), (b, u), (b, u), (b,))
    kinds = (jnp.float32, jnp.float32, jnp.float32, bool, jnp.float32, bool, jnp.int32)
    batch = ClipBatch(*(jax.ShapeDtypeStruct(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)))
    variables = jax.eval_shape(lambda batch: model.init(jax.random.key(0), batch, graph, train=False), batch)
    count = sum(x.size for x in jax.tree.leaves(variables))
    assert list(variables) == ["params"]
    assert 5_000 < count < 1_000_000


def test_mistaken_settings_are_named(model_config):
    message = r"^config\.model\.width must be a multiple of heads \(2\), got 7$"
    with pytest.raises(UserError, match=message):
        baselines.make_model(model_config(width=7), K)
