"""Two runs against each other: the numbers of `protocol.compare` on the right rows, and what cannot be compared."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from stag_jax.analysis import load_run, versus
from stag_jax.protocol import compare
from stag_jax.protocol.metrics import EvaluationSet
from stag_jax.types import UserError
from tests.analysis import runs


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A good run of two seeds, and a worse one of three with another width and other clips per dispatch."""
    folder = tmp_path_factory.mktemp("runs")
    good = runs.write(folder / "good", right=0.9)
    changes = {"model__width": 16, "parallel__steps_per_dispatch": 5, "seeds": (0, 1, 2)}
    return good, runs.write(folder / "bad", right=0.2, seed=1, **changes)


def test_all_numbers_are_those_of_the_predictions(pair):
    found = versus.compare_runs(*map(load_run, (made.folder for made in pair)), resamples=97, seed=5)
    clips = pair[0].corpus
    label, subjects = clips.batch.label.astype(int), list(clips.subjects)
    said = [made.recorded[-1].argmax(axis=-1) for made in pair]
    scored = EvaluationSet(label, subjects, 3, resamples=97, seed=5)
    assert found.differences == compare.paired_bootstrap(scored, *said)
    classes = ("negative", "positive", "surprise")
    want = dict(zip(classes, compare.class_differences(scored, *said), strict=True))
    assert found.per_class == want
    ensemble = [made.recorded[-1].mean(axis=0).argmax(axis=-1) for made in pair]
    assert found.mcnemar == compare.mcnemar(label, *ensemble)
    assert (found.names, found.clips, found.seeds) == (("good", "bad"), 23, (2, 3))
    assert found.verdict == compare.verdict(found.differences["uf1"], "good", "bad", resamples=97)
    assert found.verdict.startswith("good is better than bad by ") and found.warnings == ()


def test_the_resamples_are_those_of_the_config(pair):
    first, second = (load_run(made.folder) for made in pair)
    assert versus.compare_runs(first, second) == versus.compare_runs(first, second, resamples=50)  # makers.py


def test_the_other_way_round(pair):
    first, second = (load_run(made.folder) for made in pair)
    there, back = versus.compare_runs(first, second), versus.compare_runs(second, first)
    assert back.verdict == there.verdict  # whoever comes first
    assert back.mcnemar == (there.mcnemar.only_second, there.mcnemar.only_first, there.mcnemar.p)
    for name, each in there.differences.items():
        assert back.differences[name][:3] == pytest.approx((-each.mean, -each.high, -each.low))
    assert [(each.key, each.second, each.first) for each in back.changes] == list(there.changes)


def test_changed_settings_are_listed(pair):
    first, second = (load_run(made.folder) for made in pair)
    changes = versus.compare_runs(first, second).changes
    # How the work is laid out changes nothing of what is computed.
    assert changes == (("seeds", [0, 3], [0, 1, 2]), ("model.width", 8, 16))
    assert versus.compare_runs(first, first).changes == ()


def test_a_run_does_not_differ_from_itself(pair):
    run = load_run(pair[0].folder)
    found = versus.compare_runs(run, run)
    assert all(each == (0, 0, 0, 1) for each in found.differences.values())
    assert found.mcnemar == (0, 0, 1)
    assert "No difference can be told" in found.verdict and found.warnings == ()
    assert found.names == (str(run.folder), str(run.folder))  # a name alone would not tell them apart


def test_the_order_of_rows_does_not_matter(pair):
    first, second = (load_run(made.folder) for made in pair)
    order = np.random.default_rng(0).permutation(len(second.predictions))
    rows = np.random.default_rng(1).permutation(len(second.by_seed))
    mixed = runs.change(
        second,
        predictions=second.predictions.iloc[order].reset_index(drop=True),
        by_seed=second.by_seed.iloc[np.sort(rows)[::-1]].reset_index(drop=True),
        splits=second.splits.iloc[::-1].reset_index(drop=True),
    )
    want, found = versus.compare_runs(first, second), versus.compare_runs(first, mixed)
    assert found.mcnemar == want.mcnemar and found.warnings == ()
    for name, each in want.differences.items():
        assert found.differences[name] == pytest.approx(each)


def without(run, clip):
    return runs.change(
        run,
        predictions=run.predictions[run.predictions["id"] != clip].reset_index(drop=True),
        by_seed=run.by_seed[run.by_seed["id"] != clip].reset_index(drop=True),
    )


def test_runs_of_other_clips_are_refused(pair):
    first, second = (load_run(made.folder) for made in pair)
    with pytest.raises(UserError, match=r"^clip s1/c007 is tested in .*good and not in .*bad$"):
        versus.compare_runs(first, without(second, "s1/c007"))
    with pytest.raises(UserError, match=r"^clip s1/c008 is tested in .*bad and not in .*good$"):
        versus.compare_runs(without(first, "s1/c008"), second)
    for column, value in (("label", "surprise"), ("subject", "s4")):
        other = runs.change(second, predictions=second.predictions.copy())
        other.predictions.loc[3, column] = value
        was = first.predictions.loc[3, column]
        with pytest.raises(UserError, match=rf"^clip s0/c003 has {column} {was} in .*good and {value} in .*bad$"):
            versus.compare_runs(first, other)


def test_runs_of_other_classes_are_refused(pair, tmp_path):
    first = load_run(pair[0].folder)
    shutil.copytree(first.folder, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["data"]["classes"] = ["negative", "surprise", "positive"]
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"^config.data.classes is negative, positive, surprise in .*good and negative, s"
    ):
        versus.compare_runs(first, load_run(tmp_path / "other"))


def test_tables_that_lack_or_repeat_a_clip_are_refused(pair):
    first, second = (load_run(made.folder) for made in pair)
    twice = runs.change(second, predictions=pd.concat([second.predictions, second.predictions[4:5]]))
    with pytest.raises(UserError, match=r"bad/predictions.csv: clip s0/c004 is there twice$"):
        versus.compare_runs(first, twice)
    short = runs.change(second, by_seed=second.by_seed.drop(index=30))
    with pytest.raises(UserError, match=r"bad/predictions_by_seed.csv: seed 1 has clip s1/c007 not at all$"):
        versus.compare_runs(first, short)
    long = runs.change(second, by_seed=pd.concat([second.by_seed, second.by_seed[30:31]]))
    with pytest.raises(UserError, match=r"bad/predictions_by_seed.csv: seed 1 has clip s1/c007 twice$"):
        versus.compare_runs(first, long)


def test_other_folds_are_told(pair, tmp_path):
    first = load_run(pair[0].folder)
    grouped = load_run(runs.write(tmp_path / "grouped", protocol__split="group", protocol__folds=2).folder)
    (warning,) = versus.compare_runs(first, grouped).warnings
    assert warning.startswith("23 of 23 clips were predicted by networks that were trained on other clips: s0/c000 in ")
    # As many folds as subjects are the same folds under other names.
    alike = load_run(runs.write(tmp_path / "alike", protocol__split="group", protocol__folds=5).folder)
    (warning,) = versus.compare_runs(first, alike).warnings
    assert warning.startswith("folds have other names and the same clips: s0/c000 is tested in s0 of ")
    # One clip that a fold does without.
    splits = first.splits.copy()
    splits.loc[splits["id"] == "s2/c010", "left_out_of"] = "s3"
    (warning,) = versus.compare_runs(runs.change(first, splits=splits), first).warnings
    assert warning.startswith("2 of 23 clips were predicted")  # those of s3
    assert "s3/c015 in fold s3 of" in warning


def test_other_features_and_changed_tables_are_told(pair, tmp_path):
    first = load_run(pair[0].folder)
    shutil.copytree(first.folder, tmp_path / "other")
    runs.edit_json(tmp_path / "other" / "run.json", data_fingerprint="4567")
    other = load_run(tmp_path / "other")
    (warning,) = versus.compare_runs(first, other).warnings
    assert warning == "the features of the clips differ, and no setting says why: the corpora were prepared apart"
    # A setting of the features says why.
    patch = runs.write(tmp_path / "patch", clips=pair[0].corpus._replace(fingerprint="4567"), motion__spacing=2.0)
    assert versus.compare_runs(first, load_run(patch.folder)).warnings == ()
    with (tmp_path / "other" / "au_predictions.csv").open("a") as file:
        file.write("\n")
    runs.edit_json(tmp_path / "other" / "run.json", data_fingerprint="0123")
    (warning,) = versus.compare_runs(first, load_run(tmp_path / "other")).warnings
    assert warning.endswith("other: au_predictions.csv was changed after the run")


def test_a_run_that_is_not_finished_is_told(pair, tmp_path):
    shutil.copytree(pair[1].folder, tmp_path / "going")
    (tmp_path / "going" / "metrics.json").unlink()
    (tmp_path / "going" / "history" / "00000030.npz").unlink()
    first, going = load_run(pair[0].folder), load_run(tmp_path / "going")
    found = versus.compare_runs(first, going)
    (warning,) = found.warnings
    assert warning.endswith("going is not finished: step 20 of 30")
    said = [made.recorded[step].argmax(axis=-1) for made, step in zip(pair, (-1, 1), strict=True)]
    label = pair[0].corpus.batch.label.astype(int)
    want = compare.paired_bootstrap(EvaluationSet(label, list(pair[0].corpus.subjects), 3, 50), *said)
    assert found.differences == want
