"""The measurement of an accelerator: what is planned and written, and that nothing takes the figures with it."""

import heapq
import importlib
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

from stag_experiments.benchmarks.accelerator import (
    bench,
    flow_rates,
    measured,
    process,
    schedule,
    session,
    sizes,
    worker,
)
from stag_experiments.benchmarks.accelerator.schedule import Part, Planned
from stag_jax.motion import tvl1

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmark.py"
A, B = (Part(name, f"Part {name}", f"About {name}.", name) for name in "ab")


def planned(name, wanted, seconds, *programs):
    return Planned(name, name, wanted, 0, seconds, seconds, programs)


def test_the_most_wanted_job_of_those_that_are_ready_is_next():
    first, second, third = (planned(name, index, 5) for index, name in enumerate("abc"))
    assert schedule.choose([(third, True), (second, True), (first, False)], 10) is second
    assert schedule.choose([(third, True), (second, False)], 10) is third
    assert schedule.choose([(first, False)], 10) is None and schedule.choose([], 10) is None


def test_a_job_that_does_not_fit_makes_way_for_those_that_do():
    large, small = planned("a", 0, 20), planned("b", 1, 2)
    assert schedule.choose([(large, True), (small, True)], 10) is small
    assert schedule.choose([(large, True)], 10) is None


def test_a_long_job_waits_for_more_wanted_ones_that_are_being_compiled():
    short, long = planned("a", 0, 5), planned("b", 1, schedule.LONG_S + 1)
    assert schedule.choose([(short, False), (long, True)], 100) is None
    assert schedule.choose([(short, True), (long, True)], 100) is short
    # A job that cannot be measured any more, though, keeps nobody waiting.
    assert schedule.choose([(short._replace(seconds=200), False), (long, True)], 100) is long


def jobs_of(part, size):
    """Returns what a part would measure at a size on the devices that are here."""
    return importlib.import_module(f"{worker.PACKAGE}.{part.module}").jobs(bench.Bench(size, {}))


def all_jobs(size):
    """Returns what all parts would measure, as `Planned`."""
    return [
        planned(
            f"{part.name}: {job.name}",
            schedule.WANTED.index(job.wanted),
            job.seconds,
            *(program.name for program in job.programs),
        )
        for part in schedule.PARTS
        for job in jobs_of(part, size)
    ]


@pytest.fixture
def one_device(monkeypatch):
    """Borrowed machines have one device; tests have eight."""
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda platform=None: devices)


def measured_in(seconds, compile_s=90.0, trace_s=4.0, threads=10, start_s=10.0):
    """Returns the names of the jobs that are done, one program traced before each; no clock is looked at.

    Each program is compiled in `compile_s` once a thread is free.
    """
    waiting = sorted(all_jobs(sizes.FULL_SIZE), key=lambda job: job.wanted)
    untraced = list(dict.fromkeys(name for job in waiting for name in job.programs))
    now, free, ready, done = start_s, [start_s] * threads, {}, []
    while now < seconds and waiting:
        now += trace_s if untraced else 0.0
        for name in untraced[:1]:
            ready[name] = max(heapq.heappop(free), now) + compile_s
            heapq.heappush(free, ready[untraced.pop(0)])
        entries = [(job, all(ready.get(name, seconds) <= now for name in job.programs)) for job in waiting]
        job = schedule.choose(entries, seconds - session.RESERVE_S - now)
        now += job.seconds if job else 1.0
        if job:
            waiting.remove(job)
            done.append(job.name)
    return done


FIRST = [
    *("members: composite loop", "loso: training, composite 340", "saving: saving", "matrix: copying"),
    *(f"members: composite vmapped, 1 device {count}" for count in (64, 340, 1024)),
    *("torch: composite, eager", "torch: clips, eager", "flow: 128 px, 32 pairs", "flow: 128 px, errors"),
]
THEN = ["windows: 1 windows", "windows: 64 windows", "members: clips loop", "flow: 128 px, 512 pairs", "resume: resume"]


@pytest.mark.parametrize(("seconds", "wanted"), [(220, FIRST), (290, FIRST + THEN)])
def test_what_is_most_wanted_is_measured_first_though_a_program_takes_90_seconds(one_device, seconds, wanted):
    done = measured_in(seconds)
    assert set(wanted) <= set(done) and len([name for name in done if name.startswith("matrix")]) == 4


def test_every_part_has_figures_in_eight_minutes(one_device):
    done = measured_in(480)
    assert {name.partition(":")[0] for name in done} == {part.name for part in schedule.PARTS}
    assert {"bfloat16: float32", "bfloat16: bfloat16"} <= set(done)  # of which one alone says nothing


@pytest.mark.parametrize("size", sizes.SIZES.values(), ids=lambda size: size.name)
def test_jobs_have_names_of_their_own(size):
    names = [job.name for job in all_jobs(size)]
    assert len(names) == len(set(names))


def test_what_a_program_follows_is_made_as_well():
    made = [program for part in schedule.PARTS for job in jobs_of(part, sizes.FULL_SIZE) for program in job.programs]
    assert {name for program in made for name in program.after} <= {program.name for program in made}


def test_bytes_of_a_flow_are_counted_by_hand():
    settings = tvl1.TVL1Settings(coarsest=4, warps=2, iterations=3)
    # 10 x 8 and 5 x 4 pixels; 3 x 2 is too small. An iteration touches 17 numbers a pixel, a warp 11 besides.
    assert flow_rates.bytes_moved(10, 8, settings) == 4 * (80 + 20) * 2 * (3 * 17 + 11)


def test_rows_are_in_the_order_of_their_places(tmp_path):
    results = measured.Measured(tmp_path, [A])
    for place, value in ((3, "d"), (0, "a"), (3, "e"), (1, "b"), (1, "c")):
        results.add("a", {"value": value}, place)
    assert "".join(row["value"] for row in results.rows("a")) == "abcde"


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


STUB = '''"""Stands in for the process that measures: a job does what its part is called."""
import json, os, sys, time


def send(**message):
    print(json.dumps(message), flush=True)


command = json.loads(sys.stdin.readline())
send(facts={"_platform": "cpu"}, jobs=[
    {"part": part["name"], "name": part["name"], "wanted": 0, "place": 0, "seconds": LEAST, "most_s": LEAST,
     "programs": ["missing"] if part["module"] == "waits" else []}
    for part in command["parts"]
])
for line in sys.stdin:
    name = json.loads(line)["job"].split()[0]
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
    """measure("works", "hangs"): runs such parts, each of a job of a second; returns their states."""
    monkeypatch.setattr(session, "RESERVE_S", 0.5)
    monkeypatch.setattr(session, "GRACE_S", 1.0)
    monkeypatch.setattr(process, "COMMAND", (sys.executable, str(tmp_path / "stub.py")))

    def run(*names, total=12.0, least=1.0, **changes):
        (tmp_path / "stub.py").write_text(STUB.replace("LEAST", str(least)))
        parts = [Part(f"{name} {index}", name, name, name, **changes) for index, name in enumerate(names)]
        start = time.monotonic()
        session.run(tmp_path, parts, total, sizes.TINY, lambda line: None)
        assert time.monotonic() - start < total
        return json.loads((tmp_path / measured.JSON).read_text())["parts"]

    return run


def test_parts_that_hang_die_or_raise_say_so_and_the_others_go_on(measure):
    states = measure("works", "hangs", "works", "dies", "works", "raises", "works")
    assert [(part["state"], part["reason"].partition(";")[0]) for part in states] == [
        ("measured", ""),
        ("partly", "hangs 1: ended after 2 s"),
        ("measured", ""),
        ("partly", "dies 3: the process ended with exit code 3"),
        ("measured", ""),
        ("partly", "raises 5: ValueError: it is broken"),
        ("measured", ""),
    ]
    # A new process after one that was ended or died; one that has raised goes on.
    processes = [part["rows"][0]["process"] for part in states]
    assert len(set(processes)) == 3 and processes[0] == processes[1] and len(set(processes[4:])) == 1
    for number in set(processes):
        assert not psutil.pid_exists(number)


def test_what_there_is_no_time_for_says_so(measure):
    part, other = measure("works", "waits", total=4.0)
    assert part["state"] == "measured"
    assert (other["state"], other["reason"]) == ("left out", "no time for waits 1")
    (part,) = measure("works", least=30.0, total=2.0)
    assert (part["state"], part["reason"]) == ("left out", "no time for works 0")


def test_where_no_process_starts_it_is_tried_twice(measure, monkeypatch):
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", "raise SystemExit(1)"))
    states = measure("works", "works")
    assert [part["state"] for part in states] == ["failed", "failed"]
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
    plain = process.environment("/programs", cpu_only=False, hasty=False)
    assert (plain["JAX_PLATFORMS"], plain["XLA_FLAGS"]) == ("cuda,cpu", "--one")
    assert plain["JAX_COMPILATION_CACHE_DIR"] == "/programs"
    alone = process.environment("/programs", cpu_only=True, hasty=True)
    assert alone["JAX_PLATFORMS"] == "cpu" and alone["XLA_FLAGS"] == f"--one {process.HASTE}"


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
    env = {**env, "TMPDIR": str(out)}  # where a killed run leaves its programs
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_command_runs_to_the_end_with_few_packages(bare, tmp_path):
    begin = time.monotonic()
    running = start(tmp_path, bare, "--seconds=25")
    text, _ = running.communicate(timeout=60)
    assert running.returncode == 0, text[-3000:]
    assert time.monotonic() - begin < 25 + 5  # and Python's own start
    tree = json.loads((tmp_path / measured.JSON).read_text())
    states = {part["name"]: part for part in tree["parts"]}
    assert list(states) == [part.name for part in schedule.PARTS]
    assert states["matrix"]["rows"] and states["torch"]["reason"] == "torch is not installed"
    for part in states.values():
        assert part["rows"] or part["reason"], part
        assert "Error" not in part["reason"], part
    assert (tmp_path / measured.PAGE).read_text() in text and "blocked by the test" not in text
    assert "Error" not in (tmp_path / session.LOG).read_text()


def test_a_killed_run_leaves_what_was_measured_and_no_process(tmp_path):
    running = start(tmp_path, dict(os.environ), "--seconds=60", "--parts=matrix,members")
    try:
        wait_for(lambda: rows(tmp_path, "matrix"))
        children = psutil.Process(running.pid).children(recursive=True)
        assert children
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()
    assert rows(tmp_path, "matrix") and "| TFLOP/s |" in (tmp_path / measured.PAGE).read_text()
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
    row = {"a": np.float32(0.5), "b": float("nan"), "c": np.bool_(True), "d": None, "e": 3}
    assert worker._plain(row) == {"a": 0.5, "b": "nan", "c": True, "d": None, "e": 3}


def test_a_misspelt_part_is_one_line(tmp_path):
    running = start(tmp_path, dict(os.environ), "--parts=matrices")
    text, _ = running.communicate(timeout=60)
    assert running.returncode == 2 and "--parts: 'matrices' is none of matrix, members" in text
    assert "Traceback" not in text
