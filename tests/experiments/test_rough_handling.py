"""Scripts handled roughly: started twice, signalled, out of disk, robbed of folders. One line, and all goes on."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stag_experiments import interrupts
from tests import commands, makers

CONFIG = '''"""A small study."""
import sys

sys.path.insert(0, {root!r})
from tests import makers


def get_config():
    return makers.tiny_settings(**{{"parallel.cpu_devices": 2, "checkpoint.every_s": 0.0}})
'''
LONG = ("--config.train.steps=100000", "--config.parallel.steps_per_dispatch=1", "--config.checkpoint.history=False")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an archive and a config file."""
    folder = tmp_path_factory.mktemp("study")
    makers.write_composite(folder / "archive", subjects=3, clips=6)
    (folder / "study.py").write_text(CONFIG.format(root=str(commands.ROOT)))
    return folder


def command(script, *flags):
    return [sys.executable, str(commands.ROOT / "experiments" / f"{script}.py"), *map(str, flags)]


def train(place, workdir, *flags, data=None):
    data = (f"--config.data.manual_dir={place / 'archive'}", f"--config.data.data_dir={data or place / 'data'}")
    return command("train", f"--config={place / 'study.py'}", *data, f"--workdir={workdir}", *flags)


def start(arguments):
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(arguments, code=0):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr[-3000:]
    return done


def errors(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


def wait_for(path, process, seconds=240):
    deadline = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists(), process.communicate()[1][-2000:]


@pytest.fixture(scope="module")
def finished(place):
    """A workdir that one undisturbed run has finished."""
    run(train(place, place / "whole"))
    return place / "whole"


@pytest.fixture(scope="module")
def going(place, finished):
    """A run that goes on and on, and the folder of it."""
    process = start(train(place, place / "long", *LONG))
    wait_for(place / "long" / "log.jsonl", process)
    yield process, place / "long"
    process.kill()
    process.communicate()


def test_a_second_run_in_the_same_workdir_is_told_who_holds_it(place, going):
    process, folder = going
    done = run(train(place, folder, *LONG), code=2)
    (line,) = errors(done.stderr)
    assert f"long is in use by process {process.pid} of " in line and " since 20" in line
    assert process.poll() is None  # the first was not disturbed


def test_a_workdir_that_is_removed_ends_the_run(place, going):
    process, folder = going
    while folder.exists() and process.poll() is None:
        shutil.rmtree(folder, ignore_errors=True)  # states are being written all the time
    _, text = process.communicate(timeout=120)
    (line,) = errors(text)
    assert process.returncode == 1 and "long was removed, or taken over, while the run went on" in line
    assert "Traceback" not in text and not (folder / "metrics.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_training_begins_a_signal_is_one_line_and_the_next_start_goes_on(tmp_path, number):
    """While imports are made, a corpus is rendered, or its features are extracted."""
    seed = random.SystemRandom().randrange(10**6)
    flags = ("--dataset=synth_me/tiny", f"--data_dir={tmp_path / 'data'}")
    code = {signal.SIGINT: 130, signal.SIGTERM: 75}[number]
    for moment in (random.Random(seed).uniform(0.3, 3), random.Random(seed).uniform(4, 9)):
        process = start(command("prepare", *flags))
        time.sleep(moment)
        process.send_signal(number)
        _, text = process.communicate(timeout=60)
        told = [line for line in text.splitlines() if line.endswith("; run the same command again to go on")]
        assert process.returncode == code and len(told) == 1 and "Traceback" not in text, (seed, moment, text)
        assert not [path for path in tmp_path.rglob(".*.npz") if path.is_file()], seed  # nothing half-written
    assert "20 clips, 5 subjects" in run(command("prepare", *flags)).stdout


def test_ctrl_c_while_training_is_one_line(place, finished):
    process = start(train(place, place / "left", *LONG))
    wait_for(place / "left" / "log.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in text
    assert text.splitlines()[-1] == "interrupted; run the same command again to go on"


def in_namespace(script):
    """Run a shell script where mounting is allowed and seen by nobody else; skip where that cannot be had."""
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    if probe.returncode:
        pytest.skip(f"file systems cannot be mounted here: {probe.stderr.decode().strip()}")
    return subprocess.run(["unshare", "-rm", "sh", "-ec", script], capture_output=True, text=True, timeout=300)


def shell(arguments):
    return " ".join(f"'{each}'" for each in arguments)


def test_a_full_disk_is_one_line(place, finished):
    workdir = place / "small"
    workdir.mkdir()
    script = f"mount -t tmpfs -o size=200k tmpfs '{workdir}'; {shell(train(place, workdir / 'run'))}"
    done = in_namespace(script)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-3000:]
    (line,) = errors(done.stderr)
    assert "No space left on device" in line


def test_a_data_folder_that_cannot_be_written_is_one_line(place, finished, tmp_path):
    """With the features it is as good as any; without them it is told before they are extracted."""
    data = tmp_path / "data"
    shutil.copytree(place / "data", data)
    read_only = f"mount --bind '{data}' '{data}'; mount -o remount,ro,bind '{data}'; "
    fine = in_namespace(read_only + shell(train(place, tmp_path / "one", data=data)))
    assert fine.returncode == 0, fine.stderr[-3000:]
    assert (tmp_path / "one" / "predictions.csv").read_bytes() == (finished / "predictions.csv").read_bytes()
    shutil.rmtree(data / "features")
    done = in_namespace(read_only + shell(train(place, tmp_path / "two", data=data)))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-3000:]
    (line,) = errors(done.stderr)
    assert "features" in line and "Read-only file system" in line and not (tmp_path / "two").exists()


def test_a_report_finds_data_that_was_moved_and_asks_before_making_it_again(place, finished, tmp_path):
    workdir, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(finished, workdir)
    shutil.copytree(place / "data", moved)
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["data_dir"] = str(tmp_path / "gone")
    (workdir / "config.json").write_text(json.dumps(config))
    (line,) = errors(run(command("analyze", f"--workdir={workdir}"), code=2).stderr)
    assert "corpus composite_flow is not in" in line and "--data_dir=DIR" in line and "--rebuild" in line
    assert not (tmp_path / "gone").exists()
    done = run(command("analyze", f"--workdir={workdir}", f"--data_dir={moved}"))
    assert (workdir / "report" / "index.html").exists() and "building" not in done.stderr
    shutil.rmtree(moved / "features")
    (line,) = errors(run(command("analyze", f"--workdir={workdir}", f"--data_dir={moved}"), code=2).stderr)
    assert "has no features of this run in" in line
    run(command("analyze", f"--workdir={workdir}", f"--data_dir={moved}", "--rebuild"))
    assert list((moved / "features").iterdir())


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is not installed")
def test_the_cores_that_affinity_leaves_are_counted(place, finished):
    for room in ("stag_jax", "stag_datasets"):
        code = f"from {room} import processes; print(processes.cores())"
        done = run(["taskset", "-c", "0", sys.executable, "-c", code])
        assert done.stdout == "1\n"
    flags = (f"--workdir={place / 'one_core'}", "--config.parallel.cpu_devices=0")
    done = run(["taskset", "-c", "0", *train(place, place / "one_core", *flags)])
    assert "on 1 cpu device," in done.stdout


def test_the_two_rooms_have_the_same_processes():
    """Neither may import the other."""
    one, other = (
        (commands.ROOT / folder / "processes.py").read_text().split('"""', 2)[2] for folder in ("stag_jax", "datasets")
    )
    assert one == other


def test_workers_end_with_the_process_that_started_them(tmp_path):
    code = (
        "from stag_jax import processes; import os, signal, time, sys\n"
        "if __name__ == '__main__':\n"
        "    with processes.pool(2) as pool:\n"
        "        print(*{pool.submit(os.getpid).result() for _ in range(4)}, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "parent.py").write_text(code)
    done = subprocess.run([sys.executable, tmp_path / "parent.py"], capture_output=True, text=True)
    workers = [int(word) for word in done.stdout.split()]
    assert workers and done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_signals_are_left_alone_where_no_script_runs():
    before = [signal.getsignal(number) for number in interrupts.NUMBERS]
    interrupts.raise_them()
    interrupts.end_at_once()
    assert [signal.getsignal(number) for number in interrupts.NUMBERS] == before and os.getpid()


ENDING = """
import os, signal, sys
sys.modules["__main__"].__file__ = {script!r}
from stag_experiments import interrupts

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)  # when Python has given up its own handlers

last = Last()
"""


def test_a_signal_to_a_script_that_has_ended_changes_nothing():
    program = ENDING.format(script=str(commands.ROOT / "experiments" / "train.py"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
