"""Nested selection: nobody whom an outer fold tests chooses anything, and the best by its own scores is chosen."""

import numpy as np
import pytest

from stag_jax.protocol import metrics, nested, splits
from stag_jax.types import UserError


@pytest.fixture(scope="module")
def outer():
    """Seven subjects of unequal numbers of clips, left out in turn; their subjects and labels."""
    subjects = [f"s{i}" for i, count in enumerate((5, 3, 7, 2, 4, 6, 3)) for _ in range(count)]
    labels = np.arange(len(subjects)) % 3
    return splits.loso(subjects), subjects, labels


def test_inner_folds_cover_the_training_clips_once_and_nothing_else(outer):
    held_out, subjects, labels = outer
    inner = nested.inner_splits(held_out, subjects, labels, 3, 0)
    assert inner.names[:4] == ("s0 inner 1", "s0 inner 2", "s0 inner 3", "s1 inner 1")
    who = np.array(subjects)
    for index, train in enumerate(held_out.train_mask):
        own = slice(3 * index, 3 * index + 3)
        np.testing.assert_array_equal(inner.test_mask[own].sum(axis=0), train.astype(int))
        for test, rest in zip(inner.test_mask[own], inner.train_mask[own], strict=True):
            np.testing.assert_array_equal(test | rest, train)
            assert not (test & rest).any() and not set(who[test]) & set(who[rest])
            # The subject who is held out chooses nothing.
            assert not (test | rest)[held_out.test_mask[index]].any()


def test_too_few_subjects_are_named(outer):
    held_out, subjects, labels = outer
    with pytest.raises(UserError, match=r"^fold s0 trains on 6 subjects, too few for 7 inner folds$"):
        nested.inner_splits(held_out, subjects, labels, 7, 0)


def padded(inner):
    longest = int(inner.test_mask.sum(axis=1).max())
    rows = np.stack([np.resize(np.flatnonzero(mask), longest) for mask in inner.test_mask]).astype(np.int32)
    return rows, np.stack([np.arange(longest) < mask.sum() for mask in inner.test_mask]).astype(np.float32)


def test_scores_are_those_of_the_pooled_inner_predictions(outer):
    held_out, subjects, labels = outer
    inner = nested.inner_splits(held_out, subjects, labels, 3, 1)
    rows, there = padded(inner)
    rng = np.random.default_rng(0)
    said = rng.dirichlet((1, 1, 1), (2, 5, *rows.shape))  # trial seed inner-fold clip k
    found = nested.score(said, rows, there, labels, 7)
    for trial in range(2):
        for fold in range(7):
            uf1, loss = [], []
            for seed in range(5):
                pairs = [
                    (labels[rows[i, j]], said[trial, seed, i, j])
                    for i in range(3 * fold, 3 * fold + 3)
                    for j in range(rows.shape[1])
                    if there[i, j]
                ]
                true, guess = np.array([a for a, _ in pairs]), np.array([p.argmax() for _, p in pairs])
                uf1.append(metrics.mean_scores(true, guess, 3)["uf1"])
                loss.append(np.mean([-np.log(p[a]) for a, p in pairs]))
            assert found.uf1[trial, fold] == pytest.approx(np.mean(uf1))
            assert found.log_loss[trial, fold] == pytest.approx(np.mean(loss))


def test_what_the_held_out_subject_does_changes_no_choice(outer):
    """The scores of a fold do not move when labels and predictions of its test side do."""
    held_out, subjects, labels = outer
    inner = nested.inner_splits(held_out, subjects, labels, 2, 0)
    rows, there = padded(inner)
    said = np.random.default_rng(1).dirichlet((1, 1, 1), (3, 1, *rows.shape))
    before = nested.score(said, rows, there, labels, 7)
    for fold, test in enumerate(held_out.test_mask):
        other = np.where(test, (labels + 1) % 3, labels)
        after = nested.score(said, rows, there, other, 7)
        np.testing.assert_array_equal(after.uf1[:, fold], before.uf1[:, fold])
        np.testing.assert_array_equal(after.log_loss[:, fold], before.log_loss[:, fold])


def test_the_best_is_chosen_and_the_first_of_equals():
    scores = nested.Scores(np.array([[0.5, 0.2, 0.7], [0.5, 0.9, 0.1]]), np.array([[1.0, 2.0, 0.5], [1.0, 1.0, 0.7]]))
    assert nested.choose(scores, "uf1").tolist() == [0, 1, 0]
    assert nested.choose(scores, "log_loss").tolist() == [0, 1, 0]
