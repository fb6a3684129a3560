"""One run at a time in a workdir."""

import json
import os
import shutil
import subprocess
import sys

import filelock
import pytest

from stag_jax.training import lock
from stag_jax.types import UserError, WorkdirGone

HOLD = """
import sys, time, pathlib
from stag_jax.training import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_told_who_holds_it(tmp_path):
    with lock.held(tmp_path / "run") as check:
        check()
        holder = json.loads((tmp_path / "run" / lock.HOLDER).read_text())
        with pytest.raises(
            UserError, match=rf"run is in use by process {os.getpid()} of .* since {holder['since'][:10]}"
        ):
            lock.require_free(tmp_path / "run")
        check()
    assert not (tmp_path / "run").exists()  # nothing came of it, so nothing is left
    lock.require_free(tmp_path / "run")


@pytest.fixture
def begun(tmp_path):
    """A workdir that holds something already."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").touch()
    return tmp_path / "run"


def test_a_run_that_was_killed_holds_nothing(begun):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(begun)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"in use by process {process.pid} "):
        lock.require_free(begun)
    process.kill()
    process.communicate()
    with lock.held(begun) as check:
        check()
        assert json.loads((begun / lock.HOLDER).read_text())["pid"] == os.getpid()


def test_a_holder_on_another_machine_is_waited_for_and_then_taken_to_be_dead(begun, monkeypatch, capsys):
    monkeypatch.setattr(lock, "LEASE_S", 0.6)
    with lock.held(begun):
        marker = (begun / lock.LOCK).read_text()
    elsewhere = "\n".join("host=elsewhere" if row.startswith("host=") else row for row in marker.split("\n"))
    (begun / lock.LOCK).write_text(elsewhere)
    with lock.held(begun) as check:  # nobody renews it
        check()
    assert "waiting 1 s for a sign of life" in capsys.readouterr().out


def test_a_live_holder_on_another_machine_keeps_it(begun, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_S", 1.2)
    lease = filelock.SoftFileLease(begun / lock.LOCK, lease_duration=1.2, heartbeat_interval=0.2)
    monkeypatch.setattr("platform.node", lambda: "elsewhere")  # to us, it is on another machine
    with lease, pytest.raises(UserError, match="in use by another process"):
        lock.require_free(begun)


@pytest.mark.parametrize("gone", [lambda folder: shutil.rmtree(folder), lambda folder: (folder / lock.LOCK).unlink()])
def test_a_workdir_that_is_removed_is_noticed(tmp_path, gone):
    with lock.held(tmp_path / "run") as check:
        gone(tmp_path / "run")
        with pytest.raises(WorkdirGone, match="run was removed"):
            check()


def test_what_fails_in_a_workdir_that_went_away_says_so(begun):
    with pytest.raises(WorkdirGone, match="run was removed"), lock.held(begun):
        shutil.rmtree(begun)
        (begun / "log.jsonl").read_text()
