"""The opponent in PyTorch computes what the project computes: logits, loss, gradients, statistics, updates."""

import dataclasses
import functools
import importlib.util
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stag_experiments.benchmarks import torch_reference
from stag_jax.config import AugmentConfig
from stag_jax.model import baselines
from stag_jax.model import graph as graph_ops
from stag_jax.model.network import Network, Statistics, measure, normalise
from stag_jax.motion import nodes
from stag_jax.training import augment, fold, optim
from stag_jax.types import ClipBatch, UserError

torch = pytest.importorskip("torch", reason="the reference is written in PyTorch")

K = 3
QUIET = {"dropout": 0.0, "edge_dropout": 0.0}
NO_CHANGE = AugmentConfig(mirror=0.0, magnitude=0.0, noise=0.0, frame_drop=0.0, mixup=0.0)
# One frame on a grid, as in composite_flow, and seven frames of named regions, of which some are hidden.
CASES = {
    "one frame": ("grid", QUIET | {"gat_layers": 1}),
    "seven frames": ("roi", QUIET),
    # Each node hears itself alone: the one rate, besides 0, at which nothing is left to chance.
    "no edges": ("roi", QUIET | {"gat_layers": 1, "edge_dropout": 1.0}),
    "wide, static, plain means": ("roi", QUIET | {"window": 2, "dynamic": False, "temporal_attention": False}),
    "no guidance, one direction": ("roi", QUIET | {"window": 0, "au_guidance": False, "cross_to_space": False}),
    "the other direction, deep": ("roi", QUIET | {"cross_to_time": False, "transformer_layers": 2, "cross_layers": 2}),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Leaves the other cores to the other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every run, and whatever came before goes on after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def setting(make_config, make_batch, face_graph):
    """setting(kind, **model) -> config, graph and a batch of numpy arrays, units partly labelled."""

    def make(kind, **model):
        config = make_config(model=model, loss={"label_smoothing": 0.1})
        if kind == "roi":
            graph, clips = face_graph, make_batch(b=6)
            lengths = np.array([1, 2, 3, 5, 7, 7])
            clips = clips._replace(frame_mask=np.arange(clips.times_ms.shape[1])[None] < lengths[:, None])
        else:
            graph_config = dataclasses.replace(config.graph, kind="grid", grid=3)
            graph = nodes.graph(graph_config, dataclasses.replace(config.motion, patch=2))
            shape = (6, 1, len(graph.node_names), len(graph.feature_mirror))
            arrays = {"nodes": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
            clips = make_batch(b=6, t=1, **arrays, times_ms=np.zeros((6, 1), np.float32))
        clips = clips._replace(au_mask=np.random.default_rng(2).random(clips.au.shape) < 0.7)
        return config, graph, ClipBatch(*(np.array(field) for field in clips))

    return make


@pytest.fixture(scope="module")
def pair(setting, random_params):
    """pair(case) -> config, graph, batch, the Flax network, its parameters, and the torch network with the same."""

    @functools.cache
    def of_flax(case):
        kind, model = CASES[case]
        config, graph, batch = setting(kind, **model)
        flax = baselines.make_model(config.model, K)
        return config, graph, batch, flax, random_params(flax, on_device(batch), graph, train=False)

    def make(case):
        config, graph, batch, flax, params = of_flax(case)
        torch_model = torch_reference.make_model(config.model, graph, K, batch.nodes.shape[-1])
        torch_reference.load_params(torch_model, params)
        return config, graph, batch, flax, params, torch_model

    return make


def on_device(batch):
    return jax.tree.map(jnp.asarray, batch)


def tensors(batch):
    batch = ClipBatch(*(torch.from_numpy(np.array(field)) for field in batch))
    return batch._replace(label=batch.label.long())


def with_tensors(graph):
    return graph._replace(**{name: torch.from_numpy(getattr(graph, name)) for name in torch_reference.FLIP})


def flax_loss(config, flax, graph, params, clips, other_label, share, class_weight):
    """The loss of a training step, as the project has it."""
    task = fold.Task(config, Network(config.model, flax, graph, K), len(clips.label))
    d = clips.nodes.shape[-1]
    statistics = Statistics(jnp.zeros(d), jnp.ones(d), class_weight)
    mixed = augment.Mixed(clips, other_label, share)
    return fold.loss_fn(task, params, mixed, statistics, jax.random.key(0))[0]


def flax_updates(config, params, gradients, jit):
    """The parameters after one step for each tree of `gradients`, as the project takes it."""
    optimizer = optim.make_optimizer(config.train)

    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    step = jit(step)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and floats on purpose
        state = jit(optimizer.init)(params)
        for grads in gradients:
            params, state = step(params, state, grads)
    return params


def parameters(like, config, graph, tree):
    """A Flax tree by the names that its leaves have in the torch network `like`."""
    features = like.embed.patch.in_features
    copy = torch_reference.make_model(config.model, graph, K, features)
    torch_reference.load_params(copy, tree)
    return {name: value.detach().numpy() for name, value in copy.named_parameters()}


@pytest.mark.parametrize("case", [case for case in CASES if case != "no edges"])
def test_logits_are_the_same(case, pair, jit):
    _, graph, batch, flax, params, model = pair(case)
    run = jit(lambda params, batch: flax.apply({"params": params}, batch, graph, train=False))
    expected, aux = run(params, on_device(batch))
    clips = tensors(batch)
    with torch.no_grad():
        logits, au_logits = model.eval()(clips.nodes, clips.times_ms, clips.frame_mask)
    assert np.std(expected, axis=0).min() > 1e-2 and np.std(aux["au_logits"]) > 1e-2
    np.testing.assert_allclose(logits.numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(au_logits.numpy(), aux["au_logits"], atol=2e-5)


@pytest.mark.parametrize("case", list(CASES)[:3])
def test_loss_and_gradients_are_the_same(case, pair, jit):
    config, graph, batch, flax, params, model = pair(case)
    rng = np.random.default_rng(3)
    share = rng.uniform(0.5, 1, len(batch.label)).astype(np.float32)
    other, weight = np.roll(batch.label, 1), np.array([0.5, 1.0, 2.0], np.float32)

    def loss_of(params):
        return flax_loss(config, flax, graph, params, on_device(batch), *map(jnp.asarray, (other, share, weight)))

    expected, grads = jit(jax.value_and_grad(loss_of))(params)
    mixed = tensors(batch), torch.from_numpy(other).long(), torch.from_numpy(share)
    loss = torch_reference.loss_of(model.train(), mixed, torch.from_numpy(weight), config.loss)
    loss.backward()
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    expected = parameters(model, config, graph, grads)
    assert set(found) == set(expected)
    largest = max(np.abs(value).max() for value in expected.values())
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-3, atol=1e-5 * largest, err_msg=name)
    idle = [name for name, value in expected.items() if not value.any()]
    assert case != "seven frames" or not idle


def test_the_optimiser_takes_the_same_steps(pair, jit):
    config, graph, _, _, params, model = pair("one frame")
    train = dataclasses.replace(config.train, steps=7, warmup_steps=2, weight_decay=0.5, learning_rate=0.1)
    config = dataclasses.replace(config, train=train)
    rng = np.random.default_rng(4)
    # Some below the norm at which gradients are clipped, most above.
    gradients = [
        jax.tree.map(lambda x, size=size: jnp.asarray(rng.normal(0, size, x.shape), jnp.float32), params)
        for size in (1e-3, 1.0, 1e-3, 0.1, 2.0, 1.0, 1.0)
    ]
    expected = parameters(model, config, graph, flax_updates(config, params, gradients, jit))
    optimizer, schedule = torch_reference.make_optimizer(train, model)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    for grads in gradients:
        for name, value in parameters(model, config, graph, grads).items():
            model.get_parameter(name).grad = torch.from_numpy(value)
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
        optimizer.step()
        schedule.step()
    for name, value in model.named_parameters():
        assert (value - start[name]).abs().max() > 1e-2
        np.testing.assert_allclose(value.detach().numpy(), expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("steps, warm_up", [(600, 50), (200, 50), (3, 50), (20, 0)])
def test_the_learning_rate_is_that_of_optax(steps, warm_up, pair, make_config):
    train = dataclasses.replace(make_config().train, steps=steps, warmup_steps=warm_up, learning_rate=2e-3)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, min(warm_up, steps - 1), steps)
    model = pair("one frame")[-1]
    optimizer, torch_schedule = torch_reference.make_optimizer(train, model)
    asked = {0, 1, 2, warm_up, steps // 2, steps - 1, steps, steps + 5}
    for step in range(steps + 6):
        if step in asked:
            rates = {group["lr"] for group in optimizer.param_groups}
            with jax.numpy_dtype_promotion("standard"):
                np.testing.assert_allclose(list(rates), [schedule(step)], rtol=1e-5, atol=1e-9)
        optimizer.step()
        torch_schedule.step()


@pytest.mark.parametrize("kind", ["grid", "roi"])
def test_statistics_are_the_same(kind, setting):
    config, graph, batch = setting(kind)
    batch = batch._replace(nodes=batch.nodes * 3 + 1)
    chosen = np.array([1, 1, 0, 1, 1, 1], np.float32)
    shown = Network(config.model, None, graph, K)
    expected = measure(shown, on_device(batch), jnp.asarray(chosen), config.loss.class_balance)
    clips = tensors(ClipBatch(*(field[chosen > 0] for field in batch)))
    found = torch_reference.measure(clips, with_tensors(graph), K, config.loss.class_balance)
    for one, other in zip(found, (expected.mean, expected.scale, expected.class_weight), strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-5, atol=1e-6)
    value = np.array([0.0, 0.02, 1.0, 3.0], np.float32)
    start = graph_ops.softplus_inverse(jnp.maximum(value, 1e-2))
    np.testing.assert_allclose(torch_reference.before_softplus(value).numpy(), start, rtol=1e-4)


def test_augmentation_without_chance_is_the_same(setting):
    _, graph, batch = setting("roi")
    config = dataclasses.replace(NO_CHANGE, mirror=1.0, frame_drop=1.0)
    d = batch.nodes.shape[-1]
    rng = np.random.default_rng(5)
    mean, scale = (x.astype(np.float32) for x in (rng.normal(size=d), rng.uniform(1, 2, d)))
    expected = augment.augment(on_device(batch), graph, jax.random.key(0), config)
    shown = Network(setting("roi")[0].model, None, graph, K)
    expected = normalise(shown, expected, Statistics(jnp.asarray(mean), jnp.asarray(scale), jnp.ones(K)))
    clips, other, share = torch_reference.augment(
        tensors(batch), torch.from_numpy(mean), torch.from_numpy(scale), with_tensors(graph), config
    )
    for name, value in clips._asdict().items():
        np.testing.assert_allclose(value.numpy(), getattr(expected, name), atol=1e-6, err_msg=name)
    assert (clips.frame_mask.sum(dim=1) == 1).all() and (share == 1).all() and (other == clips.label).all()


def test_augmentation_by_chance_has_the_sizes_asked_for(setting, make_batch):
    _, graph, _ = setting("roi")
    clips = tensors(make_batch(b=600))
    plain = torch.zeros(clips.nodes.shape[-1]), torch.ones(clips.nodes.shape[-1]), with_tensors(graph)

    def run(**changes):
        return torch_reference.augment(clips, *plain, dataclasses.replace(NO_CHANGE, **changes))

    gained = run(magnitude=0.2)[0]
    gain = (gained.nodes / clips.nodes).flatten(1)
    torch.testing.assert_close(gain, gain[:, :1].expand_as(gain), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(gained.magnitude / clips.magnitude, gain[:, :7], rtol=1e-3, atol=1e-3)
    assert 0.18 < gain[:, 0].log().std() < 0.22 and gain[:, 0].log().mean().abs() < 0.03
    noise = run(noise=0.1)[0].nodes - clips.nodes
    assert 0.098 < noise.std() < 0.102
    assert 0.08 < 1 - run(frame_drop=0.1)[0].frame_mask.float().mean() < 0.1
    flipped = (run(mirror=0.5)[0].nodes != clips.nodes).flatten(1).any(dim=1)
    assert 0.4 < flipped.float().mean() < 0.6

    mixed, other, share = run(mixup=0.4)
    assert share.min() >= 0.5 and share.max() <= 1
    # A Beta(0.4, 0.4) draw is off a half by 0.34 in the mean.
    assert 0.82 < share.mean() < 0.86
    own, before = share[:, None, None, None], clips.nodes.roll(1, dims=0)
    torch.testing.assert_close(mixed.nodes, own * clips.nodes + (1 - own) * before, atol=1e-5, rtol=1e-5)
    assert (other == clips.label.roll(1)).all() and (mixed.label == clips.label).all()


def test_dropout_takes_whole_features():
    kept = torch_reference.locked(torch.nn.Dropout(0.25), torch.ones(50, 7, 5, 8))
    assert (kept == kept[:, :, :1]).all()
    assert kept.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert 0.2 < (kept == 0).float().mean() < 0.3


def test_parameters_start_as_in_flax(setting, jit):
    config, graph, batch = setting("roi", width=64, gat_layers=1)
    flax = baselines.make_model(config.model, K)
    init = jit(lambda key, batch: flax.init(key, batch, graph, train=False)["params"])
    params = init(jax.random.key(1), on_device(batch))
    model = torch_reference.make_model(config.model, graph, K, batch.nodes.shape[-1])
    for name, value in parameters(model, config, graph, params).items():
        found = model.get_parameter(name).detach().numpy()
        if value.std() == 0 or name.startswith("connectivity"):
            np.testing.assert_allclose(found, value, rtol=1e-5, err_msg=name)
        elif value.size > 500:
            np.testing.assert_allclose(found.std(), value.std(), rtol=0.15, err_msg=name)
            np.testing.assert_allclose(np.abs(found).max(), np.abs(value).max(), rtol=0.15, err_msg=name)


def test_an_epoch_holds_each_clip_once():
    order = torch_reference.batches(11, 3, "cpu")
    rows = torch.cat([next(order) for _ in range(11)]).reshape(3, 11)
    assert (rows.sort(dim=1).values == torch.arange(11)).all()
    assert (rows[0] != rows[1]).any()


@pytest.fixture(scope="module")
def corpus(make_config, make_batch, face_graph):
    """Settings, a graph and 20 clips whose class is plain to see, of which two members see 15 each."""
    config = make_config(augment={"mixup": 0.4}, train={"steps": 60, "batch_size": 8, "warmup_steps": 5})
    batch = make_batch(b=20)
    field = 0.5 * np.array(batch.nodes)
    field[np.arange(20), :, np.array(batch.label)] += 2
    batch = ClipBatch(*map(np.array, batch._replace(nodes=field)))
    masks = np.ones((2, 20), np.float32)
    masks[0, :5] = masks[1, 5:10] = 0
    return config, face_graph, batch, masks


def test_training_lowers_the_loss(corpus):
    config, graph, batch, masks = corpus
    step = torch_reference.make_member(config, graph, batch, masks[0])
    losses = [step().item() for _ in range(60)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_held_out_clips_are_not_read(corpus):
    config, graph, batch, masks = corpus
    poisoned = batch._replace(nodes=np.where(masks[0][:, None, None, None] > 0, batch.nodes, np.float32(np.nan)))
    assert np.isfinite(torch_reference.make_member(config, graph, poisoned, masks[0])().item())


def test_steps_per_second_counts_all_members(corpus, monkeypatch):
    config, graph, batch, masks = corpus
    made, taken = [], []
    monkeypatch.setattr(torch_reference, "make_member", lambda *a, **k: made.append(a[3]) or (lambda: taken.append(1)))
    clock = iter([10.0, 12.0, 50.0, 53.0])
    monkeypatch.setattr(torch_reference.time, "perf_counter", lambda: next(clock))
    assert torch_reference.steps_per_second(config, graph, batch, masks, steps=5) == 10 / 5
    np.testing.assert_array_equal(made, masks)
    assert len(taken) == 2 * (5 + torch_reference.WARM_UP)


def test_steps_per_second_runs(corpus):
    assert torch_reference.steps_per_second(*corpus, steps=2) > 0


def test_what_is_not_written_is_refused(setting, pair):
    config, graph, batch = setting("roi", name="two_stream")
    with pytest.raises(UserError, match=r"^in torch there is stag in float32 only, not two_stream in float32$"):
        torch_reference.make_model(config.model, graph, K, 11)
    config, graph, batch = setting("roi", dtype="bfloat16")
    with pytest.raises(UserError, match=r"not stag in bfloat16$"):
        torch_reference.steps_per_second(config, graph, batch, np.ones((1, 6), np.float32), steps=1)
    *_, params, model = pair("one frame")
    with pytest.raises(RuntimeError, match=r"size mismatch for embed\.node"):
        torch_reference.load_params(model, params | {"embed": params["embed"] | {"node": jnp.ones((2, 8))}})
    with pytest.raises(RuntimeError, match=r"Missing key"):
        torch_reference.load_params(model, {name: value for name, value in params.items() if name != "logits"})


def test_without_torch_it_says_so(monkeypatch):
    assert torch_reference.available()
    monkeypatch.setitem(sys.modules, "torch", None)
    spec = importlib.util.spec_from_file_location("torch_reference_without_torch", torch_reference.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.available()
