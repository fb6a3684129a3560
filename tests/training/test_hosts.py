"""Several processes as one run, on loopback: the same predictions as one process, and they leave together."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import makers

ROOT = Path(__file__).parents[2]
LIMIT_S = 240
CONFIG = '''"""A small study, saved after every step."""
import sys

sys.path.insert(0, {root!r})
from tests import makers


def get_config():
    small = {{"train.steps": 20, "parallel.steps_per_dispatch": 1, "checkpoint.every_s": 0.0}}
    return makers.tiny_settings(**small)
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an archive, a config file, and the programs that one run may leave to the next."""
    folder = tmp_path_factory.mktemp("hosts")
    makers.write_composite(folder / "archive", subjects=3, clips=5)
    (folder / "study.py").write_text(CONFIG.format(root=str(ROOT)))
    return folder


def start(place, workdir, *flags):
    """One process of a run; its output goes to files beside the workdir."""
    command = [
        sys.executable,
        str(ROOT / "experiments" / "train.py"),
        f"--config={place / 'study.py'}",
        f"--config.data.manual_dir={place / 'archive'}",
        f"--config.data.data_dir={place / 'data'}",
        f"--workdir={workdir}",
        *flags,
    ]
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(place / "programs")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    return process


def start_pair(place, workdir, *flags, of_second=()):
    """Two processes of one run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    run = ("--distributed", f"--coordinator=localhost:{port}", "--num_processes=2", "--config.parallel.cpu_devices=2")
    return [start(place, workdir, *flags, *run, f"--process_id={i}", *(of_second if i else ())) for i in (0, 1)]


def finish(*processes):
    """Of each its exit code, what it printed and its messages; none outlives this."""
    deadline = time.monotonic() + LIMIT_S
    try:
        said = [process.communicate(timeout=max(1, deadline - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *each) for process, each in zip(processes, said, strict=True)]


def printed(out):
    """Lines of the run itself, without those of the library under it."""
    return [line for line in out.splitlines() if not line.startswith("[Gloo]")]


def logged(workdir):
    path = workdir / "log.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def probabilities(workdir):
    with (workdir / "predictions.csv").open(newline="") as file:
        return np.array([[float(row[key]) for key in row if key.startswith("p_")] for row in csv.DictReader(file)])


@pytest.fixture(scope="module")
def whole(place):
    """The workdir of one process with as many devices as the two of the pair have together."""
    ((code, _, messages),) = finish(start(place, place / "whole", "--config.parallel.cpu_devices=4"))
    assert code == 0, messages[-3000:]
    return place / "whole"


@pytest.fixture(scope="module")
def pair(place, whole):
    """The workdir of two processes, of which the second got a notice midway; what both sessions said."""
    workdir = place / "pair"
    running = start_pair(place, workdir)
    deadline = time.monotonic() + LIMIT_S
    while not logged(workdir) and all(process.poll() is None for process in running) and time.monotonic() < deadline:
        time.sleep(0.02)
    running[1].send_signal(signal.SIGTERM)
    first = finish(*running)
    kept = logged(workdir)
    return workdir, first, kept, finish(*start_pair(place, workdir))


def test_on_a_notice_to_one_all_leave_at_the_same_step(pair):
    _, first, kept, _ = pair
    for code, _, messages in first:
        assert code == 75, messages[-3000:]
        assert f"stopped at step {kept[-1]} of 20" in messages and "Traceback" not in messages
    assert 1 <= kept[-1] < 20


def test_two_processes_end_in_the_predictions_of_one(pair, whole):
    """Not to the last digit: other devices hold other numbers of members, and add in another order."""
    workdir, _, kept, second = pair
    assert [code for code, *_ in second] == [0, 0], second[0][2][-3000:]
    np.testing.assert_allclose(probabilities(workdir), probabilities(whole), atol=1e-5)
    assert f"resuming at step {kept[-1]} of 20" in second[0][2]


def test_only_the_first_prints_and_writes(pair):
    workdir, _, _, second = pair
    assert "4 cpu devices (cpu) in 2 processes" in second[0][1] and "UF1 95% interval" in second[0][1]
    assert printed(second[1][1]) == []
    assert logged(workdir) == list(range(1, 21))
    assert sorted(path.name for path in (workdir / "folds").iterdir()) == ["casme2_sub02", "smic_s01", "smic_s03"]
    names = {"config.json", "folds", "log.jsonl", "metrics.json", "predictions.csv", "predictions_by_seed.csv"}
    assert {path.name for path in workdir.iterdir()} == names | {"run.json", "splits.csv", "history"}


@pytest.mark.parametrize("what", ["data", "dispatches"])
def test_processes_that_do_not_agree_all_stop(place, whole, tmp_path, what):
    if what == "data":
        makers.write_composite(tmp_path / "archive", subjects=3, clips=5, seed=9)
        other = (f"--config.data.manual_dir={tmp_path / 'archive'}", f"--config.data.data_dir={tmp_path / 'data'}")
    else:
        other = ("--config.parallel.steps_per_dispatch=3",)
    ended = finish(*start_pair(place, tmp_path / "run", of_second=other))
    of_what = {"data": "the corpus", "dispatches": "config.parallel or config.checkpoint"}[what]
    for code, _, messages in ended:
        assert code == 2, messages[-3000:]
        assert f"error: {of_what} of process 1 is not that of process 0" in messages and "Traceback" not in messages


@pytest.fixture(scope="module")
def taught(place, whole):
    """Predictions of students of `whole`: of one process, and of two, whose messages come along."""
    flags = (f"--config.distil.teacher={whole}", "--config.distil.weight=0.9")
    ((code, _, messages),) = finish(start(place, place / "student", "--config.parallel.cpu_devices=4", *flags))
    assert code == 0, messages[-3000:]
    ended = finish(*start_pair(place, place / "students", *flags))
    return place / "student", place / "students", ended


def test_two_processes_learn_from_a_teacher_as_one_does(taught, whole):
    alone, together, ended = taught
    for code, _, messages in ended:
        assert code == 0 and "Traceback" not in messages, messages[-3000:]
    np.testing.assert_allclose(probabilities(together), probabilities(alone), atol=1e-5)
    assert np.abs(probabilities(alone) - probabilities(whole)).max() > 1e-3  # the teacher had a say
    losses = [json.loads((folder / "log.jsonl").read_text().splitlines()[-1]) for folder in (alone, together)]
    assert losses[1]["teacher_loss"] == pytest.approx(losses[0]["teacher_loss"], rel=1e-4)


@pytest.mark.parametrize("what", ["fold", "weight", "nothing there"])
def test_where_the_teacher_is_at_fault_all_processes_stop(place, whole, tmp_path, what):
    """Each names the fault or points to the other; neither waits, and nothing is claimed."""
    flags, of_second = (f"--config.distil.teacher={whole}",), ()
    if what == "fold":
        flags += ("--config.protocol.split=group", "--config.protocol.folds=2")
        expected = ("whole has no fold group1; there are: casme2_sub02, smic_s01", "process 0 has failed")
    elif what == "weight":
        of_second = ("--config.distil.weight=0.25",)
        expected = ("config.distil of process 1 is not that of process 0",) * 2
    else:
        flags = (f"--config.distil.teacher={tmp_path / 'none'}",)
        expected = ("none is no workdir of a run",) * 2  # each looks before it meets the other
    ended = finish(*start_pair(place, tmp_path / "run", *flags, of_second=of_second))
    for (code, _, messages), message in zip(ended, expected, strict=True):
        errors = [line for line in messages.splitlines() if line.startswith("error: ")]
        assert code == 2 and len(errors) == 1 and message in errors[0], messages[-3000:]
        assert "Traceback" not in messages
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_run_of_several_needs_to_know_of_the_others(place, tmp_path):
    ((code, _, messages),) = finish(start(place, tmp_path / "run", "--distributed"))
    errors = [line for line in messages.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(errors) == 1 and "--coordinator=HOST:PORT" in errors[0] and "Traceback" not in messages
    assert not (tmp_path / "run").exists()
