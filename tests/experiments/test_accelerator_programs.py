"""Programs of the measurement of an accelerator: compiled ahead, in order, by threads; and what is done with them."""

import sys
import threading
import time
import types

import jax
import numpy as np
import pytest

from stag_experiments.benchmarks import random_study
from stag_experiments.benchmarks.accelerator import bench, measured, process, session, sizes, worker
from stag_experiments.benchmarks.accelerator.programs import Program, Programs
from stag_experiments.benchmarks.accelerator.schedule import Part
from stag_jax.training import fold


def wait_for(condition, limit=20.0):
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_made_up_states_train_like_others():
    setting = bench.Bench(sizes.TINY_SIZE, {}).setting(bench.COMPOSITE, 1)
    member, state = jax.tree.map(lambda x: x[0], (setting.roster.members, random_study.stacked_states(setting)))
    shapes = jax.eval_shape(lambda batch, member: fold.init(setting.task, batch, member), setting.batch, member)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)
    with jax.numpy_dtype_promotion("standard"):  # optax's own steps mix dtypes
        train = jax.jit(lambda *args: fold.train_steps(setting.task, *args))
        state, metrics = train(setting.batch, member, state, np.int32(3))
    assert int(state.step) == 3 and int(state.bad_step) == -1 and np.isfinite(metrics["loss"])


def known_by(told, *wanted, threads=8, known=None):
    """Returns programs that are not begun yet; the names of those that are finished go to the list `told`."""
    return Programs(wanted, threads, lambda name, seconds: told.append(name), known or {})


def test_programs_are_traced_in_order_and_compiled_beside_each_other():
    together, traced, told = threading.Barrier(4, timeout=20), [], []

    def build(name, later):
        traced.append(name)
        return later(lambda: together.wait() >= 0)  # none is finished before all are begun

    wanted = (Program(name, lambda later, name=name: build(name, later)) for name in "cabdca")
    made = known_by(told, *wanted, threads=4)
    made.begin()
    assert all(made.get(name).result() for name in "abcd")
    wait_for(lambda: len(told) == 4)
    assert traced == list("cabd") and sorted(told) == list("abcd")


def test_a_program_that_waits_for_another_keeps_nobody_waiting():
    told, gate = [], threading.Event()
    made = known_by(
        told,
        Program("last", lambda later, slow: slow.result(), after=("slow",)),
        Program("slow", lambda later: later(lambda: gate.wait(20))),
        Program("quick", lambda later: None),
    )
    made.begin()
    wait_for(lambda: told == ["quick"])
    gate.set()
    wait_for(lambda: told == ["quick", "slow", "last"])


def test_nothing_is_traced_while_something_is_measured():
    traced = threading.Event()
    made = known_by([], Program("a", lambda later: traced.set()))
    with made.quiet():
        made.begin()
        assert not traced.wait(0.2)
    assert traced.wait(20)


def test_a_program_that_fails_is_told_and_raises_where_it_is_used():
    def fail():
        raise ValueError("it is broken")

    told = []
    made = known_by(
        told,
        Program("traces", lambda later: fail()),
        Program("compiles", lambda later: later(fail)),
        Program("follows", lambda later, *broken: None, after=("traces", "compiles")),
        known={"compiles": 12.5},
    )
    made.begin()
    wait_for(lambda: len(told) == 3)
    for use in (lambda: made.get("traces"), lambda: made.get("follows"), lambda: made.get("compiles")(1)):
        with pytest.raises(ValueError, match="it is broken"):
            use()
    assert made.seconds("compiles") == 12.5  # of the process that compiled it


def refuse(most, tried):
    """Returns the jobs of a part for a device that takes no more than `most` at once."""

    def job(count):
        def measure(clock, study):
            tried.append(study)
            if study > most:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")
            yield {"at once": study}

        def smaller(study):
            return job(study // 2) if study > 1 else None

        return bench.Job(f"{count}", "memory", 1, measure, (Program(f"{count}", lambda later: count),), 0, smaller)

    return lambda bench: [job(340)]


@pytest.mark.parametrize(("most", "tried"), [(100, [340, 170, 85]), (0, [340, 170, 85, 42, 21, 10, 5, 2, 1])])
def test_a_count_is_halved_until_the_device_takes_it(most, tried, monkeypatch):
    seen, sent = [], []
    monkeypatch.setitem(sys.modules, f"{worker.PACKAGE}.refusing", types.SimpleNamespace(jobs=refuse(most, seen)))
    parts = [{"name": "refusing", "module": "refusing"}]
    command = {"size": sizes.TINY, "facts": {"_threads": 1}, "parts": parts, "done": []}
    measuring = worker.Worker(command, sent.append)
    measuring.begin()
    names = [f"refusing: {count}" for count in tried]
    for name in names[:-1]:
        measuring.measure({"facts": {}, "job": name, "seconds": 1.0})
    if most:
        measuring.measure({"facts": {}, "job": names[-1], "seconds": 1.0})
    else:
        with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
            measuring.measure({"facts": {}, "job": names[-1], "seconds": 1.0})
    assert seen == tried and [job["name"] for message in sent for job in message.get("jobs", ())] == names
    assert [message["row"] for message in sent if "row" in message] == [{"at once": 85}] * (most > 0)


# Compiles 12 programs, each stretched by half a second; one job takes its process with it once all are compiled. Says
# what is read from disk.
STRETCHED = f"""
import os, sys, time, types
import jax
from stag_experiments.benchmarks.accelerator import bench, programs, worker

def finish(work):
    time.sleep(0.5)
    finished.append(work())
    return finished[-1]

def job(index):
    def measure(clock, add):
        while index == 5:
            if len(finished) == 12:
                os._exit(3)
            time.sleep(0.01)
        yield {{"sum": float(add(1.0)), "read": len(read)}}
    def build(later):
        return later(jax.jit(lambda x: x + index).lower(1.0).compile)
    return bench.Job(f"add {{index}}", "loop", 0.1, measure, (programs.Program(f"add {{index}}", build),))

finished, read = [], []
programs.finish = finish
jax.monitoring.register_event_listener(lambda event, **kwargs: read.append(event) if "cache_hits" in event else None)
sys.modules["{worker.PACKAGE}.adding"] = types.SimpleNamespace(jobs=lambda bench: [job(i) for i in range(12)])
worker.main()
"""


def test_programs_are_compiled_ahead_and_those_of_a_process_that_died_are_read(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", STRETCHED))
    parts, lines = [Part("adding", "Adding", "", "adding")], []
    results = session.run(tmp_path, parts, 60.0, sizes.TINY, lines.append, threads=4)
    rows = results.rows("adding")
    assert [row["sum"] for row in rows] == [1.0 + index for index in range(12) if index != 5]
    assert results.state("adding") == measured.PARTLY
    assert "add 5: the process ended with exit code 3" in results.tree()["parts"][0]["reason"]
    # The first ones were measured while others were being compiled, four at a time.
    assert 1 <= rows[0]["programs compiling"] <= 4 and "programs compiling" not in rows[-1]
    assert rows[0]["read"] == 0 and rows[-1]["read"] > 0
