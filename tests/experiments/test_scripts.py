"""The scripts as a user runs them: in processes of their own, killed, misused, and run again."""

import csv
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stag_experiments import benchmark
from stag_jax import config as config_lib
from tests import archives, makers

ROOT = Path(__file__).parents[2]
CONFIG = '''"""A small study."""
import sys

sys.path.insert(0, {root!r})
from tests import makers


def get_config():
    return makers.tiny_settings(**{{"parallel.cpu_devices": 2, "checkpoint.every_s": 0.0}})
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an archive and a config file."""
    folder = tmp_path_factory.mktemp("study")
    makers.write_composite(folder / "archive", subjects=3, clips=6)
    (folder / "study.py").write_text(CONFIG.format(root=str(ROOT)))
    return folder


def command(place, script, *flags):
    return [sys.executable, str(ROOT / "experiments" / f"{script}.py"), *map(str, flags)]


def train_flags(place, workdir, *flags):
    data = (f"--config.data.manual_dir={place / 'archive'}", f"--config.data.data_dir={place / 'data'}")
    return (f"--config={place / 'study.py'}", *data, f"--workdir={workdir}", *flags)


def run(place, script, *flags, check=False):
    # The suite's own flags would slow a user's program or change its devices.
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(command(place, script, *flags), capture_output=True, text=True, env=env, timeout=300)
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def finished(place):
    """A workdir that one undisturbed run has finished."""
    done = run(place, "train", *train_flags(place, place / "whole"), check=True)
    return place / "whole", done


def test_train_builds_trains_and_prints_a_table(finished):
    workdir, done = finished
    assert "UF1 95% interval over subjects" in done.stdout
    assert "step/s" in done.stderr and "loss=" in done.stderr
    assert "Traceback" not in done.stderr
    result = json.loads((workdir / "metrics.json").read_text())
    assert result["n_folds"] == 3 and result["n_clips"] == 18 and result["compile_s"] > 0


def test_a_finished_workdir_is_said_to_be_so(place, finished):
    again = run(place, "train", *train_flags(place, finished[0]), check=True)
    assert "is finished; nothing to do" in again.stderr
    assert again.stdout.splitlines()[-1] == finished[1].stdout.splitlines()[-1]


def test_killed_at_random_moments_it_predicts_the_same_to_the_last_digit(place, finished):
    workdir = place / "killed"
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    for _ in range(2):
        process = subprocess.Popen(
            command(place, "train", *train_flags(place, workdir)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
        )
        before = _lines(workdir)
        # Some time after training has moved on, in the middle of whatever it does then: a step, or a save.
        deadline = time.monotonic() + 240
        while process.poll() is None and _lines(workdir) <= before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
    run(place, "train", *train_flags(place, workdir), check=True)
    same = (workdir / "predictions.csv").read_bytes() == (finished[0] / "predictions.csv").read_bytes()
    assert same, f"random seed of the kill: {seed}"


def _lines(workdir):
    path = workdir / "log.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_analyze_writes_a_page(place, finished):
    workdir = finished[0]
    done = run(place, "analyze", f"--workdir={workdir}", f"--compare={workdir}", check=True)
    page = workdir / "report" / "index.html"
    assert done.stdout.startswith(str(page)) and "No difference can be told" in page.read_text()
    result = json.loads((workdir / "metrics.json").read_text())
    with (workdir / "report" / "tables" / "confusion.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [[int(v) for v in row[1:4]] for row in rows[1:]] == result["confusion"]
    with (workdir / "report" / "tables" / "per_class.csv").open(newline="") as file:
        scores = [float(row["F1"]) for row in csv.DictReader(file)]
    assert abs(sum(scores) / 3 - result["uf1"]) < 1e-9


def test_analyze_says_where_there_is_no_run(place, tmp_path):
    done = run(place, "analyze", f"--workdir={tmp_path}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is no workdir of a run" in done.stderr


def test_prepare_says_what_there_is(place, tmp_path):
    flags = (f"--config={place / 'study.py'}", "--dataset=composite_flow", f"--manual_dir={place / 'archive'}")
    done = run(place, "prepare", *flags, f"--data_dir={tmp_path / 'data'}", check=True)
    assert "18 clips, 3 subjects" in done.stdout
    assert list((tmp_path / "data" / "features").glob("composite_flow-*.npz"))


def test_prepare_reports_every_clip_of_frames(place, tmp_path):
    """In worker processes, as a user has it; the second time all of it comes from the cache."""
    flags = ("--dataset=synth_me/tiny", f"--data_dir={tmp_path}")
    first = run(place, "prepare", *flags, check=True)
    (table,) = (tmp_path / "reports").glob("synth_me-tiny-*/clips.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20 and all(int(row["frames"]) in range(20, 25) for row in rows)
    assert all(row["refused"] == "0" and float(row["eyes_raw_px"]) > 70 for row in rows)
    assert {row["apex_error"] for row in rows} <= {str(i) for i in range(-20, 20)}
    assert sorted(path.name for path in table.parent.iterdir()) == ["clips.csv", "sheet_01.png"]
    assert "largest movement to annotated apex: median" in first.stdout
    second = run(place, "prepare", *flags, check=True)
    assert first.stdout.endswith(second.stdout) and "features:" not in second.stderr


def test_a_run_is_exported_and_the_file_taken_for_a_recording(place, finished, tmp_path):
    """The run is of flow images, so the file is opened and its recogniser refused for video."""
    done = run(place, "export", f"--workdir={finished[0]}", f"--out={tmp_path}", "--precision=int8", check=True)
    path = tmp_path / "stablehlo-int8.stag"
    assert done.stdout == f"{path}: {path.stat().st_size / 1e6:.3f} MB\n" and "Traceback" not in done.stderr
    archives.write_frames(tmp_path / "frames", range(1, 4))
    said = run(place, "predict", f"--model={path}", f"--video={tmp_path / 'frames'}", "--fps=30")
    assert said.returncode == 2 and "stablehlo-int8.stag is for flow images" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("export", ("--workdir={run}",), "--out=DIR is missing"),
        ("export", ("--out={tmp}",), "--workdir=DIR is missing"),
        (
            "export",
            ("--workdir={run}", "--out={tmp}", "--format=coreml"),
            "--format=coreml is none of stablehlo, onnx, tflite",
        ),
        ("export", ("--workdir={run}", "--out={tmp}", "--precision=f16"), "--precision=f16 is none of f32, bf16, int8"),
        ("export", ("--workdir={run}", "--out={tmp}", "--fold=s9"), "has no fold 's9'"),
        ("export", ("--workdir={tmp}", "--out={tmp}"), "is no workdir of a run"),
        ("benchmark", ("forward",), "--workdir=DIR is missing"),
        ("benchmark", ("forward", "--workdir={tmp}"), "is no workdir of a run"),
        ("benchmark", ("runtime", "--workdir={run}"), "--out=DIR is missing"),
        ("predict", (), "--video=PATH is missing"),
        ("predict", ("--video=x.mp4", "--workdir={run}", "--model=x.stag"), "--workdir=DIR and --model=FILE are two"),
        ("predict", ("--video={tmp}/config.json", "--model={tmp}/x.stag"), "x.stag cannot be read"),
        ("predict", ("--video={tmp}/config.json", "--model={tmp}/config.json"), "config.json is no exported network"),
        ("predict", ("--video=x.mp4", "--model=x.stag", "--fold=s1"), "--fold is for --workdir"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_misuse_of_exported_networks_is_one_line_and_code_2(place, finished, tmp_path, script, flags, message):
    if script == "predict":
        (tmp_path / "config.json").write_text("{}")
    done = run(place, script, *(flag.format(run=finished[0], tmp=tmp_path) for flag in flags))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert not list(tmp_path.glob("*.stag"))


def test_benchmark_wants_a_part_that_it_knows(place):
    for arguments, message in (((), "name a part to measure: accelerator"), (("engine",), "(got 'engine')")):
        done = run(place, "benchmark", *arguments)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
        assert all(f"\n  {part} " in done.stdout for part in ("frontend", "members", "report"))
    assert "unexpected argument 'twice'" in run(place, "benchmark", "frontend", "twice").stderr


def test_benchmark_shows_the_flags_of_one_part(place):
    everything = run(place, "benchmark", "--help", check=True).stdout
    members = run(place, "benchmark", "members", "--help", check=True).stdout
    assert "\n  soak " in everything and "--chunks" not in everything
    assert all(flag in members for flag in ("--chunks", "--curves", "--config", "--out"))
    assert not any(flag in members for flag in ("--kills", "--minutes", "--media", "--against"))


def test_every_part_of_the_benchmark_is_a_module_with_flags_and_main():
    for module, text in benchmark.PARTS.values():
        part = importlib.import_module(f"{benchmark.PACKAGE}.{module}")
        assert callable(part.define_flags) and callable(part.main) and text


def _bad(place, folder, changes):
    flags = dict(part[2:].split("=", 1) for part in train_flags(place, folder / "bad"))
    flags["config.data.data_dir"] = str(folder / "data")
    for key, value in changes.items():
        if value is None:
            flags = {name: old for name, old in flags.items() if name.split(".")[0] != key}
        else:
            flags[key] = value
    return [f"--{key}={value}" for key, value in flags.items()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.data.manual_dir": ""}, "composite_flow is not shipped"),
        ({"config.data.manual_dir": "/nowhere"}, "/nowhere is not a folder"),
        ({"config.model.widht": "3"}, "unknown config key config.model.widht; did you mean config.model.width?"),
        ({"config.train.steps": "many"}, "many"),
        ({"config": "nothing.py"}, "nothing.py"),
        (
            {"config": None, "config.data.manual_dir": None, "config__data__data_dir": None},
            "--config=FILE is missing",
        ),
        ({"workdir": None}, "--workdir=DIR is missing"),
        ({"config.data.dataset": "casme9"}, "no corpus named 'casme9'"),
        ({"config.model.name": "stagg"}, "config.model.name must be one of stag, apex_only, two_stream, got 'stagg'"),
        ({"wrokdir": "x"}, "wrokdir"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_misuse_is_one_line_and_code_2(place, tmp_path, changes, message):
    done = run(place, "train", *_bad(place, tmp_path, changes))
    assert done.returncode == 2, done.stderr[-2000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bad").exists()


def test_help_names_the_flags(place):
    done = run(place, "train", "--help", check=True)
    assert "--workdir" in done.stdout and "--config" in done.stdout


def test_every_config_file_names_the_command_that_runs_it():
    for path in sorted((ROOT / "configs").glob("*.py")):
        if path.name not in ("__init__.py", "base.py"):
            assert f"--config=configs/{path.name}" in path.read_text(), path.name


def test_tiny_settings_are_settings():
    assert config_lib.from_config_dict(makers.tiny_settings()) == makers.tiny_config()
