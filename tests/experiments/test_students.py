"""Students of a run, as a user trains and compares them."""

import csv
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from stag_datasets import corpus
from stag_experiments.benchmarks import students
from stag_jax.analysis import cost, load_run
from stag_jax.corpora import dataset
from stag_jax.protocol import compare, metrics
from stag_jax.protocol.metrics import EvaluationSet
from stag_jax.training import loop, workdir
from stag_jax.types import UserError
from tests import makers

ROOT = Path(__file__).parents[2]
CLASSES = ("negative", "positive", "surprise")
SWEEP = '''"""A small study of students."""
import sys

sys.path.insert(0, {root!r})
from ml_collections import ConfigDict
from tests import makers

TRIALS = (
    ("alone", {{"model": {{"width": 4}}, "distil": {{"weight": 0.0}}}}),
    ("taught", {{"model": {{"width": 4}}, "distil": {{"weight": 0.5}}}}),
    ("patch", {{"motion": {{"patch": 2}}}}),
)


def get_config():
    settings = makers.tiny_settings(**{{"parallel.cpu_devices": 2, "train.steps": 14, "data.data_dir": {data!r}}})
    return ConfigDict({{"settings": settings, "trials": TRIALS, "export_all": True}})
'''


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with a finished teacher and a sweep of students."""
    root = tmp_path_factory.mktemp("study")
    archive = makers.write_composite(root / "archive", subjects=3, clips=6)
    data = str(root / "data")
    folder = corpus.build("composite_flow", data_dir=data, manual_dir=archive)
    (root / "sweep.py").write_text(SWEEP.format(root=str(ROOT), data=data))
    config = makers.tiny_config(data__data_dir=data, train__steps=14, seeds=(2,))
    with jax.numpy_dtype_promotion("standard"):
        loop.run(config, root / "teacher", folder)
    return root, folder, config


def run(root, *flags):
    command = [sys.executable, str(ROOT / "experiments" / "benchmark.py"), "smaller", f"--config={root / 'sweep.py'}"]
    return subprocess.run([*command, *flags], capture_output=True, text=True, timeout=500)


def test_students_beside_their_teacher(study):
    root, folder, config = study
    flags = (f"--workdir={root / 'teacher'}", f"--out={root / 'out'}")
    done = run(root, *flags)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    with (root / "out" / "smaller.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["teacher", "alone", "taught", "patch"]
    assert [row["settings"] for row in rows.values()] == ["", "width 4", "width 4", "patch 2"]
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(table) == 6 and all(line.count(" | ") == 8 for line in table)

    clips = dataset.load(folder, config)
    places = {"teacher": root / "teacher"} | {name: root / "out" / "trials" / name for name in list(rows)[1:]}
    said = {name: workdir.read_by_seed(place, clips, CLASSES).argmax(axis=-1) for name, place in places.items()}
    for name, row in rows.items():
        assert float(row["uf1"]) == pytest.approx(metrics.mean_scores(clips.batch.label, said[name], 3)["uf1"])
        assert int(row["parameters"]) == cost.parameters(workdir.read_config(places[name]))
        assert 0 < float(row["ms"]) < 1e3 and int(row["temporary"]) > 0
        assert bool(row["less_teacher_mean"]) == (name != "teacher")
        assert bool(row["less_untaught_mean"]) == (name == "taught")
        load_run(places[name]).corpus(folder)  # a run of its own, that knows the data of its own settings
    far = compare.paired_bootstrap(
        EvaluationSet(clips.batch.label, clips.subjects, 3, config.protocol.bootstrap), said["taught"], said["alone"]
    )["uf1"]
    found = [float(rows["taught"][f"less_untaught_{key}"]) for key in compare.Difference._fields]
    np.testing.assert_allclose(found, far, atol=1e-9)

    again = run(root, *flags)
    assert again.returncode == 0 and "training" in done.stderr and "training" not in again.stderr  # nothing twice


def test_misuse_is_one_line(study, tmp_path):
    root = study[0]
    done = run(root, f"--workdir={root / 'teacher'}")
    assert done.returncode == 2 and "--out=DIR is missing" in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(UserError, match=r"is no folder of a sweep: sweep\.json is missing"):
        students.measure(root / "teacher", tmp_path)
