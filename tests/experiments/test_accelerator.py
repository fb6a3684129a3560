"""The measurement of an accelerator: what is planned and written, and that nothing takes the figures with it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import psutil
import pytest

from stag_experiments.benchmarks.accelerator import bench, flow_rates, measured, schedule, session, sizes
from stag_experiments.benchmarks.accelerator.schedule import Need, Part
from stag_jax.motion import tvl1

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmark.py"
A, B, C = (Part(name, f"Part {name}", f"About {name}.", name) for name in "abc")
NEEDS = {"a": Need(10, 30), "b": Need(20, 30), "c": Need(5, 15)}


def seconds(slots):
    return {slot.part.name: (round(slot.soft_s, 6), round(slot.hard_s, 6)) for slot in slots}


def test_time_is_shared_out_in_proportion_to_what_parts_want():
    # 35 s are the least of all; of 20 s more, that is half of what is wanted beyond, each gets its half.
    slots = seconds(schedule.plan([A, B, C], NEEDS, 55))
    assert {name: soft for name, (soft, _) in slots.items()} == {"a": 20, "b": 25, "c": 10}
    assert slots["a"][1] == min(10 + 20, schedule.GRACE * 20)


def test_what_does_not_fit_is_left_for_later_and_smaller_parts_go_on():
    assert list(seconds(schedule.plan([A, B, C], NEEDS, 29))) == ["a", "c"]
    assert list(seconds(schedule.plan([B, C], NEEDS, 19))) == ["c"]
    assert schedule.plan([A, B, C], NEEDS, 4.9) == []


def test_no_part_may_take_the_least_of_the_others():
    for total in (35, 40, 80, 500):
        first, *others = schedule.plan([A, B, C], NEEDS, total)
        assert first.soft_s <= first.hard_s <= total - sum(NEEDS[slot.part.name].least_s for slot in others)


def test_time_to_spare_is_not_used_up_for_its_own_sake():
    (slot,) = schedule.plan([A], NEEDS, 10_000)
    assert slot.soft_s == 10 + schedule.GENEROUS * 20


@pytest.mark.parametrize("size", sizes.SIZES.values(), ids=lambda size: size.name)
def test_each_size_has_seconds_for_each_part(size):
    assert set(size.needs) == {part.name for part in schedule.PARTS}
    assert all(0 < need.least_s <= need.wanted_s for need in size.needs.values())


def test_all_parts_fit_into_eight_minutes_and_into_four():
    for total in (480, 240):
        assert len(schedule.plan(schedule.PARTS, sizes.FULL_NEEDS, total)) == len(schedule.PARTS)


def test_a_count_is_halved_until_the_device_takes_it():
    asked = []

    def run(count):
        asked.append(count)
        if count > 100:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")
        return f"ran {count}"

    assert bench.largest_that_fits(run, 340) == (85, "ran 85") and asked == [340, 170, 85]


@pytest.mark.parametrize(("message", "tried"), [("RESOURCE_EXHAUSTED: x", [4, 2, 1]), ("INTERNAL: x", [4])])
def test_what_halving_cannot_mend_is_raised(message, tried):
    asked = []

    def run(count):
        asked.append(count)
        raise jax.errors.JaxRuntimeError(message)

    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        bench.largest_that_fits(run, 4)
    assert asked == tried


def test_bytes_of_a_flow_are_counted_by_hand():
    settings = tvl1.TVL1Settings(coarsest=4, warps=2, iterations=3)
    # 10 x 8 and 5 x 4 pixels; 3 x 2 is too small. An iteration touches 17 numbers a pixel, a warp 11 besides.
    assert flow_rates.bytes_moved(10, 8, settings) == 4 * (80 + 20) * 2 * (3 * 17 + 11)


def test_the_page_has_a_table_a_part_and_says_why_there_is_none(tmp_path):
    results = measured.Measured(tmp_path, [A, B], seconds=7)
    results.learn({"device": "a toaster", "_rate": 1.0, "host": "toast | butter"})
    results.add("a", {"way": "loop", "rate": 12345.678, "share": None})
    results.add("a", {"way": "vmap", "rate": 0.0123456, "same": False})
    results.mark("a", measured.DONE, took_s=1.23)
    results.mark("b", measured.FAILED, "no bread")
    page = (tmp_path / measured.PAGE).read_text()
    assert page.startswith("# Measured on a toaster\n") and "| host | toast / butter |" in page and "_rate" not in page
    assert "| Part a | measured | 1.2 |" in page and "| Part b | failed: no bread |  |" in page
    assert "About a.\n\n| way | rate | share | same |\n| --- | --- | --- | --- |\n| loop | 12,346 |  |  |\n" in page
    assert "| vmap | 0.0123 |  | NO |" in page and "About b" not in page
    tree = json.loads((tmp_path / measured.JSON).read_text())
    assert tree["parts"][0]["rows"][0]["rate"] == 12345.678 and tree["facts"]["_rate"] == 1.0


STUB = '''"""Stands in for the process that measures: a part does what its module is called."""
import json, os, sys, time

for line in sys.stdin:
    command = json.loads(line)
    name = command.get("module")

    def send(**message):
        print(json.dumps(message), flush=True)

    send(facts={"_platform": "cpu", "process": os.getpid()})
    if not name:
        send(done=True)
        continue
    send(row={"what": name, "process": os.getpid()})
    if name == "hangs":
        time.sleep(60)
    if name == "dies":
        os._exit(3)
    if name == "raises":
        send(failed="ValueError: it is broken")
    else:
        send(done=True)
'''


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """measure("works", "hangs", seconds=9): runs such parts, each of which wants a second; returns their states."""
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setattr(session, "COMMAND", (sys.executable, str(tmp_path / "stub.py")))
    monkeypatch.setattr(session, "RESERVE_S", 0.5)
    monkeypatch.setattr(schedule, "GRACE_S", 1.0)

    def run(*names, total=12.0, least=1.0, **changes):
        parts = [Part(f"{name} {index}", name, name, name, **changes) for index, name in enumerate(names)]
        needs = {part.name: Need(least, least) for part in parts}
        size = sizes.TINY_SIZE._replace(needs=needs)
        monkeypatch.setitem(sizes.SIZES, sizes.TINY, size)
        start = time.monotonic()
        session.run(tmp_path, parts, total, sizes.TINY, lambda line: None)
        assert time.monotonic() - start < total
        return json.loads((tmp_path / measured.JSON).read_text())["parts"]

    return run


def test_parts_that_hang_die_or_raise_say_so_and_the_others_go_on(measure):
    states = measure("works", "hangs", "works", "dies", "works", "raises", "works")
    assert [(part["state"], part["reason"].partition(";")[0]) for part in states] == [
        ("measured", ""),
        ("partly", "ended after 2 s"),
        ("measured", ""),
        ("partly", "the process ended with exit code 3"),
        ("measured", ""),
        ("partly", "ValueError: it is broken"),
        ("measured", ""),
    ]
    # A new process after one that was ended or died; one that has raised goes on.
    processes = [part["rows"][0]["process"] for part in states]
    assert len(set(processes)) == 3 and processes[0] == processes[1] and len(set(processes[4:])) == 1
    for process in set(processes):
        assert not psutil.pid_exists(process)


def test_what_there_is_no_time_for_says_so(measure):
    part, other = measure("works", "hangs", least=2.5, total=4.5)
    assert part["state"] == "measured"
    assert other["state"] == "partly" and other["reason"].startswith("ended after")
    (part,) = measure("works", least=30.0, total=2.0)
    assert (part["state"], part["reason"]) == ("left out", "30 s are its least, 1 s were left")


def test_where_no_process_starts_it_is_tried_twice(measure, monkeypatch):
    monkeypatch.setattr(session, "COMMAND", (sys.executable, "-c", "raise SystemExit(1)"))
    states = measure("works", "works", "works")
    assert [part["state"] for part in states] == ["failed", "failed", "left out"]
    assert states[0]["reason"].startswith("the process ended with exit code 1")


def test_a_package_that_is_missing_is_a_reason_and_starts_no_process(measure):
    (part,) = measure("works", package="no_such_package_anywhere")
    assert (part["state"], part["reason"], part["rows"]) == (
        "left out",
        "no_such_package_anywhere is not installed",
        [],
    )


def test_a_process_of_its_own_has_the_cpu_only(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("XLA_FLAGS", "--one")
    plain = session.environment("/programs", cpu_only=False, hasty=False)
    assert (plain["JAX_PLATFORMS"], plain["XLA_FLAGS"]) == ("cuda,cpu", "--one")
    assert plain["JAX_COMPILATION_CACHE_DIR"] == "/programs"
    alone = session.environment("/programs", cpu_only=True, hasty=True)
    assert alone["JAX_PLATFORMS"] == "cpu" and alone["XLA_FLAGS"] == f"--one {session.HASTE}"


BLOCKED = ("tensorflow_datasets", "dlib", "av", "ml_collections", "torch", "tqdm", "pandas", "matplotlib")
BLOCK = f'''"""Makes packages unimportable."""
import sys


class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked by the test")


sys.meta_path.insert(0, Block())
'''
PARTS = [part.module for part in schedule.PARTS if not part.package]
IMPORTS = f"""
import importlib
for name in {PARTS!r}:
    importlib.import_module("stag_experiments.benchmarks.accelerator." + name)
from stag_jax.motion import optical_flow
from stag_datasets.synth_me import order
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment in which most packages of the project cannot be imported."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(BLOCK)
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_no_part_needs_more_than_the_few_packages(bare):
    done = subprocess.run([sys.executable, "-c", IMPORTS], env=bare, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        "blocked"
        in subprocess.run(
            [sys.executable, "-c", "import dlib"], env=bare, capture_output=True, text=True, timeout=60
        ).stderr
    )


def start(out, env, *flags):
    command = [sys.executable, str(SCRIPT), "accelerator", f"--out={out}", "--size=tiny", *flags]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_command_runs_to_the_end_with_few_packages(bare, tmp_path):
    begin = time.monotonic()
    process = start(tmp_path, bare, "--seconds=20")
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text[-3000:]
    assert time.monotonic() - begin < 20 + 5  # and Python's own start
    tree = json.loads((tmp_path / measured.JSON).read_text())
    states = {part["name"]: part for part in tree["parts"]}
    assert list(states) == [part.name for part in schedule.PARTS]
    assert states["matrix"]["state"] == measured.DONE and len(states["matrix"]["rows"]) == 3
    assert states["torch"]["reason"] == "torch is not installed"
    for part in states.values():
        assert part["rows"] or part["reason"], part
        assert "Error" not in part["reason"], part
    assert (tmp_path / measured.PAGE).read_text() in text and "blocked by the test" not in text
    assert "Error" not in (tmp_path / session.LOG).read_text()


def test_a_killed_run_leaves_what_was_measured_and_no_process(tmp_path):
    process = start(tmp_path, dict(os.environ), "--seconds=60", "--parts=matrix,members")
    try:
        wait_for(lambda: len(rows(tmp_path, "matrix")) == 3)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(rows(tmp_path, "matrix")) == 3 and "| TFLOP/s |" in (tmp_path / measured.PAGE).read_text()
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 20)


def rows(folder, name):
    path = folder / measured.JSON
    parts = json.loads(path.read_text())["parts"] if path.exists() else []
    return next((part["rows"] for part in parts if part["name"] == name), [])


def wait_for(condition, limit=40.0):
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_numbers_that_json_does_not_know_become_words():
    from stag_experiments.benchmarks.accelerator import worker

    row = {"a": np.float32(0.5), "b": float("nan"), "c": np.bool_(True), "d": None, "e": 3}
    assert worker._plain(row) == {"a": 0.5, "b": "nan", "c": True, "d": None, "e": 3}


def test_a_misspelt_part_is_one_line(tmp_path):
    process = start(tmp_path, dict(os.environ), "--parts=matrices")
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "--parts: 'matrices' is none of matrix, members" in text
    assert "Traceback" not in text
