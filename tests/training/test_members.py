"""All members as one program: equal to each alone, on any number of devices, in any chunks; and no collective."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stag_jax import config as config_lib
from stag_jax.training import fold, members
from stag_jax.training.roster import make_roster
from tests import makers

STEPS = 7
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


@pytest.fixture(scope="module")
def study():
    """Five subjects with unequal numbers of clips: task, batch, splits and the roster of two seeds (ten members)."""
    config = makers.tiny_config(train__steps=STEPS)
    task, batch, held_out = makers.random_study(config)
    return task, batch, held_out, make_roster(held_out, (0, 5)), config.parallel


def train(study, start=None, *, devices=1, **parallel):
    """All steps of all members, from `start` if given; and what they start from."""
    task, batch, _, who, settings = study
    parallel = dataclasses.replace(settings, **parallel)
    built = members.Members(task, batch, who, parallel, parallel.members_per_chunk or 10, jax.devices()[:devices])
    given = built.init() if start is None else built.place(start)
    start = built.gather(given)
    states, metrics = built.train(given, STEPS)
    # The states that it is given are used up, so that there is room for one more member.
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves([state.params for state in given]))
    return built.predict(states).logits, metrics["loss"], built, start


@pytest.fixture(scope="module")
def reference(study):
    with jax.numpy_dtype_promotion("standard"):
        return train(study)


def test_vmapped_folds_are_each_fold_alone(study, reference):
    task, batch, _, who, _ = study
    batch = jax.tree.map(jnp.asarray, batch)
    init = jax.jit(lambda m: fold.init(task, batch, m))
    step = jax.jit(lambda m, s: fold.train_steps(task, batch, m, s, jnp.int32(STEPS)))
    for index in (0, 3, 9):
        member = jax.tree.map(lambda x, index=index: jnp.asarray(x[index]), who.members)
        state, metrics = step(member, init(member))
        logits = fold.predict(task, batch, state, jnp.asarray(who.test_rows[index])).logits
        np.testing.assert_allclose(metrics["loss"], reference[1][index], rtol=1e-5)
        np.testing.assert_allclose(logits, reference[0][index], atol=2e-5)


def test_a_compiler_may_answer_later(study):
    task, batch, _, who, parallel = study
    given, answers = [], {}

    def compiler(lowered):
        given.append(lowered)
        return lambda *args: answers["late"](*args)

    with jax.numpy_dtype_promotion("standard"):
        built = members.Members(task, batch, who, parallel, 10, compiler=compiler)
    assert [type(lowered) for lowered in given] == [jax.stages.Lowered]
    answers["late"] = lambda batch, member, state, steps: (
        state,
        {"loss": np.asarray(member.train_mask).sum(axis=1) * steps},
    )
    _, metrics = built.train(built.place(fold.MemberState(*[np.zeros(10)] * 5)), 2)
    np.testing.assert_array_equal(metrics["loss"], 2 * who.members.train_mask.sum(axis=1))


@pytest.mark.parametrize(
    ("devices", "parallel", "layout"),
    [  # ten members divide by neither four nor eight
        (2, {"members_per_chunk": 2}, "10 members on 2 cpu devices, 2 a device in 3 chunks (sharded)"),
        (4, {}, "10 members on 4 cpu devices, 3 a device in 1 chunk (sharded)"),
        (8, {}, "10 members on 8 cpu devices, 2 a device in 1 chunk (sharded)"),
        (1, {"mode": "pmap", "members_per_chunk": 3}, "10 members on 1 cpu device, 3 a device in 4 chunks (pmap)"),
        (8, {"mode": "pmap"}, "10 members on 8 cpu devices, 2 a device in 1 chunk (pmap)"),
    ],
)
def test_devices_chunks_and_pmap_change_nothing(study, reference, devices, parallel, layout):
    # Where there are chunks the beginning is compared too; elsewhere it is given, which is quicker.
    given = None if "members_per_chunk" in parallel else reference[3]
    logits, loss, built, start = train(study, given, devices=devices, **parallel)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), start, reference[3])
    np.testing.assert_allclose(loss, reference[1], rtol=1e-5)
    np.testing.assert_allclose(logits, reference[0], atol=2e-5)
    assert built.layout == layout
    text = built.hlo()  # of the very program that has run
    assert "fusion" in text
    assert not [name for name in COLLECTIVES if name in text]


@pytest.mark.parametrize("devices", [2, 4])
def test_the_clips_of_a_step_over_devices_change_nothing(study, reference, devices):
    """Eleven clips a step divide by neither; each device has its part of them, the last one padded."""
    logits, loss, built, _ = train(study, reference[3], devices=devices, mode="data")
    np.testing.assert_allclose(loss, reference[1], rtol=1e-5)
    np.testing.assert_allclose(logits, reference[0], atol=2e-5)
    task, batch = study[:2]
    t, n = batch.nodes.shape[1:3]
    whole, part = (rf"f32\[10,{clips},{t},{n},\d+\]" for clips in (task.batch_size, -(-task.batch_size // devices)))
    assert re.search(whole, reference[2].hlo()) and not re.search(part, reference[2].hlo())
    assert re.search(part, built.hlo()) and "all-reduce" in built.hlo()


def test_how_many_go_at_once(study):
    task, batch, _, who, settings = study
    for parallel, expected in (
        ({}, 2),  # ten on eight devices
        ({"members_per_chunk": 1}, 1),
        ({"members_per_chunk": 99}, 2),
        ({"mode": "data"}, 1),
        ({"mode": "data", "members_per_chunk": 3}, 3),
    ):
        assert members.plan(task, batch, who, dataclasses.replace(settings, **parallel)).members == expected, parallel


TRIALS = {
    "low": {
        "train.learning_rate": 1e-3,
        "train.weight_decay": 0.3,
        "train.clip_norm": 0.2,
        "model.dropout": 0.4,
        "model.edge_dropout": 0.3,
        "loss.gamma": 0.5,
        "loss.lambda_au": 2.0,
        "loss.label_smoothing": 0.2,
        "loss.class_balance": 0.3,
        "augment.mirror": 0.7,
        "augment.magnitude": 0.5,
        "augment.noise": 0.2,
        "augment.frame_drop": 0.3,
        "augment.mixup": 0.4,
        "distil.weight": 0.3,
        "distil.temperature": 3.0,
    },
    "high": {
        "train.learning_rate": 1e-2,
        "train.weight_decay": 0.0,
        "train.clip_norm": 5.0,
        "model.dropout": 0.1,
        "model.edge_dropout": 0.1,
        "loss.gamma": 2.0,
        "loss.lambda_au": 0.1,
        "loss.label_smoothing": 0.05,
        "loss.class_balance": 1.0,
        "augment.mirror": 0.2,
        "augment.magnitude": 0.1,
        "augment.noise": 0.05,
        "augment.frame_drop": 0.1,
        "augment.mixup": 1.0,
        "distil.weight": 0.8,
        "distil.temperature": 1.5,
    },
}


def test_members_that_differ_in_settings_are_each_a_run_with_these_settings(study):
    """All settings that may differ, at once; alone they are plain numbers of the config."""
    assert sorted(TRIALS["low"]) == sorted(config_lib.tunable_keys()) == sorted(TRIALS["high"])
    config = makers.tiny_config(train__steps=STEPS, model__gat_layers=1)
    task, batch, held_out = makers.random_study(config, frames=3, counts=(7, 5, 6))
    soft = np.log(np.random.default_rng(8).dirichlet((1, 1, 1), (3, 18))).astype(np.float32)
    who = make_roster(held_out, (4,), TRIALS, soft)
    built = members.Members(task, batch, who, config.parallel, 6, jax.devices()[:1])
    states, metrics = built.train(built.init(), STEPS)
    said = built.predict(states)
    weight = built.gather([state.statistics.class_weight for state in states])
    assert who.names[5] == "trial high, s2 seed 4"
    batch = jax.tree.map(jnp.asarray, batch)
    for index, trial in ((1, "low"), (5, "high")):
        own = task._replace(config=config_lib.replace(config, TRIALS[trial]))
        own = fold.make_task(own.config, task.network.graph, task.batch_size)
        member = jax.tree.map(lambda x, index=index: jnp.asarray(x[index]), who.members)._replace(tuned={})
        state = jax.jit(lambda m, own=own: fold.init(own, batch, m))(member)
        state, alone = jax.jit(lambda m, s, own=own: fold.train_steps(own, batch, m, s, jnp.int32(STEPS)))(
            member, state
        )
        np.testing.assert_allclose(alone["loss"], metrics["loss"][index], rtol=1e-5)
        np.testing.assert_allclose(alone["update_norm"], metrics["update_norm"][index], rtol=1e-4)
        np.testing.assert_allclose(state.statistics.class_weight, weight[index], rtol=1e-6)
        found = fold.predict(own, batch, state, jnp.asarray(who.test_rows[index]))
        for ours, theirs in zip(found, said, strict=True):
            np.testing.assert_allclose(ours, theirs[index], atol=2e-5)


def test_the_roster_names_who_is_held_out(study):
    _, _, held_out, who, _ = study
    assert who.names[6] == "s1 seed 5"
    assert who.members.train_mask.shape == (10, 23)
    for index in range(10):
        rows = who.test_rows[index][who.test_mask[index] > 0]
        np.testing.assert_array_equal(rows, np.flatnonzero(held_out.test_mask[index % 5]))
        assert not who.members.train_mask[index][rows].any()
        assert who.members.train_mask[index].sum() + len(rows) == 23
