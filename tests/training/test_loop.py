"""Whole runs on a small archive: what they leave behind, that they resume to the last digit, and how they fail."""

import csv
import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from stag_datasets import corpus
from stag_jax import config as config_lib
from stag_jax.analysis import attributions, load_run
from stag_jax.corpora import dataset, features
from stag_jax.model import network
from stag_jax.protocol import metrics
from stag_jax.protocol import splits as splits_lib
from stag_jax.protocol.metrics import EvaluationSet
from stag_jax.training import checkpoint, history, loop, outcome, stepping, workdir
from stag_jax.training.trained import TrainedFolds
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
    with jax.numpy_dtype_promotion("standard"):
        return workdir, loop.run(config, workdir, folder), config


def rows(folder, name="predictions.csv"):
    with (folder / name).open(newline="") as file:
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


def test_each_seed_has_its_own_predictions_and_the_run_their_mean(finished):
    folder, result, _ = finished
    table, pooled = rows(folder, "predictions_by_seed.csv"), rows(folder)
    probabilities = [f"p_{name}" for name in CLASSES]
    assert list(table[0]) == ["id", "dataset", "subject", "label", "seed", "prediction", *probabilities]
    assert [row["seed"] for row in table] == ["0"] * 35 + ["3"] * 35
    each = [table[:35], table[35:]]
    for of_seed in each:
        for row, mean in zip(of_seed, pooled, strict=True):
            assert all(row[key] == mean[key] for key in ("id", "dataset", "subject", "label"))
            assert row["prediction"] == CLASSES[int(np.argmax([float(row[key]) for key in probabilities]))]
    for name in probabilities:
        mean = np.mean([[float(row[name]) for row in of_seed] for of_seed in each], axis=0)
        np.testing.assert_allclose(mean, [float(row[name]) for row in pooled], atol=1e-7)
    label = np.array([CLASSES.index(row["label"]) for row in pooled])
    by_seed = np.array([[CLASSES.index(row["prediction"]) for row in of_seed] for of_seed in each])
    for seed, said in zip(("0", "3"), by_seed, strict=True):
        assert result["per_seed"][seed] == metrics.mean_scores(label, said, 3)
    found = result["mean_over_seeds"]["uf1"]
    assert found["mean"] == pytest.approx(np.mean([scores["uf1"] for scores in result["per_seed"].values()]))
    subjects = [row["subject"] for row in pooled]
    assert found["ci95"] == metrics.subject_bootstrap(EvaluationSet(label, subjects, 3, 50), by_seed)["uf1"]


def test_predictions_by_seed_are_read_as_they_were_written(finished, prepared, tmp_path):
    folder, _, config = finished
    clips = dataset.load(prepared[0], config)
    found = workdir.read_by_seed(folder, clips, CLASSES)
    assert found.shape == (2, 35, 3) and found.dtype == np.float32
    workdir.write_predictions(tmp_path, clips, CLASSES, config.seeds, found)
    for name in (workdir.PREDICTIONS, workdir.BY_SEED):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    swapped = clips._replace(ids=clips.ids[::-1], batch=clips.batch._replace(label=clips.batch.label[::-1]))
    np.testing.assert_array_equal(workdir.read_by_seed(folder, swapped, CLASSES), found[:, ::-1])

    first = clips.ids[0]
    other = clips._replace(ids=("nobody", *clips.ids[1:]))
    with pytest.raises(UserError, match=rf"clip {first} is labelled \w+ there; here it is not among the clips$"):
        workdir.read_by_seed(folder, other, CLASSES)
    with pytest.raises(UserError, match=rf"clip {first} is labelled (\w+) there; here it is (?!\1)\w+$"):
        workdir.read_by_seed(folder, clips, CLASSES[1:] + CLASSES[:1])
    with pytest.raises(UserError, match=r"has no column p_fear$"):
        workdir.read_by_seed(folder, clips, (*CLASSES, "fear"))
    more = clips._replace(ids=(*clips.ids, "more"), batch=clips.batch._replace(label=np.append(clips.batch.label, 0)))
    with pytest.raises(UserError, match=r"has no row for clip more and seed 0$"):
        workdir.read_by_seed(folder, more, CLASSES)
    with pytest.raises(UserError, match=r"predictions_by_seed\.csv is missing"):
        workdir.read_by_seed(tmp_path / "empty", clips, CLASSES)


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
    run = TrainedFolds(workdir)
    assert run.names == ["casme2_sub02", "casme2_sub04", "smic_s01", "smic_s03", "smic_s05"]
    trained = run.weights("smic_s03")
    assert trained.params["logits"]["kernel"].shape[0] == 2
    assert not np.array_equal(*trained.params["logits"]["kernel"])
    with pytest.raises(UserError, match=r"no fold 'smic_s99'; there are: casme2_sub02"):
        run.weights("smic_s99")


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
        config_lib.to_dict(config)
        | {"checkpoint": {"every_s": 0.0, "keep": 2, "history": True}, "parallel": _parallel(config)}
    )
    real = stepping.loggers.RunLog.write
    for last in (7, 21):

        def stop(self, step, *rest, last=last):
            real(self, step, *rest)
            if step > last:
                raise Interrupted

        monkeypatch.setattr(stepping.loggers.RunLog, "write", stop)
        with pytest.raises(Interrupted):
            loop.run(config, workdir, prepared[0])
        with checkpoint.StateStore(workdir, 2) as store:
            assert store.latest() == last
    monkeypatch.setattr(stepping.loggers.RunLog, "write", real)
    loop.run(config, workdir, prepared[0])
    for name in ("predictions.csv", "predictions_by_seed.csv"):
        assert (workdir / name).read_bytes() == (whole / name).read_bytes()
    lines = [json.loads(line)["step"] for line in (workdir / "log.jsonl").read_text().splitlines()]
    assert lines == [7, 14, 21, 28, 30]
    past, undisturbed = history.read(workdir), history.read(whole)
    assert past.steps.tolist() == lines and past.metrics.keys() == undisturbed.metrics.keys()
    np.testing.assert_array_equal(past.probability, undisturbed.probability)
    np.testing.assert_array_equal(past.metrics["loss"], undisturbed.metrics["loss"])


def test_nothing_need_be_recorded(prepared, tmp_path):
    config = makers.tiny_config(data__data_dir=prepared[1], train__steps=7, checkpoint__history=False)
    loop.run(config, tmp_path / "run", prepared[0])
    assert history.read(tmp_path / "run") is None and (tmp_path / "run" / "splits.csv").exists()


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


def test_what_was_resolved_is_noted(finished, prepared):
    """What "auto" stood for, and all that shapes the features: in run.json and in the features themselves."""
    folder, _, config = finished
    (origin,) = json.loads((folder / "run.json").read_text())["features"]
    assert origin == features.prepare(prepared[0], config).origin
    assert origin["settings"]["motion"]["first_look"] == "dis" and origin["settings"]["motion"]["patch"] == 3
    assert origin["corpus"]["name"] == "composite_flow" and len(origin["corpus_sha256"]) == 64
    assert origin["predictor"] is None and {"numpy", "opencv-python-headless"} <= set(origin["packages"])


def test_one_subject_only(tmp_path):
    archive = makers.write_composite(tmp_path / "archive", subjects=1)
    folder = corpus.build("composite_flow", data_dir=tmp_path, manual_dir=archive)
    config = makers.tiny_config(data__data_dir=str(tmp_path))
    with pytest.raises(UserError, match="two subjects or more; there is only smic_s01"):
        loop.run(config, tmp_path / "run", folder)


def test_an_independent_reader_finds_the_same_scores(finished):
    """With nothing but splits.csv and predictions.csv, and scikit-learn."""
    folder, result, _ = finished
    tested = {row["id"]: row for row in rows(folder, "splits.csv")}
    said = {row["id"]: row["prediction"] for row in rows(folder)}
    assert list(tested) == list(said)
    assert all(row["tested_in"] == row["subject"] == row["group"] and not row["left_out_of"] for row in tested.values())
    assert len({row["tested_in"] for row in tested.values()}) == result["n_folds"]
    label = [row["label"] for row in tested.values()]
    there = {"labels": CLASSES, "average": "macro"}
    assert sklearn_metrics.f1_score(label, list(said.values()), **there) == pytest.approx(result["uf1"])
    assert sklearn_metrics.recall_score(label, list(said.values()), **there) == pytest.approx(result["uar"])
    assert result["subject_independent"] is True


def test_folds_that_share_subjects_are_marked(finished):
    *_, config = finished
    who = ("a", "a", "a", "b")  # two folds of two clips each: a is on both sides of both
    clips = splits_lib.Clips(who, ("x",) * 4, who, ("",) * 4, np.zeros(4, int))
    protocol = dataclasses.replace(config.protocol, split="stratified", folds=2)
    found = outcome.independence(splits_lib.make_splits(protocol, clips), clips.subjects)
    assert found["subject_independent"] is False and set(found["shared_subjects"]) == {"group1", "group2"}
    text = outcome.summary(finished[1] | found)
    most = max(found["shared_subjects"].values())
    assert f"NOT subject-independent: up to {most} of 5 subjects on both sides of a fold" in text


def test_clips_that_are_only_trained_on_are_not_scored(prepared, tmp_path):
    folder, data_dir = prepared
    changes = {"protocol__split": "dataset", "protocol__test": ("smic",), "train__steps": 7}
    result = loop.run(makers.tiny_config(data__data_dir=data_dir, **changes), tmp_path / "run", folder)
    assert (result["n_folds"], result["n_clips"]) == (1, 21) and set(result["per_dataset"]) == {"smic"}
    assert {row["dataset"] for row in rows(tmp_path / "run")} == {"smic"}
    tested = {row["dataset"]: row["tested_in"] for row in rows(tmp_path / "run", "splits.csv")}
    assert tested == {"casme2": "", "smic": "smic"}
    run = load_run(tmp_path / "run")
    found = attributions.collect(run, run.corpus(folder), quiet=True)
    assert len(found.corpus.ids) == len(found.probability) == 21 and not found.differing


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
    lines = outcome.summary(finished[1]).splitlines()
    assert lines[0].split() == ["UF1", "UAR", "accuracy", "clips"]
    assert [line.split("  ")[0] for line in lines[1:5]] == ["all", "seed mean", "casme2", "smic"]
    mean = finished[1]["mean_over_seeds"]["uf1"]
    assert f" {mean['mean']:.3f} " in lines[2]
    assert lines[5].startswith("UF1 95% interval over subjects: ")
    assert lines[5].endswith("of the mean over 2 seeds: {:.3f} to {:.3f}".format(*mean["ci95"]))
    assert len(lines) == 7
    alone = {key: value for key, value in finished[1].items() if key != "per_seed"}
    assert len(outcome.summary(alone).splitlines()) == 6 and "seed" not in outcome.summary(alone)


def test_leaving_a_corpus_out_needs_two(tmp_path):
    archive = makers.write_composite(tmp_path / "archive", subjects=1)
    folder = corpus.build("composite_flow", data_dir=tmp_path, manual_dir=archive)
    config = makers.tiny_config(data__data_dir=str(tmp_path), protocol__split="dataset")
    with pytest.raises(UserError, match="two or more; there is only smic"):
        loop.run(config, tmp_path / "run", folder)
    assert not (tmp_path / "run").exists()


UNITS = (1, 9, 12, 17)


@pytest.fixture(scope="module")
def crossed(prepared, tmp_path_factory):
    """A finished run that leaves each corpus out in turn, on clips with action units; its workdir, metrics and clips.

    Each class shows a unit of its own, and nobody the last; nothing is known of the clips of one subject.
    """
    folder, data_dir = prepared
    changes = {"protocol__split": "dataset", "graph__units": UNITS, "loss__lambda_au": 3.0, "train__steps": 60}
    config = makers.tiny_config(data__data_dir=data_dir, seeds=(0, 3), **changes)
    clips = dataset.load(folder, config)
    au = np.eye(len(UNITS), dtype=np.float32)[clips.batch.label]
    known = np.array([[subject != "smic_s05"] * len(UNITS) for subject in clips.subjects])
    clips = clips._replace(batch=clips.batch._replace(au=au, au_mask=known))
    place = tmp_path_factory.mktemp("run") / "crossed"
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(dataset, "load", lambda *_: clips)
        return place, loop.run(config, place, folder), clips


def test_each_corpus_is_left_out_in_turn(crossed):
    folder, result, clips = crossed
    assert (result["n_folds"], result["n_subjects"]) == (2, 5) and result["uf1"] > 0.8
    assert [line.split("  ")[0] for line in outcome.summary(result).splitlines()[1:5]] == [
        "all", "seed mean", "casme2", "smic",
    ]  # fmt: skip
    run = TrainedFolds(folder)
    assert run.names == ["casme2", "smic"]
    # What is held out of a fold is the corpus it is named by: its statistics are those of the other one.
    for name in run.names:
        rest = clips.batch.nodes[[each != name for each in clips.datasets]]
        mean, trained = rest.mean(axis=(0, 1, 2)), run.weights(name)
        symmetric = (mean + clips.graph.feature_sign * mean[clips.graph.feature_mirror]) / 2
        np.testing.assert_allclose(trained.statistics.mean, [symmetric] * 2, atol=1e-5)
    found = attributions.collect(load_run(folder), clips, quiet=True)
    assert not found.differing  # the checkpoints bear the predictions out
    confusion = metrics.confusion_matrix(clips.batch.label, found.probability.argmax(axis=1), 3)
    assert confusion.tolist() == result["confusion"]


def test_action_units_are_scored_where_there_are_labels(crossed, finished):
    folder, result, clips = crossed
    table = rows(folder, "au_predictions.csv")
    assert list(table[0]) == ["id", "subject", *(name for unit in UNITS for name in (f"au{unit}", f"p_au{unit}"))]
    for row, name, subject, label in zip(table, clips.ids, clips.subjects, clips.batch.label, strict=True):
        assert (row["id"], row["subject"]) == (name, subject)
        shown = ["" if subject == "smic_s05" else str(int(label == index)) for index in range(len(UNITS))]
        assert [row[f"au{unit}"] for unit in UNITS] == shown
    probability = np.array([[row[f"p_au{unit}"] for unit in UNITS] for row in table], np.float32)
    # Of each clip the mean over the seeds that did not see it.
    run = TrainedFolds(folder)
    chosen = np.array(clips.datasets) == "smic"
    seeds = jax.vmap(lambda weights, batch: network.forward(run.network, weights, batch)[1], in_axes=(0, None))
    aux = seeds(run.weights("smic"), jax.tree.map(lambda x: jnp.asarray(x[chosen]), clips.batch))
    mean = np.mean(jax.nn.sigmoid(aux["au_logits"]), axis=0)
    np.testing.assert_allclose(probability[chosen], mean, atol=1e-5)
    assert result["au"] == metrics.unit_report(clips.batch.au, clips.batch.au_mask, probability, UNITS)
    # At a probability of one half little is found after so few steps, but clips are ranked already; 1/3 is chance.
    assert all(result["au"]["per_unit"][unit]["average_precision"] > 0.5 for unit in ("1", "9", "12"))
    assert result["au"]["per_unit"]["17"] == {"f1": None, "average_precision": None, "positives": 0, "clips": 28}
    assert f"mean F1 of 3 action units: {result['au']['mean_f1']:.3f}" in outcome.summary(result)
    assert "au" not in finished[1] and not (finished[0] / "au_predictions.csv").exists()
    assert "action units" not in outcome.summary(finished[1])
