"""The optimism table against loops over folds, seeds and steps, scored by scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from stag_jax.analysis import load_run, optimism
from stag_jax.types import UserError
from tests.analysis import runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return runs.write(tmp_path_factory.mktemp("runs") / "run", right=0.5)


def scores(label, said, **how):
    f1 = sklearn.f1_score(label, said, average="macro", zero_division=0, **how)
    return f1, sklearn.recall_score(label, said, average="macro", zero_division=0, **how), np.mean(label == said)


def by_hand(made):
    """All rows, one seed, fold and step after the other."""
    label, folds = made.corpus.batch.label, np.array(made.corpus.subjects)
    said, k = made.recorded.argmax(axis=-1), {"labels": [0, 1, 2]}
    found = {}
    for seed in range(said.shape[1]):
        own = said[:, seed]
        best = own[-1].copy()
        for fold in sorted(set(folds)):
            chosen = folds == fold
            right = [np.sum(each[chosen] == label[chosen]) for each in own]
            last = max(step for step, count in enumerate(right) if count == max(right))
            best[chosen] = own[last][chosen]
        uf1 = [round(scores(label, each)[0], 12) for each in own]
        single = own[max(step for step, value in enumerate(uf1) if value == max(uf1))]
        rows = [scores(label, own[-1]), scores(label, best), scores(label, single)]
        for chosen in (own[-1], best):
            parts = [(label[folds == fold], chosen[folds == fold]) for fold in sorted(set(folds))]
            rows.append(np.mean([scores(*part, **k) for part in parts], axis=0))
            there = [scores(*part, labels=np.unique(part[0])) for part in parts]
            rows.append(np.mean(there, axis=0))
        found[seed] = rows
    return np.mean(list(found.values()), axis=0)


def test_the_table_is_that_of_loops(made):
    found = optimism.table(load_run(made.folder))
    np.testing.assert_allclose([row[1:4] for row in found.rows], by_hand(made), rtol=1e-12)
    assert len({row.name for row in found.rows}) == len(found.rows) == 7
    assert [row.honest for row in found.rows] == [True] + [False] * 6
    assert found.rows[0].excess == 0
    for row in found.rows:
        assert row.excess == pytest.approx(row.uf1 - found.rows[0].uf1)


def test_the_honest_row_is_that_of_metrics_json(made):
    run = load_run(made.folder)
    honest = optimism.table(run).rows[0]
    assert honest[1:4] == pytest.approx([run.metrics["mean_over_seeds"][name]["mean"] for name in optimism.SCORES])


def test_choosing_on_the_test_clips_never_looks_worse(made):
    rows = {row.name: row for row in optimism.table(load_run(made.folder)).rows}
    honest = rows[optimism.HONEST]
    assert rows[optimism.BEST_OF_ALL].uf1 >= honest.uf1
    assert rows[optimism.BEST_OF_FOLD].accuracy > honest.accuracy
    assert rows[optimism.BEST_OF_FOLD].accuracy >= rows[optimism.BEST_OF_ALL].accuracy


def test_with_one_recorded_step_there_is_nothing_to_choose(made):
    run = load_run(made.folder)
    once = runs.change(run, history=run.history._replace(steps=run.history.steps[-1:], probability=made.recorded[-1:]))
    rows = {row.name: row[1:4] for row in optimism.table(once).rows}
    assert rows[optimism.HONEST] == rows[optimism.BEST_OF_FOLD] == rows[optimism.BEST_OF_ALL]
    assert rows[optimism.AVERAGED] == rows[optimism.BEST_AVERAGED]
    assert rows[optimism.AVERAGED_PRESENT] == rows[optimism.BEST_AVERAGED_PRESENT]


def test_of_steps_that_tie_the_later_one_is_taken():
    right = np.array([[[5, 1, 3, 0]], [[2, 1, 4, 0]], [[5, 1, 4, 0]], [[4, 1, 0, 0]]])  # [i, seed, s]
    found = np.zeros((4, 1, 4, 2, 2), int)
    found[..., 0, 0] = right
    found[..., 1, 0] = 7 - right
    found[..., 0, 1] = np.arange(4)[:, None, None]  # tells steps apart
    chosen = optimism.best_of_fold(found)[0, :, 0, 1]
    assert chosen.tolist() == [2, 3, 2, 3]
    same = np.tile(np.array([[3, 1], [2, 5]]), (3, 2, 1, 1, 1))
    same[0, :, 0] = [[3, 2], [1, 5]]  # the same UF1, other counts
    np.testing.assert_array_equal(optimism.best_of_all(same), same[2])


def test_the_ceiling_is_what_the_perfect_get():
    label, fold = np.array([0, 1, 2, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 2, 2])
    assert optimism.ceiling(label, fold, 3) == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert optimism.ceiling(label, fold, 7) == pytest.approx((3 + 1 + 1) / 21)
    found = optimism.confusions(label, label[None, None], fold, 3)[0]
    assert optimism.averaged(found, absent=False) == {"uf1": 1, "uar": 1, "accuracy": 1}
    assert optimism.averaged(found, absent=True)["accuracy"] == 1
    assert optimism.ceiling(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), 2) == 1


def test_clips_that_are_never_tested_do_not_count(tmp_path):
    made = runs.write(tmp_path / "run", protocol__split="dataset", protocol__test=("a",))
    run = load_run(made.folder)
    found = optimism.table(run)
    tested = np.array(made.corpus.datasets) == "a"
    label = made.corpus.batch.label[tested]
    assert made.recorded.shape[2] == tested.sum() < len(tested)
    want = np.mean([scores(label, each) for each in made.recorded[-1].argmax(axis=-1)], axis=0)
    assert found.rows[0][1:4] == pytest.approx(want)
    assert found.ceiling == 1  # one fold that has all classes


def test_without_a_record_there_are_no_rows(tmp_path):
    made = runs.write(tmp_path / "run", recorded=False)
    found = optimism.table(load_run(made.folder))
    shares = [len(set(made.corpus.batch.label[mask])) / 3 for mask in made.splits.test_mask]
    assert found.rows == () and found.ceiling == pytest.approx(np.mean(shares)) and found.ceiling < 1


def test_a_record_of_other_clips_is_refused(made):
    run = load_run(made.folder)
    short = run.history._replace(probability=run.history.probability[:, :, 1:])
    with pytest.raises(UserError, match=r"run: 22 x 3 clips and classes were recorded, and 23 x 3 are tested$"):
        optimism.table(runs.change(run, history=short))
