"""The comparison of models: what the classifiers may see, and that the table says what the predictions say."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.svm import SVC

from stag_datasets import corpus
from stag_experiments.benchmarks import accuracy
from stag_jax.analysis import comparison
from stag_jax.corpora import dataset
from stag_jax.model.graph import mirror
from stag_jax.protocol import compare, metrics, splits
from stag_jax.protocol.metrics import EvaluationSet
from stag_jax.training import workdir
from stag_jax.types import UserError
from tests import makers

ROOT = Path(__file__).parents[2]
CLASSES = ("negative", "positive", "surprise")
SEEDS = (0, 3)
CONFIG = '''"""A small study."""
import sys

sys.path.insert(0, {root!r})
from tests import makers


def get_config():
    return makers.tiny_settings(seeds={seeds})
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an archive, a config file and a run, its config, and its corpus."""
    folder = tmp_path_factory.mktemp("study")
    archive = makers.write_composite(folder / "archive", subjects=4, clips=6)
    (folder / "study.py").write_text(CONFIG.format(root=str(ROOT), seeds=SEEDS))
    prepared = corpus.build("composite_flow", data_dir=folder / "data", manual_dir=archive)
    config = makers.tiny_config(data__data_dir=str(folder / "data"), seeds=SEEDS)
    pretend(folder / "run", config, prepared, wrong=0.3)
    return folder, config, prepared


def pretend(folder, config, prepared, wrong, seed=0):
    """Leaves what a finished run leaves, without training: of a model that is wrong in a share of the clips."""
    clips = dataset.load(prepared, config)
    label = clips.batch.label
    rng = np.random.default_rng(seed)
    said = np.where(rng.random((len(config.seeds), len(label))) < wrong, (label + 1) % 3, label)
    probability = (0.4 * np.eye(3)[said] + 0.6 * rng.dirichlet((5, 5, 5), said.shape)).astype(np.float32)
    workdir.claim(folder, config, clips, splits.make_splits(config.protocol, clips.clips))
    workdir.write_predictions(folder, clips, CLASSES, config.seeds, probability)
    each, pooled = probability.argmax(axis=-1), probability.mean(axis=0).argmax(axis=-1)
    result = metrics.report(EvaluationSet(label, clips.subjects, 3, 50), pooled, each, clips.datasets, CLASSES)
    workdir.write_metrics(folder, result | {"wall_s": 7.0, "compile_s": 3.0})


def in_frames(place, frames=5):
    """The clips of the corpus as if they had several frames, of which some are not there."""
    _, config, prepared = place
    clips = dataset.load(prepared, config)
    rng = np.random.default_rng(2)
    b, _, n, d = clips.batch.nodes.shape
    mask = rng.random((b, frames)) < 0.7
    mask[:, 1] = True
    fields = {
        "nodes": rng.normal(size=(b, frames, n, d)).astype(np.float32),
        "times_ms": np.tile(np.arange(frames, dtype=np.float32), (b, 1)),
        "magnitude": rng.uniform(0, 1, (b, frames)).astype(np.float32),
        "frame_mask": mask,
    }
    return clips._replace(batch=clips.batch._replace(**fields))


def flipped(clips):
    return np.asarray(mirror(jax.numpy.asarray(clips.batch.nodes), clips.graph))


def test_the_classifiers_see_the_key_frame_and_the_mean_of_the_frames_that_are_there(place):
    clips = in_frames(place)
    key, both = (accuracy._inputs(clips, cut) for cut in (accuracy._key, accuracy._mean_and_key))
    for nodes, seen_key, seen_both in zip((clips.batch.nodes, flipped(clips)), key, both, strict=True):
        for clip, frames in enumerate(nodes):
            there = [f for f in range(5) if clips.batch.frame_mask[clip, f]]
            best = max(there, key=lambda f: clips.batch.magnitude[clip, f])
            mean = sum(frames[f] for f in there) / len(there)
            np.testing.assert_array_equal(seen_key[clip], frames[best].ravel())
            np.testing.assert_allclose(seen_both[clip], np.append(mean, frames[best]), atol=1e-6)
    assert not np.allclose(*key)


class Witness(ClassifierMixin, BaseEstimator):
    """Notes what it is taught, and knows only the classes that it was taught."""

    seen = []  # noqa: RUF012

    def fit(self, rows, label):
        self.classes_ = np.unique(label)
        self.seen.append((rows, label))
        return self

    def predict_proba(self, rows):
        return np.tile((self.classes_ + 1) / 10, (len(rows), 1))


def test_a_classifier_learns_from_training_clips_and_their_mirror_images_alone(place):
    _, config, prepared = place
    clips = dataset.load(prepared, config)
    # Surprise is shown by one subject alone, whose own fold has never seen it.
    own = np.array(clips.subjects) == "smic_s01"
    clips = clips._replace(batch=clips.batch._replace(label=np.where(own, clips.batch.label, clips.batch.label % 2)))
    plain, mirrored = accuracy._inputs(clips, accuracy._key)
    folds = splits.loso(clips.subjects)
    found = accuracy._held_out(lambda seed: Witness(), 0, (plain, mirrored), clips, folds, 3, "witness")
    assert len(Witness.seen) == 4
    for name, test, (rows, taught) in zip(folds.names, folds.test_mask, Witness.seen, strict=True):
        train = [clip for clip in range(24) if clips.subjects[clip] != name]
        raw = np.array([plain[clip] for clip in train] + [mirrored[clip] for clip in train]).astype(float)
        np.testing.assert_allclose(rows, (raw - raw.mean(axis=0)) / raw.std(axis=0), atol=1e-4)
        assert taught.tolist() == [int(clips.batch.label[clip]) for clip in train] * 2
        classes = [0.1, 0.2, 0.0] if name == "smic_s01" else [0.1, 0.2, 0.3]
        np.testing.assert_allclose(found[test], np.tile(classes, (6, 1)))
    alone = clips._replace(batch=clips.batch._replace(label=np.where(own, clips.batch.label, 0)))
    with pytest.raises(UserError, match=r"^fold smic_s01 has training clips of one class only"):
        accuracy._held_out(lambda seed: Witness(), 0, (plain, mirrored), alone, folds, 3, "witness")


@pytest.mark.parametrize("split", ["loso", "dataset"])
def test_the_table_says_what_the_predictions_say(place, tmp_path, split):
    _, config, prepared = place
    settings = {"data__data_dir": config.data.data_dir, "protocol__split": split}
    config = makers.tiny_config(**settings, seeds=SEEDS)
    pretend(tmp_path / "run", config, prepared, wrong=0.3)
    other = makers.tiny_config(**settings, seeds=(0, 1, 2), model__name="apex_only")
    pretend(tmp_path / "other", other, prepared, wrong=0.5, seed=1)
    table = accuracy.measure(config, tmp_path / "run", prepared, [tmp_path / "other"])
    assert table.clock.startswith("wall clock: 7 s of training, compiled in 3 s; the classifiers ")
    assert [row.model for row in table.rows[:4]] == [
        f"stag, {tmp_path / 'run'}",
        f"apex_only, {tmp_path / 'other'}",
        "RBF SVM of the key frame",
        "network of 64 units of the key frame",
    ]
    assert [(row.corpus, row.clips) for row in table.rows[::4]] == [("all", 24), ("casme2", 12), ("smic", 12)]
    assert [row.seeds for row in table.rows] == [2, 3, 1, 2] * 3

    clips, result = dataset.load(prepared, config), workdir.finished(tmp_path / "run")
    own, apex = (workdir.read_by_seed(tmp_path / name, clips, CLASSES) for name in ("run", "other"))
    parts = (result, result["per_dataset"]["casme2"], result["per_dataset"]["smic"])
    for number, part in enumerate(parts):
        first, second, svm, _ = table.rows[4 * number : 4 * number + 4]
        mean = part["mean_over_seeds"]["uf1"]
        assert (first.uf1, [first.low, first.high]) == (mean["mean"], mean["ci95"])
        assert first.ensemble == part["uf1"] and first.difference is None and svm.ensemble is None
        chosen = np.array([first.corpus in ("all", name) for name in clips.datasets])
        label, subjects = clips.batch.label[chosen], np.array(clips.subjects)[chosen].tolist()
        said = [each[:, chosen].argmax(axis=-1) for each in (own, apex)]
        assert second.difference == compare.paired_bootstrap(EvaluationSet(label, subjects, 3, 50), *said)["uf1"]
        assert svm.difference.mean == first.uf1 - svm.uf1

    # The SVM, written out.
    plain, mirrored = clips.batch.nodes.reshape(24, -1).astype(float), flipped(clips).reshape(24, -1)
    groups, said = np.array(clips.subjects if split == "loso" else clips.datasets), np.zeros(24, int)
    for name in set(groups):
        train = groups != name
        taught = np.concatenate([plain[train], mirrored[train]])
        mean, spread = taught.mean(axis=0), taught.std(axis=0)
        machine = SVC(C=1, gamma="scale").fit((taught - mean) / spread, np.tile(clips.batch.label[train], 2))
        said[~train] = machine.predict((plain[~train] - mean) / spread)
    assert table.rows[2].uf1 == metrics.mean_scores(clips.batch.label, said, 3)["uf1"] > 0.6


def test_clips_of_several_frames_have_a_row_for_their_mean(place):
    _, config, _ = place
    clips = in_frames(place)
    folds = splits.loso(clips.subjects)
    found = accuracy._references(clips, folds, config)
    assert [(model.name, len(model.probability)) for model in found] == [
        ("RBF SVM of the key frame", 1),
        ("RBF SVM of the key frame and the mean over frames", 1),
        ("network of 64 units of the key frame", 2),
    ]
    np.testing.assert_allclose(found[2].probability.sum(axis=-1), 1, atol=1e-5)
    assert not np.allclose(*found[2].probability)
    for one, again in zip(found, accuracy._references(clips, folds, config), strict=True):
        np.testing.assert_array_equal(one.probability, again.probability)


def test_runs_that_cannot_be_compared_are_refused(place, tmp_path, monkeypatch):
    _, config, prepared = place
    monkeypatch.setattr(accuracy.loop, "run", lambda *_: pytest.fail("trained before all was looked at"))

    def refuse(name, message):
        with pytest.raises(UserError, match=message):
            accuracy.measure(config, tmp_path / "new", prepared, [tmp_path / name])

    refuse("none", r"none is no workdir of a run: config\.json is missing$")
    crossed = makers.tiny_config(data__data_dir=config.data.data_dir, protocol__split="dataset")
    pretend(tmp_path / "crossed", crossed, prepared, wrong=0.2)
    refuse("crossed", r"crossed was run with config\.protocol\.split 'dataset', not 'loso'$")
    archive = makers.write_composite(tmp_path / "archive", subjects=4, clips=5)
    fewer = corpus.build("composite_flow", data_dir=tmp_path, manual_dir=archive)
    pretend(tmp_path / "fewer", config, fewer, wrong=0.2)
    refuse("fewer", r"predictions_by_seed\.csv has no row for clip casme2/sub02/EP06_01 and seed 0$")
    (tmp_path / "fewer" / "metrics.json").unlink()
    refuse("fewer", r"fewer is not finished; run experiments/train\.py on it again$")


def test_scikit_learn_is_asked_for_by_name(monkeypatch):
    accuracy.check_installed()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r'the extra "test" brings: pip install -e "\.\[test\]"$'):
        accuracy.check_installed()


def test_rows_as_cells_and_as_numbers(tmp_path):
    far = compare.Difference(-0.0123, -0.1, 0.05, 0.75)
    rows = [
        comparison.ComparedRow("stag, x", "all", 24, 3, 0.8123, 0.7, 0.9, 0.8256, None),
        comparison.ComparedRow("svm", "smic", 12, 1, 0.8246, 0.71, 0.91, None, far),
    ]
    assert comparison.cells(rows[0]) == ("stag, x", "24", "3", "0.812 [0.700, 0.900]", "0.826", "")
    expected = ("svm", "12 of smic", "1", "0.825 [0.710, 0.910]", "", "-0.012 [-0.100, +0.050], p = 0.7500")
    assert comparison.cells(rows[1]) == expected
    assert len(comparison.cells(rows[0])) == len(comparison.HEADER)
    with comparison.write(rows, tmp_path / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["ensemble"] == "0.8256" and first["difference_mean"] == first["difference_p"] == ""
    assert [float(second[f"difference_{name}"]) for name in ("mean", "low", "high", "p")] == list(far)
    assert (second["corpus"], second["uf1"], second["ensemble"]) == ("smic", "0.8246", "")


def test_the_script_prints_one_table(place, tmp_path):
    folder, config, _ = place
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    data = (f"--config.data.data_dir={config.data.data_dir}", f"--config.data.manual_dir={folder / 'archive'}")
    command = [sys.executable, str(ROOT / "experiments" / "benchmark.py"), "accuracy"]
    command += [f"--config={folder / 'study.py'}", *data, f"--out={tmp_path}"]

    def run(*more):
        return subprocess.run([*command, *more], capture_output=True, text=True, env=env, timeout=300)

    done = run(f"--workdir={folder / 'run'}")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[0].startswith("| model | clips | seeds | UF1") and set(lines[1]) <= set("| -")
    assert len(lines) == 2 + 3 * 3 + 2 and lines[2].startswith(f"| stag, {folder / 'run'} | 24 | 2 | ")
    assert lines[-2].startswith("wall clock: 7 s") and lines[-1] == str(tmp_path / "accuracy.csv")
    with (tmp_path / "accuracy.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    mean = json.loads((folder / "run" / "metrics.json").read_text())["mean_over_seeds"]["uf1"]["mean"]
    assert float(first["uf1"]) == mean and f"{mean:.3f} [" in lines[2]
    missing = run()
    assert missing.returncode == 2 and "error: --workdir=DIR is missing" in missing.stderr
