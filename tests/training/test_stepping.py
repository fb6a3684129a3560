"""A run that is disturbed: too little memory, a notice to leave, other devices, torn states. It ends in the same."""

import copy
import csv
import functools
import json
import os
import re
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from stag_datasets import corpus
from stag_jax.training import checkpoint, loop, memory, preemption, stepping, workdir
from stag_jax.types import Preempted, UserError
from tests import makers

BUILD = stepping.Members
WRITE = stepping.loggers.RunLog.write


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Three members: the prepared corpus and the config, which saves after every dispatch and keeps three states."""
    root = tmp_path_factory.mktemp("data")
    archive = makers.write_composite(root / "archive", subjects=3, clips=5)
    folder = corpus.build("composite_flow", data_dir=root, manual_dir=archive)
    return folder, makers.tiny_config(data__data_dir=str(root), checkpoint__every_s=0.0, checkpoint__keep=3)


@pytest.fixture(scope="module")
def built():
    """What was compiled, by number of devices and of members on each: most of the time of these tests."""
    return {}


def lay_out(built, patch, devices, at_once, fails=lambda per_device: None):
    """Runs are laid out like this, and fail where `fails` gives an error; `devices` may differ by members on each."""

    def build(task, batch, who, parallel, per_device):
        key = devices[per_device] if isinstance(devices, dict) else devices, per_device
        if key not in built:
            built[key] = BUILD(task, batch, who, parallel, per_device, jax.devices()[: key[0]])

        def train(states, count):
            if error := fails(per_device):
                raise error
            return built[key].train(states, count)

        shown = copy.copy(built[key])
        shown.train = train
        return shown

    planned = memory.Fit(at_once, memory.MemoryNeed(10**6, 10**6), "the test says so")
    patch.setattr(stepping.members, "plan", lambda *_: planned)
    patch.setattr(stepping, "Members", build)


@pytest.fixture
def on(built, monkeypatch):
    """on(devices, at_once): runs of this test are laid out like this."""
    return functools.partial(lay_out, built, monkeypatch)


@pytest.fixture(scope="module")
def whole(setting, built, tmp_path_factory):
    """The workdir of a run that nothing disturbs, three members at once on one device; it keeps its own programs."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        lay_out(built, patch, 1, 3)
        go(setting, folder)
    return folder


@pytest.fixture(scope="module")
def left(setting, built, whole):
    """A workdir that was left at step 21, with the states of steps 7, 14 and 21."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        lay_out(built, patch, 1, 3)
        stop_at(patch, 21)
        with pytest.raises(Preempted):
            go(setting, whole.with_name("left"))
    return whole.with_name("left")


@pytest.fixture
def stopped(left, on, tmp_path):
    """A copy of it."""
    on(1, 3)
    shutil.copytree(left, tmp_path / "run")
    return tmp_path / "run"


def go(setting, folder, **how):
    return loop.run(setting[1], folder, setting[0], **how)


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """The signal comes while the line of this step is written."""

    def write(self, now, *rest):
        WRITE(self, now, *rest)
        if now == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(stepping.loggers.RunLog, "write", write)


def saved(folder):
    return sorted(int(path.name) for path in (folder / "state").iterdir() if path.name.isdecimal())


def logged(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def probabilities(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return np.array([[float(row[key]) for key in row if key.startswith("p_")] for row in csv.DictReader(file)])


def same_to_the_last_digit(folder, whole):
    return all((folder / n).read_bytes() == (whole / n).read_bytes() for n in ("predictions.csv", "splits.csv"))


def test_a_finished_run_leaves_folds_and_programs_and_no_state(whole):
    assert not (whole / "state").exists()
    assert len(list((whole / "folds").iterdir())) == 3
    assert any(path.stat().st_size > 1000 for path in (whole / "cache").iterdir())


def test_on_a_notice_it_saves_and_leaves_and_ends_in_the_same(setting, whole, on, tmp_path, monkeypatch):
    """Three notices of three kinds, in three sessions."""
    on(1, 3)
    before = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    for step, number, there in (
        (7, signal.SIGTERM, [7]),
        (14, signal.SIGUSR1, [7, 14]),
        (28, signal.SIGUSR2, [14, 21, 28]),  # three are kept
    ):
        stop_at(monkeypatch, step, number)
        with pytest.raises(Preempted, match=rf"{tmp_path}/run: stopped at step {step} of 30"):
            go(setting, tmp_path / "run")
        assert saved(tmp_path / "run") == there
        assert before == {number: signal.getsignal(number) for number in preemption.SIGNALS}
    assert not (tmp_path / "run" / "predictions.csv").exists()
    stop_at(monkeypatch, 30)  # nothing is left to do but to write, so it does
    go(setting, tmp_path / "run")
    assert same_to_the_last_digit(tmp_path / "run", whole)
    assert logged(tmp_path / "run") == [7, 14, 21, 28, 30]
    assert not (tmp_path / "run" / "state").exists()


EXHAUSTED = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")


def test_out_of_memory_it_goes_on_with_half_as_many(setting, whole, on, tmp_path, caplog):
    # What is left after three, one at once, is laid out as another test has it.
    on({3: 1, 1: 4}, 3, lambda per_device: EXHAUSTED if per_device > 2 else None)
    go(setting, tmp_path / "run")
    assert "out of memory; going on with 1 members a device at once" in caplog.text
    np.testing.assert_allclose(probabilities(tmp_path / "run"), probabilities(whole), atol=1e-5)


def test_one_member_that_does_not_fit_is_an_error_that_says_what_to_do(setting, whole, on, tmp_path, caplog):
    on(1, 3, lambda per_device: EXHAUSTED)
    with pytest.raises(UserError, match=r"one member, about \d+ MB, is too large .* config\.train\.batch_size"):
        go(setting, tmp_path / "run")
    assert caplog.text.count("out of memory") == 1


def test_another_error_of_the_runtime_is_not_taken_for_it(setting, whole, on, tmp_path, caplog):
    on(1, 3, lambda per_device: jax.errors.JaxRuntimeError("INTERNAL: something else"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        go(setting, tmp_path / "run")
    assert "out of memory" not in caplog.text


def test_it_goes_on_with_other_devices(setting, whole, stopped, on, caplog):
    on(4, 1)
    go(setting, stopped)
    assert "resuming at step 21 of 30" in caplog.text
    np.testing.assert_allclose(probabilities(stopped), probabilities(whole), atol=1e-5)


def files(folder, step):
    return [path for path in (folder / "state" / str(step)).rglob("*") if path.is_file()]


def truncate(folder, step):
    """Every file is half as long."""
    for path in files(folder, step):
        os.truncate(path, path.stat().st_size // 2)


def delete(folder, step):
    """The larger files, those of the arrays, are gone."""
    sizes = sorted(path.stat().st_size for path in files(folder, step))
    for path in files(folder, step):
        if path.stat().st_size >= sizes[len(sizes) // 2]:
            path.unlink()


def empty(folder, step):
    """Only the folder is left."""
    for path in (folder / "state" / str(step)).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("tear", [truncate, delete, empty])
def test_a_torn_state_is_passed_over_and_saved_again(setting, whole, stopped, caplog, monkeypatch, tear):
    tear(stopped, 21)
    (stopped / "state" / "28.orbax-checkpoint-tmp").mkdir()  # as a kill in the middle of a save leaves it
    stop_at(monkeypatch, 21)
    with pytest.raises(Preempted):
        go(setting, stopped)
    assert "resuming at step 14 of 30" in caplog.text
    assert tear is empty or re.search(r"state/21 cannot be read", caplog.text)
    assert sorted(path.name for path in (stopped / "state").iterdir()) == ["14", "21", "7"]
    caplog.clear()
    monkeypatch.setattr(stepping.loggers.RunLog, "write", WRITE)
    go(setting, stopped)
    assert "cannot be read" not in caplog.text and "resuming at step 21 of 30" in caplog.text
    assert same_to_the_last_digit(stopped, whole)
    assert logged(stopped) == [7, 14, 21, 28, 30]


def test_where_all_states_are_torn_the_folder_is_named(setting, stopped, caplog):
    for step in (7, 14, 21):
        truncate(stopped, step)
    for _ in range(2):  # and nothing is begun afresh on the quiet
        with pytest.raises(UserError, match=rf"none of the states in {stopped}/state can be read"):
            go(setting, stopped)
    assert saved(stopped) == [7, 14, 21] and not (stopped / "predictions.csv").exists()


def test_a_state_of_other_members_is_not_taken(setting, stopped):
    with checkpoint.StateStore(stopped, 3) as store, pytest.raises(UserError, match="can be read"):
        store.load({"x": jax.ShapeDtypeStruct((2,), np.float32)}, 3)


def test_a_profile_is_there_for_tensorboard_and_perfetto(setting, whole, on, tmp_path):
    on(1, 3)
    go(setting, tmp_path / "run", profile=True)
    names = [path.name for path in (tmp_path / "run" / "profile").rglob("*") if path.is_file()]
    assert any(name.endswith(".xplane.pb") for name in names) and "perfetto_trace.json.gz" in names
    assert same_to_the_last_digit(tmp_path / "run", whole)


@pytest.fixture
def hits(monkeypatch):
    """How often a program was found in the cache; all programs are kept here, however quickly they compile."""
    events = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    old = {name: getattr(jax.config, name) for name in (CACHE_DIR, CACHE_FROM)}
    jax.config.update(CACHE_FROM, 0.0)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    yield lambda: events.count("/jax/compilation_cache/cache_hits")
    for name, value in old.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


CACHE_DIR, CACHE_FROM = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"


def test_kept_programs_are_used_again_and_torn_ones_do_no_harm(hits, tmp_path):
    def compute():
        # A new function each time, so that only the folder can know its program.
        return jax.jit(lambda x: jnp.sin(x) * 1234.5)(jnp.arange(7.0))

    workdir.keep_programs(tmp_path)
    expected = compute()
    kept = [path for path in (tmp_path / "cache").iterdir() if path.name.endswith("-cache")]
    assert kept
    before = hits()
    np.testing.assert_array_equal(compute(), expected)
    assert hits() > before
    for path in kept:
        os.truncate(path, path.stat().st_size // 2)
    compilation_cache.reset_cache()
    with pytest.warns(UserWarning, match="reading persistent compilation cache"):
        np.testing.assert_array_equal(compute(), expected)
