"""The paired bootstrap against loops, and what must hold of any difference."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from stag_jax.protocol import compare, metrics


def draw(seed, seeds=(3, 2), clips=61, subjects=7):
    """Labels, predictions of two models of which the first is better, and subjects."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, clips)
    said = [
        np.where(rng.random((count, clips)) < right, label, rng.integers(0, 3, (count, clips)))
        for count, right in zip(seeds, (0.7, 0.5), strict=True)
    ]
    return label, *said, [f"s{index}" for index in rng.integers(0, subjects, clips)]


def test_the_difference_is_that_of_loops():
    label, first, second, subjects = draw(0)
    found = compare.paired_bootstrap(label, first, second, subjects, 3, resamples=97, seed=3)

    def difference(clips, score):
        means = [np.mean([score(label[clips], each[clips]) for each in said]) for said in (first, second)]
        return means[0] - means[1]

    names, rng, draws = sorted(set(subjects)), np.random.default_rng(3), []
    for _ in range(97):
        times = rng.multinomial(len(names), [1 / len(names)] * len(names))
        draws.append([clip for name, n in zip(names, times, strict=True) for clip in of(subjects, name) * n])
    scores = {
        "uf1": lambda true, said: sklearn.f1_score(true, said, average="macro"),
        "uar": sklearn.balanced_accuracy_score,
    }
    for name, score in scores.items():
        values = np.array([difference(clips, score) for clips in draws])
        assert found[name].mean == pytest.approx(difference(list(range(61)), score))
        assert (found[name].low, found[name].high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))))
        assert found[name].p == pytest.approx(np.mean(values <= 0))
        assert found[name].low < found[name].mean < found[name].high
    assert set(found) == {"uf1", "uar", "accuracy", "weighted_f1"}


def of(subjects, name):
    return [clip for clip, subject in enumerate(subjects) if subject == name]


def test_a_model_does_not_differ_from_itself():
    label, first, _, subjects = draw(1)
    for again in (first, first[[2, 0, 1]], np.repeat(first, 5, axis=0)):  # seeds in another order, seeds repeated
        for found in compare.paired_bootstrap(label, first, again, subjects, 3, resamples=53).values():
            assert found == pytest.approx((0, 0, 0, 1), abs=1e-15)
    same = compare.paired_bootstrap(label, first, first, subjects, 3, resamples=53)
    assert all(found == (0, 0, 0, 1) for found in same.values())


def test_the_other_way_round_the_sign_changes():
    label, first, second, subjects = draw(2, clips=307, subjects=13)
    there = compare.paired_bootstrap(label, first, second, subjects, 3, resamples=199)
    back = compare.paired_bootstrap(label, second, first, subjects, 3, resamples=199)
    for name, found in there.items():
        assert back[name][:3] == pytest.approx((-found.mean, -found.high, -found.low))
        assert found.p + back[name].p >= 1  # above it by the resamples that are ties
    assert there["uf1"].p < 0.05 and back["uf1"].p > 0.95


def test_what_is_hard_for_both_cancels():
    """Each subject is as easy as it is for both models; the first is right in one clip more of every subject."""
    label = np.tile([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1], 7)
    subjects = [f"s{index}" for index in np.repeat(np.arange(7), 11)]
    place, hard = np.tile(np.arange(11), 7), np.repeat(np.arange(7), 11)
    second = np.where(place < hard, (label + 1) % 3, label)[None]
    first = np.where(place < hard - 1, (label + 1) % 3, label)[None]
    found = compare.paired_bootstrap(label, first, second, subjects, 3, resamples=199)["accuracy"]
    alone = metrics.subject_bootstrap(label, first, subjects, 3, resamples=199)["accuracy"]
    assert found.mean == pytest.approx(6 / 77) and found.p == 0
    assert found.high - found.low < (alone[1] - alone[0]) / 3


def test_subjects_are_resampled_and_not_clips():
    label, first, second, subjects = draw(3)
    once = compare.paired_bootstrap(label, first, second, subjects, 3, resamples=97)
    often = compare.paired_bootstrap(
        np.tile(label, 5), np.tile(first, 5), np.tile(second, 5), subjects * 5, 3, resamples=97
    )
    for name in once:  # more clips of the same people say no more
        assert often[name] == pytest.approx(once[name])
    alone = compare.paired_bootstrap(label, first, second, ["s0"] * 61, 3, resamples=97)
    assert all(found.low == found.high == pytest.approx(found.mean) for found in alone.values())
