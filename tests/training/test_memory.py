"""How many members go at once: from shapes alone, and never fewer than one."""

import sys
from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from stag_jax.model import network
from stag_jax.training import fold, members, memory
from stag_jax.training.roster import make_roster
from tests import makers


def setting(batch_size, **changes):
    """A task, its clips, and the shapes of one member."""
    changes = {"model__gat_layers": 1, "model__transformer_layers": 1, **changes}
    config = makers.tiny_config(train__batch_size=batch_size, **changes)
    task, batch, held_out = makers.random_study(config, frames=3, counts=(20, 20, 20))
    return task, batch, members._first(make_roster(held_out, (0,)).members)


def test_what_a_member_keeps_grows_with_the_clips_of_a_step():
    few, more, most = (memory.need(*setting(size)) for size in (8, 16, 32))
    assert few.state == more.state == most.state
    first, second = more.activations - few.activations, most.activations - more.activations
    assert first > 0 and second == pytest.approx(2 * first, rel=1e-3)
    # Parameters are kept too, whatever the number of clips.
    assert 0 <= few.activations - first < few.state


def test_the_state_is_counted_to_the_byte():
    """Parameters, their two moments, three statistics, and four counters: of steps, Adam, the schedule, a bad loss."""
    task, batch, member = setting(8)
    example = jax.tree.map(lambda x: jnp.asarray(x[:1]), batch)
    params = jax.eval_shape(lambda: network.init(task.network, jax.random.key(0), example))
    numbers = sum(leaf.size for leaf in jax.tree.leaves(params))
    d = batch.nodes.shape[-1]
    assert memory.need(task, batch, member).state == 4 * (3 * numbers + 2 * d + task.network.classes + 4)


@pytest.mark.parametrize("changes", [{}, {"model__gat_layers": 0, "model__transformer_layers": 0, "model__width": 32}])
def test_the_estimate_is_near_what_the_compiler_allocates(changes):
    task, batch, member = setting(32, **changes)

    def gradient(params, mixed, statistics, key):
        return jax.grad(lambda params: fold.loss_fn(task, params, mixed, statistics, key)[0])(params)

    def inputs(batch, member):
        state = fold.init(task, batch, member)
        mixed, key = fold.training_clips(task, batch, member, state)
        return state.params, mixed, state.statistics, key

    program = jax.jit(gradient).lower(*jax.eval_shape(inputs, batch, member)).compile()
    used = program.memory_analysis().temp_size_in_bytes
    estimate = memory.BACKWARD * memory.need(task, batch, member).activations
    assert used / 2.5 < estimate < 2.5 * used


def device(free, platform="gpu", in_use=0):
    stats = {"bytes_limit": free + in_use, "bytes_in_use": in_use}
    return mock.Mock(spec=jax.Device, platform=platform, memory_stats=lambda: stats)


NEED = memory.MemoryNeed(state=1000, activations=2000)  # 3 * 1000 + 1.5 * 2000 = 6000 bytes in all


@pytest.mark.parametrize(
    ("free", "fixed", "wanted", "asked", "expected", "reason"),
    [
        (10**9, 0, 7, 3, 3, "as config.parallel.members_per_chunk says"),
        (10, 0, 7, 3, 3, "as config.parallel.members_per_chunk says"),
        (10**9, 0, 7, 12, 7, "as config.parallel.members_per_chunk says"),
        (10**9, 0, 7, 0, 7, "all at once"),
        (56_000, 0, 7, 0, 7, "all at once"),  # three quarters of this is 7 * 6000
        (55_999, 0, 7, 0, 6, "75% of the memory that is free"),
        (56_000, 7_000, 7, 0, 5, "75% of the memory that is free"),
        (10, 0, 7, 0, 1, "75% of the memory that is free"),
        (56_000, 10**9, 7, 0, 1, "75% of the memory that is free"),
        (10, 0, 1, 0, 1, "all at once"),
    ],
)
def test_the_plan_follows_the_memory(free, fixed, wanted, asked, expected, reason):
    assert NEED.total == 6000
    for in_use in (0, 12_345):
        planned = memory.plan(NEED, fixed, device(free, in_use=in_use), wanted, 1, asked)
        assert planned == memory.Fit(expected, NEED, reason)


def test_a_cpu_takes_few_at_once(monkeypatch):
    third = memory.MemoryNeed(state=10, activations=int(memory.CPU_CHUNK_BYTES / 3))
    for required, wanted, expected in ((third, 7, 3), (third, 2, 2), (NEED, 7, 7)):
        assert memory.plan(required, 0, device(10**12, "cpu"), wanted, 1).members == expected
    large = memory.MemoryNeed(state=10, activations=int(2 * memory.CPU_CHUNK_BYTES))
    assert memory.plan(large, 0, device(10**12, "cpu"), 7, 1).members == 1
    assert memory.plan(large, 0, device(10**12), 7, 1).members == 7
    # Without figures of its own a device shares what the host has left.
    monkeypatch.setattr(memory, "available", lambda: 2 * 56_000.0)
    bare = mock.Mock(spec=jax.Device, platform="cpu", memory_stats=lambda: None)
    assert [memory.plan(NEED, 0, bare, 100, count).members for count in (1, 2, 4)] == [14, 7, 3]


def test_host_memory_is_known_without_psutil(monkeypatch):
    known = memory.available()
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert 0 < memory.available() < 10 * known
