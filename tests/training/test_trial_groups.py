"""Sweeps: what is one program, that each trial is what it would be alone, and who chooses."""

import csv
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from stag_datasets import corpus
from stag_experiments.parts import sweep_plan
from stag_jax import config as config_lib
from stag_jax.analysis import sweep_report
from stag_jax.corpora import dataset
from stag_jax.training import loop, trial_groups, workdir
from stag_jax.training.trained import TrainedFolds
from stag_jax.types import UserError
from tests import makers

SPACE = (("train.learning_rate", "choice", 2e-3, 2e-2), ("loss.gamma", "choice", 0.0, 2.0))


def make_plan(data_dir, space=SPACE, **more):
    settings = makers.tiny_settings(**{"data.data_dir": data_dir, "train.steps": 11, "protocol.bootstrap": 20})
    tree = {"settings": settings, "space": space, "search": "grid", "inner_folds": 2, "select": "uf1"}
    return sweep_plan.read(ConfigDict(tree | more))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished sweep of four trials in one program: plan, groups, results, findings, folder, corpus folder."""
    root = tmp_path_factory.mktemp("sweep")
    prepared = corpus.build(
        "composite_flow", data_dir=root, manual_dir=makers.write_composite(root / "archive", subjects=4, clips=6)
    )
    plan = make_plan(str(root))
    groups = trial_groups.make_groups(plan)
    with jax.numpy_dtype_promotion("standard"):
        results = trial_groups.each_group(
            groups, lambda group: trial_groups.run_group(group, plan, root / "run", prepared)
        )
        found = sweep_report.collect(plan, groups, results, root / "run", prepared)
    sweep_report.write(plan, found, root / "run")
    return plan, groups, results, found, root / "run", prepared


def test_numbers_are_one_program_and_structure_is_not():
    space = (*SPACE, ("model.width", "choice", 4, 8))
    plan = make_plan("data", space)
    groups = trial_groups.make_groups(plan)
    assert [len(group.tuned) for group in groups] == [4, 4] and {g.config.model.width for g in groups} == {4, 8}
    for group in groups:
        for name, values in group.tuned.items():
            assert set(values) == {"train.learning_rate", "loss.gamma"}
            assert config_lib.replace(group.config, values) == plan.trials[name]
    # The name says what is compiled, wherever the data lie and however the work is laid out.
    moved = {
        name: config_lib.replace(config, {"data.data_dir": "elsewhere", "parallel.cpu_devices": 3})
        for name, config in plan.trials.items()
    }
    assert [g.name for g in trial_groups.make_groups(plan._replace(trials=moved))] == [group.name for group in groups]
    assert [sorted(g.tuned) for g in trial_groups.make_groups(make_plan("data"))] == [["t0", "t1", "t2", "t3"]]


def test_a_trial_of_a_sweep_is_what_it_would_be_alone(done, tmp_path):
    plan, _, _, found, folder, prepared = done
    # Of its own, a run has larger batches: here the sweep's inner folds are what limits them, so they are given.
    batch = min(plan.settings.train.batch_size, _smallest_inner(plan, prepared))
    config = config_lib.replace(plan.trials["t2"], {"train.batch_size": batch})
    alone = loop.run(config, tmp_path / "alone", prepared)
    a, b = (_probabilities(place) for place in (tmp_path / "alone", folder / "trials" / "t2"))
    np.testing.assert_allclose(a, b, atol=2e-5)
    assert alone["confusion"] == found.results["t2"]["confusion"]
    assert workdir.read_config(folder / "trials" / "t2") == plan.trials["t2"]


def _smallest_inner(plan, prepared):
    from stag_jax.protocol import nested
    from stag_jax.protocol.splits import make_splits

    clips = dataset.load(prepared, plan.settings)
    outer = make_splits(plan.settings.protocol, clips.clips)
    return int(nested.inner_splits(outer, clips.groups, clips.batch.label, 2, 0).train_mask.sum(axis=1).min())


def _probabilities(place):
    with (place / "predictions.csv").open(newline="") as file:
        return np.array([[float(v) for k, v in row.items() if k.startswith("p_")] for row in csv.DictReader(file)])


def test_the_nested_result_is_put_together_from_what_was_chosen(done):
    plan, _, results, found, folder, _ = done
    (result,) = results.values()
    assert list(found.chosen) == [f"{c}_s{i}" if c == "smic" else f"{c}_sub{i}" for c, i in
                                  (("casme2", "02"), ("casme2", "04"), ("smic", "01"), ("smic", "03"))]  # fmt: skip
    names = list(plan.trials)
    for number, trial in enumerate(found.chosen.values()):
        scores = result.inner_uf1[:, number]
        assert names.index(trial) == int(np.argmax(scores)) and scores.max() > 0.3
    with (folder / "nested" / "predictions.csv").open(newline="") as file:
        together = list(csv.DictReader(file))
    for row in together:
        with (folder / "trials" / found.chosen[row["subject"]] / "predictions.csv").open(newline="") as file:
            (own,) = (other for other in csv.DictReader(file) if other["id"] == row["id"])
        assert own == row
    assert json.loads((folder / "nested" / "metrics.json").read_text()) == found.nested
    text = sweep_report.verdict(plan, found)
    assert "inner subjects of its training set" in text and "OPTIMISTIC, not for publication" in text


def test_the_folds_that_were_chosen_can_be_loaded_and_say_the_same(done):
    *_, found, folder, prepared = done
    for name, trial in found.chosen.items():
        run = TrainedFolds(folder / "trials" / trial)
        assert name in run.names
        clips = dataset.load(prepared, run.config)
        own = np.array(clips.subjects) == name
        probability, _ = run.ask(name, clips.take(own).batch)
        np.testing.assert_allclose(probability, _probabilities(folder / "nested")[own], atol=1e-5)


def test_trials_csv_and_the_table_say_what_was_found(done):
    plan, _, results, found, folder, _ = done
    (result,) = results.values()
    with (folder / "trials.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["trial"] for row in table] == list(plan.trials)
    for index, row in enumerate(table):
        assert float(row["train.learning_rate"]) == plan.trials[row["trial"]].train.learning_rate
        assert float(row["inner_uf1"]) == pytest.approx(result.inner_uf1[index].mean(), abs=1e-6)
        uf1 = found.results[row["trial"]]["mean_over_seeds"]["uf1"]
        assert float(row["uf1"]) == pytest.approx(uf1["mean"], abs=1e-6)
        assert [float(row["uf1_low"]), float(row["uf1_high"])] == pytest.approx(uf1["ci95"], abs=1e-6)
        if index:
            less = float(row["uf1"]) - float(table[0]["uf1"])
            assert float(row["less_first"]) == pytest.approx(less, abs=2e-6)
            assert float(row["less_first_low"]) <= float(row["less_first_high"])
    assert sum(int(row["chosen_for_folds"]) for row in table) == len(found.chosen) == 4
    lines = sweep_report.ranked(plan, found).splitlines()[2:]
    best = max(table, key=lambda row: float(row["inner_uf1"]))
    assert lines[0].split("|")[1].strip() == best["trial"]
    assert (folder / "inner_scores.png").stat().st_size > 5000
    with np.load(folder / "inner_scores.npz", allow_pickle=False) as data:
        np.testing.assert_allclose(data["mean"], [float(row["inner_uf1"]) for row in table], atol=1e-6)
        assert data["trials"].tolist() == [row["trial"] for row in table]


def test_a_finished_group_is_only_read(done, monkeypatch):
    plan, groups, results, _, folder, prepared = done
    monkeypatch.setattr(trial_groups.stepping, "train", lambda *_, **__: pytest.fail("trained again"))
    again = trial_groups.each_group(groups, lambda group: trial_groups.run_group(group, plan, folder, prepared))
    for one, two in zip(results.values(), again.values(), strict=True):
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, two, strict=True))
    before = (folder / "trials.csv").read_bytes()
    sweep_report.write(plan, sweep_report.collect(plan, groups, again, folder, prepared), folder)
    assert (folder / "trials.csv").read_bytes() == before
    assert not list((folder / "groups").glob("*/state"))


def test_a_folder_belongs_to_its_sweep(done, tmp_path):
    plan = done[0]
    for same in (plan, plan._replace(settings=config_lib.replace(plan.settings, {"parallel.cpu_devices": 7}))):
        with trial_groups.claimed(tmp_path, same):
            pass
    for other, message in (
        (plan._replace(inner_folds=3), "inner_folds is 2 there and 3 here"),
        (plan._replace(settings=config_lib.replace(plan.settings, {"train.steps": 12})), "settings.train.steps is 11"),
        (plan._replace(changed=plan.changed | {"t9": {"loss.gamma": 5.0}}), "trials.t9"),
    ):
        with pytest.raises(UserError, match=f"belongs to another sweep: {message}"):
            trial_groups.check(tmp_path, other)


def test_a_sweep_that_fails_before_any_result_leaves_no_claim(done, tmp_path):
    with pytest.raises(UserError, match=r"^no face$"), trial_groups.claimed(tmp_path, done[0]):
        assert (tmp_path / trial_groups.PLAN).exists()
        raise UserError("no face")
    assert not (tmp_path / trial_groups.PLAN).exists()
    with pytest.raises(UserError, match=r"^no face$"), trial_groups.claimed(tmp_path, done[0]):
        (tmp_path / "groups" / "group_1").mkdir(parents=True)
        (tmp_path / "groups" / "group_1" / trial_groups.RESULT).touch()
        raise UserError("no face")
    assert (tmp_path / trial_groups.PLAN).exists()  # a result is worth keeping


def test_a_damaged_result_is_named(tmp_path):
    path = tmp_path / "result.npz"
    path.write_bytes(b"half of it")
    with pytest.raises(UserError, match=r"result\.npz is damaged .*; remove it to train the group again$"):
        trial_groups.read_result(path)
