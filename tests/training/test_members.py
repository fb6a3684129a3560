"""All members as one program: equal to each alone, on any number of devices, in any chunks; and no collective."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stag_jax.motion import nodes
from stag_jax.protocol import splits
from stag_jax.training import fold, members
from stag_jax.training.roster import make_roster
from stag_jax.types import ClipBatch, UserError
from tests import makers

STEPS = 7
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


@pytest.fixture(scope="module")
def study():
    """Five subjects with unequal numbers of clips: task, batch, splits and the roster of two seeds (ten members)."""
    config = makers.tiny_config(train__steps=STEPS)
    graph = nodes.graph(config.graph, config.motion)
    rng = np.random.default_rng(3)
    subjects = [f"s{i}" for i, count in enumerate((7, 3, 5, 2, 6)) for _ in range(count)]
    b, t, n, d, u = len(subjects), 1, len(graph.node_names), len(graph.feature_mirror), len(graph.units)
    label = (np.arange(b) % 3).astype(np.int32)
    batch = ClipBatch(
        nodes=(rng.normal(size=(b, t, n, d)) + label[:, None, None, None]).astype(np.float32),
        times_ms=np.zeros((b, t), np.float32),
        magnitude=np.ones((b, t), np.float32),
        frame_mask=np.ones((b, t), bool),
        au=np.zeros((b, u), np.float32),
        au_mask=np.zeros((b, u), bool),
        label=label,
    )
    held_out = splits.loso(subjects)
    task = fold.make_task(config, graph, int((~held_out.test_mask).sum(axis=1).min()))
    return task, batch, held_out, make_roster(held_out, (0, 5)), config.parallel


def train(study, *, devices=1, **parallel):
    task, batch, _, who, settings = study
    parallel = dataclasses.replace(settings, **parallel)
    built = members.build(task, batch, who, parallel, parallel.members_per_chunk or 10, jax.devices()[:devices])
    states, metrics = built.train(built.init(), STEPS)
    return built.predict(states).logits, metrics["loss"], built


@pytest.fixture(scope="module")
def reference(study):
    with jax.numpy_dtype_promotion("standard"):
        logits, loss, _ = train(study)
    return logits, loss


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


@pytest.mark.parametrize(
    ("devices", "parallel"),
    [
        (4, {}),  # ten members do not divide by four
        (1, {"members_per_chunk": 3}),
        (2, {"members_per_chunk": 2}),
        (1, {"mode": "pmap"}),
        (4, {"mode": "pmap"}),
    ],
)
def test_devices_chunks_and_pmap_change_nothing(study, reference, devices, parallel):
    logits, loss, _ = train(study, devices=devices, **parallel)
    np.testing.assert_allclose(loss, reference[1], rtol=1e-5)
    np.testing.assert_allclose(logits, reference[0], atol=2e-5)


def test_the_compiled_step_holds_no_collective(study):
    task, batch, _, who, settings = study
    # The text of the very program that `build` runs.
    built = members.build(task, batch, who, settings, 10, jax.devices()[:4])
    text = built.hlo()
    assert "fusion" in text
    assert not [name for name in COLLECTIVES if name in text]
    assert built.layout == "10 members on 4 cpu devices, 3 a device in 1 chunk (sharded)"


def test_the_roster_names_who_is_held_out(study):
    _, _, held_out, who, _ = study
    assert who.names[6] == "s1 seed 5"
    assert who.members.train_mask.shape == (10, 23)
    for index in range(10):
        rows = who.test_rows[index][who.test_mask[index] > 0]
        np.testing.assert_array_equal(rows, np.flatnonzero(held_out.test_mask[index % 5]))
        assert not who.members.train_mask[index][rows].any()
        assert who.members.train_mask[index].sum() + len(rows) == 23


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_must_differ(study, seeds):
    with pytest.raises(UserError, match=r"config\.seeds"):
        make_roster(study[2], seeds)


def test_an_unknown_mode_is_named(study):
    with pytest.raises(UserError, match=r"config\.parallel\.mode 'threads'"):
        train(study, mode="threads")
