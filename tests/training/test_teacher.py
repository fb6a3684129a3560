"""Learning from a finished run: who teaches whom, what is said, what is refused; and a fold that tests nobody."""

import csv
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from stag_datasets import corpus
from stag_jax import config as config_lib
from stag_jax.analysis import load_run
from stag_jax.corpora import dataset
from stag_jax.deploy import recognition
from stag_jax.protocol import splits as splits_lib
from stag_jax.training import history, loop, outcome, teacher, trial_groups, workdir
from stag_jax.training.trained import TrainedFolds
from stag_jax.types import UserError
from tests import makers

STEPS = 14


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A corpus of 21 clips of 3 subjects, its folder, and a teacher of two seeds, larger than its students."""
    root = tmp_path_factory.mktemp("study")
    archive = makers.write_composite(root / "archive", subjects=3, clips=7)
    folder = corpus.build("composite_flow", data_dir=root, manual_dir=archive)
    config = makers.tiny_config(data__data_dir=str(root), seeds=(0, 3), train__steps=STEPS, motion__patch=4)
    with jax.numpy_dtype_promotion("standard"):
        loop.run(config, root / "teacher", folder)
    return root, folder, config


def student(study, **changes):
    """Settings of a student: of fewer features than its teacher."""
    root = study[0]
    given = {"data__data_dir": str(root), "distil__teacher": str(root / "teacher"), "train__steps": STEPS}
    return makers.tiny_config(**given | changes)


def ask(study, config):
    clips = dataset.load(study[1], config)
    splits = splits_lib.make_splits(config.protocol, clips.clips)
    return clips, splits, teacher.answers(config, clips, splits, study[1])


def test_each_fold_is_taught_by_the_networks_that_left_out_the_same_subject(study):
    root, folder, own = study
    clips, splits, found = ask(study, student(study))
    assert found.shape == (3, 21, 3) and np.isfinite(found).all()
    run, theirs = TrainedFolds(root / "teacher"), dataset.load(folder, own)
    for name, train, soft in zip(splits.names, splits.train_mask, found, strict=True):
        expected, _ = run.ask(name, theirs.batch)
        np.testing.assert_allclose(np.exp(soft[train]), expected[train], rtol=1e-4, atol=1e-6)
        assert not soft[~train].any()  # it was not asked
    assert clips.ids == theirs.ids


def test_clips_that_are_held_out_are_not_asked_about(study, monkeypatch):
    """With other features in the held-out rows of each fold, not a bit of what is said to it changes."""
    _, splits, found = ask(study, student(study))
    load = dataset.load
    for index, test in enumerate(splits.test_mask):

        def poisoned(corpora, config, test=test):
            made = load(corpora, config)
            nodes = np.where(test[:, None, None, None], np.float32(np.nan), made.batch.nodes)
            return made._replace(batch=made.batch._replace(nodes=nodes))

        with monkeypatch.context() as patch:
            patch.setattr(dataset, "load", poisoned)
            _, _, dirty = ask(study, student(study))
        np.testing.assert_array_equal(dirty[index], found[index])


def test_a_fold_of_everybody_is_taught_by_all_folds(study):
    root, folder, own = study
    _, splits, found = ask(study, student(study, protocol__split="all"))
    assert splits.names == ("all",) and found.shape == (1, 21, 3)
    run, theirs = TrainedFolds(root / "teacher"), dataset.load(folder, own)
    each = [run.ask(name, theirs.batch)[0] for name in run.names]
    assert len(each) == 3
    np.testing.assert_allclose(np.exp(found[0]), np.mean(each, axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("changes", [{"distil__teacher": ""}, {"distil__weight": 0.0}])
def test_without_a_share_nobody_is_asked(study, changes):
    assert ask(study, student(study, **changes))[2] is None


@pytest.fixture
def another(study, tmp_path):
    """A teacher that a test may spoil."""
    return shutil.copytree(study[0] / "teacher", tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distil__teacher": "/nowhere"}, r"/nowhere is no workdir of a run"),
        ({"data__classes": ("negative", "surprise")}, r"teacher has config\.data\.classes \('negative', 'positive', "),
        ({"graph__units": (1, 12)}, r"teacher has config\.graph\.units \(1, 2, 4"),
        ({"protocol__split": "group", "protocol__folds": 2}, r"teacher has no fold group1; there are: casme2_sub02, "),
    ],
)
def test_a_teacher_that_cannot_be(study, changes, message):
    with pytest.raises(UserError, match=message):
        ask(study, student(study, **changes))


def test_a_teacher_that_is_not_finished_or_lacks_a_fold(study, another):
    shutil.rmtree(another / "folds" / "smic_s03")
    with pytest.raises(UserError, match=r"other has no fold smic_s03; there are: casme2_sub02, smic_s01$"):
        ask(study, student(study, distil__teacher=str(another)))
    (another / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"other is not finished"):
        ask(study, student(study, distil__teacher=str(another)))


def _edit(path, change):
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(row for row in map(change, table) if row)


def test_a_fold_of_that_name_that_has_seen_the_subject_is_refused(study, another):
    """Names alone prove nothing: folds of groups are numbered, whoever is in them."""
    _edit(another / "splits.csv", lambda row: row | {"tested_in": "smic_s03" if row["tested_in"] else ""})
    message = r"fold casme2_sub02 of .*other was trained on clip casme2/sub02/EP01_01, which the fold of this name"
    with pytest.raises(UserError, match=message):
        ask(study, student(study, distil__teacher=str(another)))
    # A fold that tests nobody can be taught by anyone.
    ask(study, student(study, distil__teacher=str(another), protocol__split="all"))


def test_a_teacher_of_other_clips(study, another):
    first = "casme2/sub02/EP01_01"
    _edit(another / "splits.csv", lambda row: None if row["id"] == first else row)
    with pytest.raises(UserError, match=rf"other is about other clips: it has no clip {first} \(splits\)$"):
        ask(study, student(study, distil__teacher=str(another)))


def test_a_student_is_a_run_like_any_other(study, tmp_path):
    _, folder, _ = study
    config = student(study, distil__weight=0.9, augment__mixup=0.3)
    result = loop.run(config, tmp_path / "student", folder)
    alone = loop.run(config_lib.replace(config, {"distil.teacher": ""}), tmp_path / "alone", folder)
    assert result["n_clips"] == alone["n_clips"] == 21 and result["n_folds"] == 3
    one, other = ((tmp_path / name / "predictions.csv").read_text() for name in ("student", "alone"))
    assert one != other
    found = history.read(tmp_path / "student").metrics["teacher_loss"]
    assert np.isfinite(found).all() and found.shape[1:] == (1, 3)
    assert loop.run(config, tmp_path / "student", folder) == result
    with pytest.raises(UserError, match=r"belongs to another config: distil\.weight is 0\.9 there and 0\.4 here"):
        loop.run(config_lib.replace(config, {"distil.weight": 0.4}), tmp_path / "student", folder)


def test_a_teacher_that_was_trained_again_is_another(study, another, tmp_path):
    config = student(study, distil__teacher=str(another))
    clips = dataset.load(study[1], config)
    splits = splits_lib.make_splits(config.protocol, clips.clips)
    workdir.claim(tmp_path / "run", config, clips, splits)
    workdir.claim(tmp_path / "run", config, clips, splits)
    (another / "metrics.json").write_text(json.dumps({"uf1": 0.5}))
    with pytest.raises(UserError, match=r"run was begun with another teacher: .*other has changed since"):
        workdir.claim(tmp_path / "run", config, clips, splits)


def test_trials_with_and_without_a_share_are_one_program(study, tmp_path):
    settings = student(study, train__steps=7)
    trials = {
        name: config_lib.replace(settings, {"distil.weight": weight})
        for name, weight in (("alone", 0.0), ("half", 0.5))
    }
    changed = {name: {"distil.weight": config.distil.weight} for name, config in trials.items()}
    plan = trial_groups.Plan(settings, trials, changed, inner_folds=0, select="uf1", export_all=False)
    (group,) = trial_groups.make_groups(plan)
    result = trial_groups.run_group(group, plan, tmp_path, study[1])
    for index, name in enumerate(trials):
        loop.run(trials[name], tmp_path / name, study[1])
        clips = dataset.load(study[1], settings)
        own = workdir.read_by_seed(tmp_path / name, clips, settings.data.classes)
        np.testing.assert_allclose(result.probability[index], own, atol=2e-5)
    with pytest.raises(UserError, match="trial alone has a teacher, whose networks have seen the subjects of inner"):
        trial_groups.check(tmp_path / "nested", plan._replace(inner_folds=2))
    everybody = {"x": config_lib.replace(settings, {"protocol.split": "all"})}
    with pytest.raises(UserError, match=r"trial x has config\.protocol\.split='all', which tests nothing"):
        trial_groups.check(tmp_path / "all", plan._replace(trials=everybody))


def test_a_run_that_tests_nobody(study, tmp_path):
    _, folder, _ = study
    config = student(study, protocol__split="all", graph__kind="roi", graph__nodes=("chin", "glabella", "upper_lip"),
                     graph__units=(1, 9, 17), distil__teacher="")  # fmt: skip
    place = tmp_path / "everybody"
    result = loop.run(config, place, folder)
    assert result == json.loads((place / "metrics.json").read_text()) == loop.run(config, place, folder)
    assert (result["n_clips"], result["n_trained"], result["n_subjects"], result["n_folds"]) == (0, 21, 3, 1)
    assert "uf1" not in result and "nothing was tested" in result["note"]
    assert outcome.summary(result).startswith("trained on 21 clips of 3 subjects; nothing was tested (config.protocol")
    assert not (place / "predictions.csv").exists() and not (place / "state").exists()
    with (place / "splits.csv").open(newline="") as file:
        assert {(row["tested_in"], row["left_out_of"]) for row in csv.DictReader(file)} == {("", "")}
    # It can be used like any other.
    run = TrainedFolds(place)
    assert run.names == ["all"]
    clips = dataset.load(folder, config)
    expected, _ = run.ask("all", clips.batch)
    answer = recognition.from_run(place).forward(clips.batch)
    np.testing.assert_allclose(answer.probability, expected, atol=1e-6)
    mean = clips.batch.nodes.mean(axis=(0, 1, 2))
    mean = (mean + clips.graph.feature_sign * mean[clips.graph.feature_mirror]) / 2
    np.testing.assert_allclose(run.weights("all").statistics.mean[0], mean, atol=1e-5)
    with pytest.raises(UserError, match=r"everybody tested no clip .*: there is nothing to report$"):
        load_run(place)


def test_a_run_from_before_there_were_teachers_can_be_opened_and_gone_on_with(study, tmp_path):
    folder = shutil.copytree(study[0] / "teacher", tmp_path / "old")
    settings = json.loads((folder / "config.json").read_text())
    del settings["distil"], settings["graph"]["nodes"]
    (folder / "config.json").write_text(json.dumps(settings))
    assert workdir.read_config(folder) == study[2]
    workdir.check(folder, study[2])
    few = dataclasses.replace(study[2].graph, nodes=("chin",))
    with pytest.raises(UserError, match=r"graph\.nodes is \[\] there and \['chin'\] here$"):
        workdir.check(folder, dataclasses.replace(study[2], graph=few))
    assert ask(study, student(study, distil__teacher=str(folder)))[2] is not None
