"""Workdirs are claimed by runs that can go on, and hold folds of any name."""

import csv
import itertools
import json

import jax
import numpy as np
import pytest

from stag_datasets import corpus
from stag_jax import config as config_lib
from stag_jax.analysis import load_run
from stag_jax.corpora import dataset
from stag_jax.training import loop, stepping
from stag_jax.types import UserError
from tests import makers


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A built corpus of 35 clips and 5 subjects, and the data_dir that holds it."""
    root = tmp_path_factory.mktemp("data")
    archive = makers.write_composite(root / "archive")
    return corpus.build("composite_flow", data_dir=root, manual_dir=archive), str(root)


def rows(folder, name="predictions.csv"):
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def short(prepared):
    """Settings of the shortest run there is."""
    return makers.tiny_config(data__data_dir=prepared[1], train__steps=7)


def test_what_fails_for_its_settings_leaves_the_workdir_to_others(prepared, short, tmp_path):
    """The corrected settings simply run, in the folder where others failed before training and in the middle of it."""
    folder, work = prepared[0], tmp_path / "run"
    wrong = (
        ({"data.classes": ("negative", "joy")}, "names 'joy', which no clip of composite_flow has"),
        ({"protocol.split": "group", "protocol.folds": 6}, "folds must be from 2 to the 5 subjects, got 6"),
        ({"train.learning_rate": 1e38, "train.warmup_steps": 1}, "loss is not finite at step"),
    )
    for changes, message in wrong:
        with pytest.raises(UserError, match=message):
            loop.run(config_lib.replace(short, changes), work, folder)
        left = {path.name for path in work.iterdir()} if work.exists() else set()
        assert left <= {"log.jsonl", "cache"}, changes
    assert loop.run(short, work, folder)["n_clips"] == 35
    assert json.loads((work / "config.json").read_text())["train"]["learning_rate"] == short.train.learning_rate


def test_a_run_that_was_begun_is_kept_when_going_on_fails(prepared, short, tmp_path, monkeypatch):
    def train(*args, **how):
        raise UserError("out of memory")

    monkeypatch.setattr(stepping, "train", train)
    begun = config_lib.to_dict(short)
    (tmp_path / "config.json").write_text(json.dumps(begun))
    about = {"data_fingerprint": dataset.load(prepared[0], short).fingerprint}
    (tmp_path / "run.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="out of memory"):
        loop.run(short, tmp_path, prepared[0])
    assert (tmp_path / "config.json").exists() and (tmp_path / "run.json").exists()


def test_subjects_of_any_name_have_folds_that_are_found(prepared, short, tmp_path, monkeypatch):
    names = ["g1/a", "..", "Bob", "bob", "x" * 300]
    load = dataset.load

    def renamed(*args):
        clips = load(*args)
        there = dict(zip(dict.fromkeys(clips.subjects), names, strict=True))
        subjects = tuple(there[subject] for subject in clips.subjects)
        return clips._replace(subjects=subjects, groups=subjects)

    monkeypatch.setattr(dataset, "load", renamed)
    loop.run(short, tmp_path / "run", prepared[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    run = load_run(tmp_path / "run")
    assert run.folds == sorted(names) and not run.missing
    assert {row["subject"] for row in rows(tmp_path / "run")} == set(names)  # tables have them as they are
    assert {row["tested_in"] for row in rows(tmp_path / "run", "splits.csv")} == set(names)
    weights = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(run.model(name).params)]) for name in names]
    assert all(np.any(one != other) for one, other in itertools.pairwise(weights))
