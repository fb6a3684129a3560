"""One member: its rows, its statistics, and that it learns from nothing but its training clips."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stag_jax import config as config_lib
from stag_jax.model import network
from stag_jax.model.graph import mirror
from stag_jax.motion import nodes
from stag_jax.training import augment, fold, optim
from stag_jax.types import ClipBatch
from tests import makers


@pytest.fixture(scope="module")
def setting():
    """A task, a batch of 23 clips on a 3 x 3 grid with AU labels, and a member that trains on 17 of them."""
    config = makers.tiny_config(train__steps=6, model__gat_layers=1)
    rng = np.random.default_rng(5)
    graph = nodes.graph(config.graph, config.motion)
    b, t, n, d, u = 23, 3, len(graph.node_names), len(graph.feature_mirror), len(graph.units)
    frame_mask = np.ones((b, t), bool)
    frame_mask[::5, 2] = False
    batch = ClipBatch(
        nodes=rng.normal(size=(b, t, n, d)).astype(np.float32),
        times_ms=np.cumsum(rng.uniform(5, 50, (b, t)), axis=1).astype(np.float32),
        magnitude=rng.uniform(0.1, 2, (b, t)).astype(np.float32),
        frame_mask=frame_mask,
        au=rng.integers(0, 2, (b, u)).astype(np.float32),
        au_mask=rng.random((b, u)) < 0.8,
        label=(np.arange(b) % 3).astype(np.int32),
    )
    mask = np.ones(b, np.float32)
    mask[[1, 4, 8, 11, 16, 20]] = 0
    member = fold.Member(mask, np.int32(3), np.int32(2), {})
    task = fold.make_task(config, graph, 17)
    # Compiled once for all tests of this file.
    init = jax.jit(lambda batch, member: fold.init(task, batch, member))
    steps = jax.jit(lambda batch, member, state, count: fold.train_steps(task, batch, member, state, count))
    return SimpleNamespace(task=task, batch=batch, member=member, init=init, steps=steps)


def on_device(tree):
    return jax.tree.map(jnp.asarray, tree)


def start(setting, batch=None, member=None):
    return setting.init(on_device(batch or setting.batch), on_device(member or setting.member))


def train(setting, count, batch=None, state=None):
    batch = on_device(batch or setting.batch)
    state = state or setting.init(batch, on_device(setting.member))
    return setting.steps(batch, on_device(setting.member), state, jnp.int32(count))


def test_a_batch_holds_training_clips_only_and_an_epoch_holds_each_once():
    mask = np.array([1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1], np.float32)  # 11 of 13
    key = jax.random.key(7)
    rows = np.concatenate([fold.batch_rows(key, jnp.asarray(mask), jnp.int32(step), 3) for step in range(11)])
    assert set(rows) <= set(np.flatnonzero(mask))
    for epoch in rows.reshape(3, 11):
        np.testing.assert_array_equal(np.sort(epoch), np.flatnonzero(mask))
    assert not np.array_equal(rows[:11], rows[11:22])


def test_statistics_are_those_of_the_training_rows_and_their_mirror_image(setting):
    task, batch, member = setting.task, setting.batch, setting.member
    measured = network.measure(task.network, on_device(batch), jnp.asarray(member.train_mask), 0.5)
    chosen = batch.nodes[member.train_mask > 0][batch.frame_mask[member.train_mask > 0]]  # frames n d
    graph = task.network.graph
    flipped = chosen[:, graph.mirror][..., graph.feature_mirror] * graph.feature_sign
    both = np.concatenate([chosen, flipped]).reshape(-1, chosen.shape[-1])
    np.testing.assert_allclose(measured.mean, both.mean(axis=0), atol=1e-5)
    # Spread around the common mean, averaged over a feature and its mirror image.
    np.testing.assert_allclose(measured.scale, both.std(axis=0), rtol=1e-4)
    counts = np.bincount(batch.label[member.train_mask > 0], minlength=3)
    np.testing.assert_allclose(np.sum(measured.class_weight * counts), counts.sum(), rtol=1e-5)


def test_held_out_clips_change_no_bit_of_the_parameters(setting):
    batch, member = setting.batch, setting.member
    out = member.train_mask == 0
    rng = np.random.default_rng(11)
    poisoned = batch._replace(
        nodes=np.where(out[:, None, None, None], np.float32(np.nan), batch.nodes),
        times_ms=np.where(out[:, None], np.float32(1e9), batch.times_ms),
        magnitude=np.where(out[:, None], np.float32(-5), batch.magnitude),
        frame_mask=np.where(out[:, None], rng.random(batch.frame_mask.shape) < 0.5, batch.frame_mask),
        au=np.where(out[:, None], 1 - batch.au, batch.au),
        au_mask=np.where(out[:, None], ~batch.au_mask, batch.au_mask),
        label=np.where(out, (batch.label + 1) % 3, batch.label).astype(np.int32),
    )
    clean, metrics = train(setting, 5)
    dirty, _ = train(setting, 5, poisoned)
    assert np.isfinite(metrics["loss"])
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_training_clips_do_change_the_parameters(setting):
    batch = setting.batch
    other = batch._replace(nodes=batch.nodes + (np.arange(23) == 0).astype(np.float32)[:, None, None, None])
    a, b = train(setting, 2)[0], train(setting, 2, other)[0]
    assert any(
        not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True)
    )


def test_steps_in_one_dispatch_or_in_several_are_the_same(setting):
    whole, _ = train(setting, 5)
    parts, _ = train(setting, 2)
    parts, _ = train(setting, 3, state=parts)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert int(whole.step) == 5


def test_one_trace_serves_all_counts(setting):
    for count in (1, 2, 4):
        train(setting, count)
    assert setting.steps._cache_size() == 1


def test_seeds_and_folds_have_their_own_randomness(setting):

    def kernel(seed, number):
        return start(setting, member=setting.member._replace(seed=np.int32(seed), fold=np.int32(number))).params[
            "embed"
        ]["patch"]["kernel"]

    kernels = [kernel(3, 2), kernel(3, 2), kernel(4, 2), kernel(3, 1)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2]) and not np.array_equal(kernels[0], kernels[3])


def test_cooccurrence_starts_from_the_training_clips(setting):
    batch, member = setting.batch, setting.member
    raw = start(setting).params["connectivity"]["cooccurrence"]
    value = np.asarray(jax.nn.softplus(raw))
    i, j = 0, 3
    seen = batch.au * batch.au_mask * member.train_mask[:, None]
    known = batch.au_mask * member.train_mask[:, None]
    both = sum(seen[c, i] * seen[c, j] for c in range(23))
    either = sum(max(seen[c, i], seen[c, j]) * known[c, i] * known[c, j] for c in range(23))
    np.testing.assert_allclose(value[i, j], both / (either + 1), rtol=1e-3)
    np.testing.assert_allclose(np.diag(value), 1, rtol=1e-4)


def test_a_loss_that_is_not_finite_is_remembered_by_its_step(setting):
    batch, member = setting.batch, setting.member
    broken = batch._replace(nodes=np.where(member.train_mask[:, None, None, None] > 0, np.float32(np.inf), batch.nodes))
    state, _ = train(setting, 4, broken)
    assert int(state.bad_step) == 0
    good, _ = train(setting, 4)
    assert int(good.bad_step) == -1


def test_mirror_twice_is_the_clip_itself_and_moves_left_to_right(setting):
    task, batch = setting.task, setting.batch
    twice = mirror(mirror(jnp.asarray(batch.nodes), task.network.graph), task.network.graph)
    np.testing.assert_array_equal(np.asarray(twice), batch.nodes)
    once = np.asarray(mirror(jnp.asarray(batch.nodes), task.network.graph))
    left, right = task.network.graph.node_names.index("r1c0"), task.network.graph.node_names.index("r1c2")
    mean_v = len(task.network.graph.feature_mirror) - 5  # pooled: u, v, strain, magnitude, spread of u, of v
    np.testing.assert_array_equal(once[:, :, left, mean_v], batch.nodes[:, :, right, mean_v])
    np.testing.assert_array_equal(once[:, :, left, mean_v - 1], -batch.nodes[:, :, right, mean_v - 1])


def test_frames_are_dropped_at_the_rate_asked_and_the_strongest_never(setting):
    batch = setting.batch
    jbatch = on_device(batch)
    kept = np.stack([augment.drop_frames(jbatch, jax.random.key(i), 0.4) for i in range(200)])
    strongest = np.argmax(np.where(batch.frame_mask, batch.magnitude, -1), axis=1)
    assert kept[:, np.arange(23), strongest].all()
    assert not (kept & ~batch.frame_mask).any()
    others = batch.frame_mask.copy()
    others[np.arange(23), strongest] = False
    assert abs(kept[:, others].mean() - 0.6) < 0.02


def test_weight_decay_acts_on_kernels_only(setting):
    params = start(setting).params
    marked = optim.decayed(params)
    flat = jax.tree_util.tree_flatten_with_path(marked)[0]
    assert {path[-1].key for path, yes in flat if yes} == {"kernel"}
    assert {"adjacency", "cooccurrence", "node", "bias", "scale"} <= {path[-1].key for path, yes in flat if not yes}


def answer(setting, state, batch, **changes):
    model = dataclasses.replace(setting.task.config.model, **changes)
    asked = setting.task.network._replace(config=model)
    weights = network.Weights(state.params, state.statistics)
    return jax.jit(lambda batch: network.forward(asked, weights, batch))(on_device(batch))


def test_a_flipped_face_gets_the_same_answer(setting):
    state, _ = train(setting, 6)
    flipped = setting.batch._replace(nodes=mirror(jnp.asarray(setting.batch.nodes), setting.task.network.graph))
    expected, aux = answer(setting, state, setting.batch)
    found, flipped_aux = answer(setting, state, flipped)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(flipped_aux["au_logits"], aux["au_logits"], atol=1e-5)
    # What is seen where stays the clip's own, and the answer is the mean over both.
    assert np.abs(flipped_aux["space_attention_0"] - aux["space_attention_0"]).max() > 1e-3
    plain, plain_aux = answer(setting, state, setting.batch, symmetric=False)
    other, other_aux = answer(setting, state, flipped, symmetric=False)
    assert np.abs(plain - other).max() > 1e-3
    np.testing.assert_allclose(expected, (plain + other) / 2, atol=1e-5)
    np.testing.assert_allclose(aux["au_logits"], (plain_aux["au_logits"] + other_aux["au_logits"]) / 2, atol=1e-5)


@pytest.mark.parametrize("known", ["none", "some", "all"])
def test_action_units_may_be_unlabelled_partly_labelled_or_all_labelled(setting, known):
    shape = setting.batch.au.shape
    mask = {"none": np.zeros(shape, bool), "some": setting.batch.au_mask, "all": np.ones(shape, bool)}[known]
    batch = setting.batch._replace(au_mask=mask)
    state, metrics = train(setting, 4, batch)
    assert int(state.bad_step) == -1 and (float(metrics["au_loss"]) > 0) == (known != "none")
    # The head learns in any case, for it also guides the attention; what is not labelled changes no bit.
    before = start(setting, batch).params["au"]["weight"]
    assert np.abs(state.params["au"]["weight"] - before).max() > 1e-4
    other, _ = train(setting, 4, batch._replace(au=np.where(mask, batch.au, 1 - batch.au)))
    for one, two in zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(one, two)


def test_half_precision_agrees_and_keeps_parameters_whole(setting):
    """bfloat16 has 8 bits of mantissa, 0.4%; over the whole network logits differ by less than 3% of their range."""
    state, _ = train(setting, 6)
    expected, _ = answer(setting, state, setting.batch)
    found, _ = answer(setting, state, setting.batch, dtype="bfloat16")
    assert found.dtype == jnp.float32
    span = float(jnp.ptp(expected))
    assert 1e-5 * span < np.abs(found - expected).max() < 0.03 * span


def test_mixup_adds_some_of_the_next_clip(setting):
    batch = on_device(setting.batch)
    mixed = augment.mixup(batch, jax.random.key(3), 0.4)
    share = np.asarray(mixed.share)
    assert ((share >= 0.5) & (share <= 1)).all() and share.std() > 0.05
    for index in range(23):
        other = (index - 1) % 23
        expected = share[index] * setting.batch.nodes[index] + (1 - share[index]) * setting.batch.nodes[other]
        np.testing.assert_allclose(mixed.clips.nodes[index], expected, atol=1e-5)
        assert mixed.other_label[index] == setting.batch.label[other]
        both = setting.batch.au_mask[index] & setting.batch.au_mask[other]
        np.testing.assert_array_equal(mixed.clips.au_mask[index], both)
        units = share[index] * setting.batch.au[index] + (1 - share[index]) * setting.batch.au[other]
        np.testing.assert_allclose(mixed.clips.au[index], units, atol=1e-6)
    np.testing.assert_array_equal(mixed.clips.label, setting.batch.label)
    np.testing.assert_array_equal(mixed.clips.times_ms, setting.batch.times_ms)
    # Beta(alpha, alpha) leans to 0 and 1 the more, the smaller alpha is.
    timid = augment.mixup(batch, jax.random.key(3), 0.05)
    assert timid.share.mean() > mixed.share.mean() + 0.05
    none = augment.mixup(batch, jax.random.key(3), 0.0)
    np.testing.assert_array_equal(none.clips.nodes, setting.batch.nodes)
    assert (none.share == 1).all()


def test_the_loss_of_mixed_clips_is_shared_between_both_labels(setting):
    state = start(setting)
    batch = on_device(setting.batch)

    def loss(label, other_label, share):
        mixed = augment.Mixed(batch._replace(label=label), other_label, jnp.full(23, share))
        return float(fold.loss_fn(setting.task, state.params, mixed, state.statistics, jax.random.key(0))[0])

    one, two = batch.label, (batch.label + 1) % 3
    au = loss(one, one, 0.7) - loss(one, one, 1.0)
    np.testing.assert_allclose(au, 0, atol=1e-6)
    np.testing.assert_allclose(loss(one, two, 0.7), 0.7 * loss(one, one, 1.0) + 0.3 * loss(two, two, 1.0), rtol=1e-5)


def taught(setting, seed=1):
    """Log-probabilities that a teacher might have, of each clip."""
    return np.log(np.random.default_rng(seed).dirichlet((1, 1, 1), 23)).astype(np.float32)


def with_weight(setting, weight, **changes):
    values = {"distil.weight": weight, "distil.temperature": 3.0, **changes}
    return setting.task._replace(config=config_lib.replace(setting.task.config, values))


def steps(task, batch, member, count=4):
    batch, member = on_device(batch), on_device(member)
    state = jax.jit(lambda m: fold.init(task, batch, m))(member)
    return jax.jit(lambda m, s: fold.train_steps(task, batch, m, s, jnp.int32(count)))(member, state)


def test_a_teacher_without_a_share_changes_no_bit(setting):
    alone, _ = train(setting, 4)
    member = setting.member._replace(soft=taught(setting))
    for one, two in zip(
        jax.tree.leaves(alone), jax.tree.leaves(steps(with_weight(setting, 0.0), setting.batch, member)[0]), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    some, metrics = steps(with_weight(setting, 0.5), setting.batch, member)
    assert metrics["teacher_loss"] > 0
    assert any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(alone), jax.tree.leaves(some), strict=True))


def test_what_a_teacher_would_say_of_held_out_clips_changes_no_bit(setting):
    soft = taught(setting)
    dirty = np.where(setting.member.train_mask[:, None] > 0, soft, np.float32(np.nan))
    task = with_weight(setting, 0.7, **{"augment.mixup": 0.4})
    one, two = (steps(task, setting.batch, setting.member._replace(soft=each))[0] for each in (soft, dirty))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert int(two.bad_step) == -1


def test_the_share_of_the_teacher(setting):
    state, batch, soft = start(setting), on_device(setting.batch), jnp.asarray(taught(setting))

    def loss(weight, share=1.0):
        mixed = augment.Mixed(batch, batch.label, jnp.full(23, share), soft, jnp.roll(soft, 1, axis=0))
        task, key = with_weight(setting, weight), jax.random.key(0)
        return fold.loss_fn(task, state.params, mixed, state.statistics, key)[0]

    labels = augment.Mixed(batch, batch.label, jnp.ones(23))
    alone = fold.loss_fn(setting.task, state.params, labels, state.statistics, jax.random.key(0))[0]
    np.testing.assert_allclose(loss(0.0), alone, rtol=1e-6)
    np.testing.assert_allclose(loss(0.3), 0.7 * alone + 0.3 * loss(1.0), rtol=1e-5)
    # Of clips mixed, both their answers count by their shares.
    np.testing.assert_allclose(loss(1.0, 0.6), 0.6 * loss(1.0, 1.0) + 0.4 * loss(1.0, 0.0), rtol=1e-5)


def test_mixup_keeps_the_answers_with_their_clips(setting):
    soft = jnp.asarray(taught(setting))
    mixed = augment.mixup(on_device(setting.batch), jax.random.key(3), 0.4, soft)
    for index in range(23):
        np.testing.assert_array_equal(mixed.soft[index], soft[index])
        np.testing.assert_array_equal(mixed.other_soft[index], soft[(index - 1) % 23])
        assert mixed.other_label[index] == setting.batch.label[(index - 1) % 23]


def test_the_answers_of_a_step_are_those_to_its_clips(setting):
    """Told by a number of its own in each row."""
    soft = jnp.tile(jnp.arange(23, dtype=jnp.float32)[:, None], (1, 3))
    batch = setting.batch._replace(times_ms=np.tile(np.arange(23, dtype=np.float32)[:, None], (1, 3)))
    batch, member = on_device(batch), on_device(setting.member)._replace(soft=soft)
    mixed, _ = fold.training_clips(with_weight(setting, 0.5), batch, member, start(setting))
    np.testing.assert_array_equal(mixed.soft[:, 0], mixed.clips.times_ms[:, 0])
