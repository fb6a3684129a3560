"""The sweep as a user runs it: killed, gone on with, given to a cluster's queue, misused."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stag_jax import config as config_lib
from stag_jax.training import workdir
from tests import makers

ROOT = Path(__file__).parents[2]
SWEEP = '''"""A small sweep: two programs of two trials, or named trials."""
import sys

sys.path.insert(0, {root!r})
from ml_collections import ConfigDict
from tests import makers

SPACE = (("model.width", "choice", 4, 8), ("train.learning_rate", "choice", 2e-3, 2e-2))
NAMED = (("full", {{}}), ("narrow", {{"model": {{"width": 4}}}}))


def get_config(kind="space"):
    settings = makers.tiny_settings(**{{"parallel.cpu_devices": 2, "train.steps": 14, "checkpoint.every_s": 0.0}})
    if kind == "named":
        return ConfigDict({{"settings": settings, "trials": NAMED, "export_all": True}})
    return ConfigDict({{"settings": settings, "space": SPACE, "search": "grid", "inner_folds": 2, "select": "uf1"}})
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an archive and a config file."""
    folder = tmp_path_factory.mktemp("study")
    makers.write_composite(folder / "archive", subjects=4, clips=5)
    (folder / "sweep.py").write_text(SWEEP.format(root=str(ROOT)))
    return folder


def command(place, workdir, *flags, kind="space"):
    data = (("manual_dir", place / "archive"), ("data_dir", place / "data"))
    return [
        sys.executable,
        str(ROOT / "experiments" / "sweep.py"),
        f"--config={place / 'sweep.py'}:{kind}",
        *(f"--config.settings.data.{key}={value}" for key, value in data),
        f"--workdir={workdir}",
        *flags,
    ]


def environment(place):
    # Programs are kept for all tests of this file; what a killed process leaves there is found again by the next.
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(place / "cache")}


def run(place, workdir, *flags, kind="space", code=0):
    done = subprocess.run(
        command(place, workdir, *flags, kind=kind), capture_output=True, text=True, env=environment(place), timeout=400
    )
    assert done.returncode == code, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def rows(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(place):
    """A sweep that was not disturbed."""
    return place / "whole", run(place, place / "whole")


def test_it_says_what_is_honest_and_what_is_not(finished):
    folder, done = finished
    assert "program 1 of 2: 2 trials (t0, t1)" in done.stdout and "program 2 of 2: 2 trials (t2, t3)" in done.stdout
    names = ("trials.csv", "inner_scores.png", "inner_scores.svg", "inner_scores.npz")
    assert done.stdout.splitlines()[-4:] == [str(folder / name) for name in names]
    assert "nested, each fold's trial chosen on inner subjects" in done.stdout and "OPTIMISTIC" in done.stdout
    assert [row["model.width"] for row in rows(folder)] == ["4", "4", "8", "8"]
    assert workdir.read_config(folder / "trials" / "t2").model.width == 8


def test_killed_at_random_moments_it_ends_in_the_same_table(place, finished):
    folder = place / "killed"
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    for _ in range(2):
        process = subprocess.Popen(
            command(place, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(place)
        )
        try:
            process.wait(timeout=moments.uniform(5, 30))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    run(place, folder)
    same = (folder / "trials.csv").read_bytes() == (finished[0] / "trials.csv").read_bytes()
    assert same, f"random seed of the kill: {seed}"


def test_told_to_leave_it_saves_and_says_so(place, finished):
    folder = place / "left"
    process = subprocess.Popen(
        command(place, folder, "--config.settings.parallel.steps_per_dispatch=1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(place),
    )
    deadline = time.monotonic() + 240
    while not list(folder.glob("groups/*/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75 and "stopped: " in said and "the same command goes on" in said
    assert list(folder.glob("groups/*/state/*"))
    assert not (folder / "trials.csv").exists()


def test_through_a_queue_it_ends_in_the_same_table(place, finished):
    """submitit's local executor stands for Slurm: one job a program."""
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    folder = place / "queued"
    done = run(place, folder, "--slurm", "--slurm_cluster=local", "--slurm_minutes=10")
    assert "submitted 2 jobs: " in done.stdout and list((folder / "jobs").glob("*.out"))
    assert (folder / "trials.csv").read_bytes() == (finished[0] / "trials.csv").read_bytes()


def test_named_trials_are_compared_with_the_first_and_kept_whole(place):
    folder = place / "named"
    done = run(place, folder, kind="named")
    assert "OPTIMISTIC" in done.stdout and not (folder / "nested").exists()
    first, second = rows(folder)
    assert (first["trial"], second["trial"]) == ("full", "narrow") and first["less_first"] == ""
    assert float(second["less_first"]) == pytest.approx(float(second["uf1"]) - float(first["uf1"]), abs=2e-6)
    config = workdir.read_config(folder / "trials" / "narrow")
    assert config == config_lib.replace(workdir.read_config(folder / "trials" / "full"), {"model.width": 4})
    assert len(list((folder / "trials" / "narrow" / "folds").iterdir())) == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config.inner_folds=9",), "too few for 9 inner folds"),
        (("--config.select=test",), "is one of uf1, log_loss, got 'test'"),
        (("--only=group_x",), "--only=group_x: no such group; there are group_"),
        (("--slurm",), "--slurm: "),
    ],
)
def test_misuse_is_one_line_and_code_2(place, tmp_path, flags, message):
    done = run(place, tmp_path / "bad", *flags, code=2)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
