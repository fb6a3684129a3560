"""Whole runs on a small archive: what they leave behind, that they resume to the last digit, and how they fail."""

import csv
import json
import shutil

import numpy as np
import pytest

from stag_datasets import corpus
from stag_jax import config as config_lib
from stag_jax.protocol import metrics
from stag_jax.training import checkpoint, loop, restore
from stag_jax.types import UserError
from tests import makers

CLASSES = ("negative", "positive", "surprise")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A built corpus of 35 clips and 5 subjects, and the data_dir that holds it."""
    root = tmp_path_factory.mktemp("data")
    archive = makers.write_composite(root / "archive")
    return corpus.build("composite_flow", data_dir=root, manual_dir=archive), str(root)


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    """A finished run of two seeds: its workdir and what `run` returned."""
    folder, data_dir = prepared
    config = makers.tiny_config(data__data_dir=data_dir, seeds=(0, 3))
    workdir = tmp_path_factory.mktemp("run") / "whole"
    import jax

    with jax.numpy_dtype_promotion("standard"):
        return workdir, loop.run(config, workdir, folder), config


def rows(workdir):
    with (workdir / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_learns_and_says_so(finished):
    workdir, result, _ = finished
    assert result["uf1"] > 0.8  # the classes of the archive are easy to tell apart
    assert result == json.loads((workdir / "metrics.json").read_text())
    keys = "uf1 uar accuracy weighted_f1 ci95 per_dataset confusion n_clips n_subjects n_folds wall_s compile_s"
    assert set(keys.split()) <= set(result)
    assert (result["n_clips"], result["n_subjects"], result["n_folds"]) == (35, 5, 5)
    assert set(result["per_seed"]) == {"0", "3"}
    assert set(result["per_dataset"]) == {"casme2", "smic"}


def test_predictions_reproduce_the_metrics(finished):
    workdir, result, _ = finished
    table = rows(workdir)
    assert list(table[0]) == ["id", "dataset", "subject", "label", "prediction", *(f"p_{name}" for name in CLASSES)]
    assert len({row["id"] for row in table}) == 35
    label = np.array([CLASSES.index(row["label"]) for row in table])
    chosen = np.array([CLASSES.index(row["prediction"]) for row in table])
    assert metrics.confusion_matrix(label, chosen, 3).tolist() == result["confusion"]
    for row in table:
        values = [float(row[f"p_{name}"]) for name in CLASSES]
        assert abs(sum(values) - 1) < 1e-5 and row["prediction"] == CLASSES[int(np.argmax(values))]


def test_the_log_counts_every_step_once(finished):
    workdir, _, config = finished
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [7, 14, 21, 28, 30]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert json.loads((workdir / "config.json").read_text()) == config_lib.to_dict(config)
    about = json.loads((workdir / "run.json").read_text())
    assert about["n_clips"] == 35 and len(about["data_fingerprint"]) == 64 and about["packages"]["jax"]


def test_each_fold_is_exported_by_name_with_its_seeds(finished):
    workdir, _, _ = finished
    run = restore.open_run(workdir)
    assert restore.fold_names(run) == ["casme2_sub02", "casme2_sub04", "smic_s01", "smic_s03", "smic_s05"]
    trained = restore.load_fold(run, "smic_s03")
    assert trained.params["logits"]["kernel"].shape[0] == 2
    assert not np.array_equal(*trained.params["logits"]["kernel"])
    with pytest.raises(UserError, match=r"no fold 'smic_s99'; there are: casme2_sub02"):
        restore.load_fold(run, "smic_s99")


def test_a_finished_run_is_left_alone(finished, prepared):
    workdir, result, config = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    assert loop.run(config, workdir, prepared[0]) == result
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}


class Interrupted(Exception):
    """Stands for whatever ends a run early."""


def test_an_interrupted_run_ends_in_the_same_predictions(finished, prepared, tmp_path, monkeypatch):
    whole, _, config = finished
    workdir = tmp_path / "parts"
    config = config_lib.from_config_dict(
        config_lib.to_dict(config) | {"checkpoint": {"every_s": 0.0, "keep": 2}, "parallel": _parallel(config)}
    )
    real = loop.loggers.RunLog.write
    for last in (7, 21):

        def stop(self, step, *rest, last=last):
            real(self, step, *rest)
            if step > last:
                raise Interrupted

        monkeypatch.setattr(loop.loggers.RunLog, "write", stop)
        with pytest.raises(Interrupted):
            loop.run(config, workdir, prepared[0])
        with checkpoint.StateStore(workdir, 2) as store:
            assert store.latest() == last
    monkeypatch.setattr(loop.loggers.RunLog, "write", real)
    loop.run(config, workdir, prepared[0])
    assert (workdir / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    lines = [json.loads(line)["step"] for line in (workdir / "log.jsonl").read_text().splitlines()]
    assert lines == [7, 14, 21, 28, 30]


def _parallel(config):
    return config_lib.to_dict(config)["parallel"]


def test_a_workdir_belongs_to_its_config_and_its_data(finished, prepared, tmp_path):
    workdir, _, config = finished
    other = config_lib.to_dict(config)
    other["train"]["learning_rate"] = 0.5
    with pytest.raises(UserError, match=r"belongs to another config: train\.learning_rate is 0\.005 there and 0\.5"):
        loop.run(config_lib.from_config_dict(other), workdir, prepared[0])
    copy = tmp_path / "begun"
    copy.mkdir()
    for name in ("config.json", "run.json"):
        shutil.copy(workdir / name, copy)
    root = tmp_path / "data"
    archive = makers.write_composite(root / "archive", seed=9)
    folder = corpus.build("composite_flow", data_dir=root, manual_dir=archive)
    with pytest.raises(UserError, match="was begun with other data"):
        loop.run(config, copy, folder)


def test_a_loss_that_is_not_finite_names_step_and_fold(prepared, tmp_path):
    folder, data_dir = prepared
    config = makers.tiny_config(data__data_dir=data_dir, train__learning_rate=1e38, train__warmup_steps=1)
    with pytest.raises(UserError, match=r"loss is not finite at step \d+ of fold casme2_sub02 seed 0"):
        loop.run(config, tmp_path / "run", folder)
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not (tmp_path / "run" / "predictions.csv").exists()


def test_one_subject_only(tmp_path):
    archive = makers.write_composite(tmp_path / "archive", subjects=1)
    folder = corpus.build("composite_flow", data_dir=tmp_path, manual_dir=archive)
    config = makers.tiny_config(data__data_dir=str(tmp_path))
    with pytest.raises(UserError, match="two subjects or more; there is only smic_s01"):
        loop.run(config, tmp_path / "run", folder)


def test_a_class_that_only_the_held_out_subject_has_is_a_warning(tmp_path, caplog):
    """Surprise is one subject's alone: its own fold cannot learn it, and the run goes on."""
    archive = makers.write_composite(tmp_path / "archive", subjects=3, clips=6)
    sheet = archive / makers.SHEET
    lines = [line if ",s01," in line else line.replace(",2,,", ",0,,") for line in sheet.read_text().splitlines()]
    sheet.write_text("\n".join(lines) + "\n")
    folder = corpus.build("composite_flow", data_dir=tmp_path, manual_dir=archive)
    config = makers.tiny_config(data__data_dir=str(tmp_path), train__steps=3)
    result = loop.run(config, tmp_path / "run", folder)
    assert result["n_folds"] == 3
    assert "fold smic_s01 has no training clip of class surprise" in caplog.text


def test_the_summary_is_a_short_table(finished):
    text = loop.summary(finished[1])
    assert text.splitlines()[0].split() == ["UF1", "UAR", "accuracy", "clips"]
    assert "UF1 95% interval over subjects" in text and len(text.splitlines()) == 6
