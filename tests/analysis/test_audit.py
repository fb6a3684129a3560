"""The leak audit: a sound run passes, and every leak that is planted is found where it was planted.

Clips that are there twice have `test_audit_twice.py`.
"""

import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stag_jax.analysis import audit, load_run
from stag_jax.types import UserError
from tests.analysis import runs

SUBJECTS, GROUPS, CLAIM = "subjects kept apart", "groups kept apart", "subject independence as claimed"
CLIPS, FACES = "clips under two names, by picture", "faces under two names"
FEATURES = "clips under two names, by features"
STATISTICS, LAST = "statistics of training clips alone", "predictions of the last step"
NETWORKS, PREDICTED = "networks of all folds", "every tested clip predicted"
ONCE, LABELS, TABLES = "every clip once", "labels and subjects the same", "tables unchanged"
PROBABLE, SCORES = "most probable class predicted", "scores as the predictions give them"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return runs.write(tmp_path_factory.mktemp("runs") / "run", networks=True)


@pytest.fixture
def run(made):
    return load_run(made.folder)


def found(run, *inputs):
    return {each.name: each for each in audit.audit(run, *inputs)}


def test_a_sound_run_passes(made, run):
    answers = audit.audit(run, made.corpus, runs.tiles(made.corpus))
    names = {SUBJECTS, GROUPS, CLAIM, CLIPS, FACES, FEATURES, STATISTICS, LAST, NETWORKS}
    names |= {PREDICTED, ONCE, LABELS, TABLES, PROBABLE, SCORES}
    assert {each.name: each.status for each in answers} == dict.fromkeys(names, "ok")
    assert len(answers) == len(names) and all(each.where == () for each in answers)
    assert all(each.text and "\n" not in each.text for each in answers)


def test_what_was_not_given_is_not_checked(run):
    answers = found(run)
    assert {name for name, each in answers.items() if each.status != "ok"} == {"clips under two names", STATISTICS}
    assert answers[STATISTICS].status == answers["clips under two names"].status == "not checked"


# Who is held out


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_folds_are_read_as_they_are_written(seed):
    side = np.random.default_rng(seed).integers(0, 3, (4, 11))  # 0 tested, 1 trained on, 2 neither
    side[np.arange(4), np.arange(4)] = 0
    names = np.array(["b", "a", "d", "c"])
    cells = [["|".join(names[column == which]) for column in side.T] for which in (0, 2)]
    read = audit.folds_of(pd.DataFrame({"tested_in": cells[0], "left_out_of": cells[1]}))
    order = np.argsort(names)
    assert read.names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(read.test_mask, side[order] == 0)
    np.testing.assert_array_equal(read.train_mask, side[order] == 1)


PROTOCOLS = [{"split": "group", "folds": 3}, {"split": "dataset"}, {"split": "dataset", "test": ("b",)}]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_protocols_pass_too(tmp_path, protocol):
    made = runs.write(tmp_path / "run", **{f"protocol__{key}": value for key, value in protocol.items()})
    read = audit.folds_of(load_run(made.folder).splits)
    for one, other in zip(read, made.splits, strict=True):
        np.testing.assert_array_equal(one, other)
    answers = found(load_run(made.folder))
    assert {answers[name].status for name in (SUBJECTS, GROUPS, CLAIM, LAST, PREDICTED, SCORES)} == {"ok"}


def test_folds_over_clips_leak_and_say_so(tmp_path):
    made = runs.write(tmp_path / "run", protocol__split="stratified", protocol__folds=3)
    answers = found(load_run(made.folder))
    assert answers[SUBJECTS].status == answers[GROUPS].status == "leak"
    assert answers[SUBJECTS].where == ("group1", "group2", "group3")
    assert answers[SUBJECTS].text.startswith("3 of 3 folds train on a subject that they test: fold group1 on s0")
    assert answers[CLAIM].status == "ok"  # metrics.json admits it
    runs.edit_json(made.folder / "metrics.json", shared_subjects={"group1": 1, "group2": 1, "group3": 1})
    assert found(load_run(made.folder))[CLAIM].status == "warning"
    runs.edit_json(made.folder / "metrics.json", subject_independent=True)
    assert found(load_run(made.folder))[CLAIM].status == "leak"


def test_one_clip_on_the_wrong_side_is_found(run):
    splits = run.splits.copy()
    splits.loc[splits["id"] == "s3/c016", "tested_in"] = "s1"
    answers = found(runs.change(run, splits=splits))
    assert answers[SUBJECTS].status == answers[CLAIM].status == "leak"
    assert answers[SUBJECTS].where == ("s1", "s3")  # the one tests it and trains on s3's other clip; so does the other
    # Left out of both it is on no side.
    splits["left_out_of"] = splits["id"].map({"s3/c015": "s1", "s3/c016": "s3"}).fillna("")
    assert found(runs.change(run, splits=splits))[SUBJECTS].status == "ok"


def test_a_group_on_both_sides_is_found(tmp_path):
    clips = runs.corpus()
    siblings = tuple("family" if name in ("s1", "s4") else name for name in clips.subjects)
    answers = found(load_run(runs.write(tmp_path / "run", clips=clips._replace(groups=siblings)).folder))
    assert answers[SUBJECTS].status == answers[CLAIM].status == "ok"
    assert answers[GROUPS] == (
        GROUPS,
        "leak",
        "2 of 5 folds train on a group that they test: fold s1 on family",
        ("s1", "s4"),
    )


# What was learned from whom


def stored(made, run, tmp_path, fold, train):
    """The run with other statistics in one fold."""
    folder = tmp_path / "run"
    shutil.copytree(made.folder, folder)
    shutil.rmtree(folder / "folds" / fold)
    runs.save_network(folder, fold, made.corpus, train, run.config)
    return load_run(folder)


def test_statistics_of_held_out_clips_are_found(made, run, tmp_path):
    everybody = np.ones(len(made.corpus.ids), bool)
    answer = found(stored(made, run, tmp_path, "s3", everybody), made.corpus)[STATISTICS]
    assert answer.status == "leak" and answer.where == ("s3",)
    assert "1 of 5 folds have other statistics" in answer.text


def test_one_held_out_clip_in_the_statistics_is_enough(made, run, tmp_path):
    train = made.splits.train_mask[0].copy()
    train[0] = True
    assert found(stored(made, run, tmp_path, "s0", train), made.corpus)[STATISTICS].where == ("s0",)


def test_the_order_of_the_corpus_does_not_matter(made, run):
    rows = np.random.default_rng(0).permutation(len(made.corpus.ids))
    texts = {name: tuple(getattr(made.corpus, name)[row] for row in rows) for name in ("ids", "subjects", "groups")}
    mixed = made.corpus._replace(batch=type(made.corpus.batch)(*(each[rows] for each in made.corpus.batch)), **texts)
    answers = found(run, mixed)
    assert answers[STATISTICS].status == answers[FEATURES].status == "ok"


def test_a_check_that_cannot_tell_says_so(tmp_path):
    """Two subjects of the very same clips: with those of the other the statistics would be the same."""
    clips = runs.corpus(counts=(5, 5))
    half = {name: np.concatenate([array[:5]] * 2) for name, array in clips.batch._asdict().items()}
    clips = clips._replace(batch=clips.batch._replace(**half))
    run = load_run(runs.write(tmp_path / "run", clips=clips, networks=True).folder)
    answer = found(run, clips)[STATISTICS]
    assert answer.status == "not checked" and answer.where == ("s0", "s1")
    assert "of 2 folds nothing can be told" in answer.text


def test_missing_networks_are_told(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "folds" / "s2")
    run = load_run(tmp_path / "run")
    answers = [each for each in audit.audit(run, made.corpus) if each.name == STATISTICS]
    assert [(each.status, each.where) for each in answers] == [("not checked", ("s2",)), ("ok", ())]
    assert found(run)[NETWORKS][1:] == ("warning", "missing: s2", ("s2",))
    shutil.rmtree(tmp_path / "run" / "folds")
    (answer,) = [each for each in audit.audit(load_run(tmp_path / "run"), made.corpus) if each.name == STATISTICS]
    assert answer.status == "not checked" and len(answer.where) == 5


def test_other_clips_and_tables_are_refused(made, run):
    with pytest.raises(UserError, match=r"run: clip s0/c002 is in splits.csv and not in the corpus given$"):
        audit.audit(run, made.corpus.take(np.arange(23) != 2))
    with pytest.raises(UserError, match=r"run: clip new is in the corpus and not in splits.csv given$"):
        audit.audit(run, made.corpus._replace(ids=("new", *made.corpus.ids[1:])))
    with pytest.raises(UserError, match=r"run/splits.csv has no column left_out_of$"):
        audit.audit(runs.change(run, splits=run.splits.drop(columns="left_out_of")))


# What was scored


def with_probabilities(run, probability):
    """The run as if its predictions were these, [b, k]; scores and hashes are left alone."""
    predictions = run.predictions.copy()
    predictions[["p_negative", "p_positive", "p_surprise"]] = probability
    predictions["prediction"] = np.array(run.classes)[probability.argmax(axis=1)]
    return runs.change(run, predictions=predictions)


def test_a_step_chosen_on_the_test_clips_is_found(made, run):
    said = made.recorded.mean(axis=1)
    assert found(with_probabilities(run, said[1]))[LAST][1::2] == ("leak", ("s0", "s1", "s2", "s3", "s4"))
    # In one fold only.
    mixed = np.where((run.predictions["subject"] == "s2").to_numpy()[:, None], said[1], said[2])
    answer = found(with_probabilities(run, mixed))[LAST]
    assert answer[1::2] == ("leak", ("s2",))
    assert answer.text.endswith("; those of 1 folds are of an earlier one, fold s2 of step 20")
    # Neither the last nor another: not what was recorded, and no leak that could be named.
    assert found(with_probabilities(run, said.mean(axis=0)))[LAST].status == "warning"
    # Two compiled programs may differ in the last digits.
    assert found(with_probabilities(run, said[2] + 5e-5))[LAST].status == "ok"


def test_rows_of_predictions_may_be_in_any_order_or_missing(made, run):
    mixed = run.predictions.iloc[::-1].reset_index(drop=True)
    assert found(runs.change(run, predictions=mixed))[LAST].status == "ok"
    assert found(runs.change(run, predictions=mixed[3:]))[LAST].status == "ok"


def test_a_run_of_other_length_is_told(made, tmp_path):
    short = load_run(runs.write(tmp_path / "run", train__steps=40).folder)
    answer = found(short)[LAST]
    assert answer[1:3] == ("warning", "the last step recorded is 30, and config.train.steps is 40")
    none = load_run(runs.write(tmp_path / "none", recorded=False).folder)
    assert found(none)[LAST].status == "not checked"


def test_clips_that_are_missing_added_or_doubled_are_told(run):
    fewer = runs.change(run, predictions=run.predictions[run.predictions["id"] != "s1/c008"])
    answers = found(fewer)
    assert answers[PREDICTED][1::2] == ("warning", ("s1/c008",))
    assert answers[SCORES].status == "warning"
    extra = run.splits.copy()
    extra.loc[extra["id"] == "s1/c008", "tested_in"] = ""  # so all folds trained on it
    assert found(runs.change(run, splits=extra, history=None))[PREDICTED][1::2] == ("leak", ("s1/c008",))
    twice = pd.concat([run.predictions, run.predictions[4:5]], ignore_index=True)
    answers = found(runs.change(run, predictions=twice))
    assert answers[ONCE][1:] == ("warning", "predictions.csv: s0/c004", ("s0/c004",))
    by_seed = pd.concat([run.by_seed, run.by_seed[30:31]], ignore_index=True)
    answer = found(runs.change(run, by_seed=by_seed))[ONCE]
    assert answer.text == "predictions_by_seed.csv: s1/c007"
    splits = pd.concat([run.splits, run.splits[4:5].assign(tested_in="s1")], ignore_index=True)
    answers = found(runs.change(run, splits=splits, history=None))
    assert answers[ONCE].where == ("s0/c004",) and answers[SUBJECTS].status == "leak"


def test_labels_and_subjects_that_were_changed_are_found(run):
    for column, value in (("label", "surprise"), ("subject", "s4")):
        predictions = run.predictions.copy()
        predictions.loc[3, column] = value
        assert found(runs.change(run, predictions=predictions))[LABELS][1::2] == ("warning", ("s0/c003",))


def test_tables_that_were_changed_are_found(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "run")
    with (tmp_path / "run" / "splits.csv").open("a") as file:
        file.write("\n")
    assert found(load_run(tmp_path / "run"))[TABLES][1:] == (
        "warning",
        "changed after the run: splits.csv",
        ("splits.csv",),
    )
    runs.edit_json(tmp_path / "run" / "metrics.json", sha256={})
    assert found(load_run(tmp_path / "run"))[TABLES].status == "not checked"


@pytest.mark.parametrize("score", ["uf1", "uar", "accuracy"])
def test_scores_that_were_changed_are_found(run, score):
    raised = runs.change(run, metrics=run.metrics | {score: run.metrics[score] + 2e-9})
    answer = found(raised)[SCORES]
    assert answer.status == "warning" and answer.text.startswith(f"{score} is ")
    assert found(runs.change(run, metrics=run.metrics | {score: run.metrics[score] + 5e-10}))[SCORES].status == "ok"


def test_a_confusion_or_a_threshold_that_was_changed_is_found(run):
    confusion = np.array(run.metrics["confusion"]).T.tolist()
    assert confusion != run.metrics["confusion"]
    assert "confusion is" in found(runs.change(run, metrics=run.metrics | {"confusion": confusion}))[SCORES].text
    predictions = run.predictions.copy()
    predictions.loc[6, "prediction"] = "positive" if predictions.loc[6, "prediction"] != "positive" else "negative"
    answers = found(runs.change(run, predictions=predictions))
    assert answers[PROBABLE][1::2] == ("warning", ("s0/c006",)) and answers[SCORES].status == "warning"


def test_a_run_that_is_not_finished(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    answers = found(load_run(tmp_path / "run"))
    assert {answers[name].status for name in (CLAIM, LAST, NETWORKS, TABLES, SCORES)} == {"not checked"}
    assert {answers[name].status for name in (SUBJECTS, GROUPS, PREDICTED, ONCE, LABELS, PROBABLE)} == {"ok"}
