"""The paired bootstrap against loops, and what must hold of any difference."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from stag_jax.protocol import compare, metrics
from stag_jax.protocol.metrics import EvaluationSet


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
    found = compare.paired_bootstrap(EvaluationSet(label, subjects, 3, 97, 3), first, second)

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
        for found in compare.paired_bootstrap(EvaluationSet(label, subjects, 3, 53), first, again).values():
            assert found == pytest.approx((0, 0, 0, 1), abs=1e-15)
    same = compare.paired_bootstrap(EvaluationSet(label, subjects, 3, 53), first, first)
    assert all(found == (0, 0, 0, 1) for found in same.values())


def test_the_other_way_round_the_sign_changes():
    label, first, second, subjects = draw(2, clips=307, subjects=13)
    there = compare.paired_bootstrap(EvaluationSet(label, subjects, 3, 199), first, second)
    back = compare.paired_bootstrap(EvaluationSet(label, subjects, 3, 199), second, first)
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
    found = compare.paired_bootstrap(EvaluationSet(label, subjects, 3, 199), first, second)["accuracy"]
    alone = metrics.subject_bootstrap(EvaluationSet(label, subjects, 3, 199), first)["accuracy"]
    assert found.mean == pytest.approx(6 / 77) and found.p == 0
    assert found.high - found.low < (alone[1] - alone[0]) / 3


def test_subjects_are_resampled_and_not_clips():
    label, first, second, subjects = draw(3)
    once = compare.paired_bootstrap(EvaluationSet(label, subjects, 3, 97), first, second)
    often = compare.paired_bootstrap(
        EvaluationSet(np.tile(label, 5), subjects * 5, 3, 97), np.tile(first, 5), np.tile(second, 5)
    )
    for name in once:  # more clips of the same people say no more
        assert often[name] == pytest.approx(once[name])
    alone = compare.paired_bootstrap(EvaluationSet(label, ["s0"] * 61, 3, 97), first, second)
    assert all(found.low == found.high == pytest.approx(found.mean) for found in alone.values())


def test_classes_differ_as_in_loops():
    label, first, second, subjects = draw(4)
    found = compare.class_differences(EvaluationSet(label, subjects, 3, 41, 3), first, second)
    names, rng, draws = sorted(set(subjects)), np.random.default_rng(3), []
    for _ in range(41):
        times = rng.multinomial(len(names), [1 / len(names)] * len(names))
        draws.append([clip for name, n in zip(names, times, strict=True) for clip in of(subjects, name) * n])

    def difference(clips, score, k):
        how = {"labels": [k], "average": None, "zero_division": 0}
        means = [np.mean([score(label[clips], each[clips], **how)[0] for each in said]) for said in (first, second)]
        return means[0] - means[1]

    for k, pair in enumerate(found):
        for each, score in ((pair.f1, sklearn.f1_score), (pair.recall, sklearn.recall_score)):
            values = np.array([difference(clips, score, k) for clips in draws if k in label[clips]])
            assert each.mean == pytest.approx(difference(list(range(61)), score, k))
            assert (each.low, each.high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))))
            assert each.p == pytest.approx(np.mean(values <= 1e-12))


def test_classes_meet_the_resamples_of_the_whole():
    """Where every resample has every class, UF1 and UAR are the means over classes, draw by draw."""
    label, first, second, subjects = draw(5, clips=211)
    whole = compare.paired_bootstrap(EvaluationSet(label, subjects, 3, 53, 2), first, second)
    parts = compare.class_differences(EvaluationSet(label, subjects, 3, 53, 2), first, second)
    assert np.mean([each.f1.mean for each in parts]) == pytest.approx(whole["uf1"].mean)
    assert np.mean([each.recall.mean for each in parts]) == pytest.approx(whole["uar"].mean)
    # One class that is everything: its recall is the accuracy, in every draw.
    ones = np.ones_like(label)
    (_, alone, _) = compare.class_differences(EvaluationSet(ones, subjects, 3, 53, 2), first, second)
    assert alone.recall == compare.paired_bootstrap(EvaluationSet(ones, subjects, 3, 53, 2), first, second)["accuracy"]


def test_a_class_that_is_seldom_there():
    label = np.array([0, 0, 0, 1, 0, 0])
    subjects = ["a", "a", "b", "b", "c", "c"]
    first, second = np.zeros((1, 6), int), np.array([[0, 0, 0, 1, 0, 1]])
    zero, one, two = compare.class_differences(EvaluationSet(label, subjects, 3, 101), first, second)
    assert one.recall == (-1, -1, -1, 1)  # in the draws without b there is nothing to be said
    assert one.f1.mean == pytest.approx(-2 / 3) and one.f1.high < 0 and one.f1.p == 1
    assert zero.recall.mean == pytest.approx(1 / 5)
    assert two == ((0, 0, 0, 1), (0, 0, 0, 1))
    # A class that no resample has: nothing is known but that shares differ by 1 at most.
    drawn = [np.random.default_rng(seed).multinomial(3, [1 / 3] * 3, 1)[0] for seed in range(19)]
    seed = next(seed for seed, times in enumerate(drawn) if 0 in times)
    alone = "abc"[drawn[seed].tolist().index(0)]
    label = np.array([int(name == alone) for name in subjects])
    one = compare.class_differences(EvaluationSet(label, subjects, 2, 1, seed), label[None], 1 - label[None])[1]
    assert one.recall == (1, -1, 1, 1)


def test_mcnemar_is_the_binomial_test():
    rng = np.random.default_rng(0)
    for clips in (1, 2, 7, 61, 1009):
        label, first, second = rng.integers(0, 3, (3, clips))
        found = compare.mcnemar(label, first, second)
        assert found.only_first == sum(a == t != b for t, a, b in zip(label, first, second, strict=True))
        assert found.only_second == sum(b == t != a for t, a, b in zip(label, first, second, strict=True))
        n = found.only_first + found.only_second
        assert found.p == pytest.approx(stats.binomtest(found.only_first, n).pvalue if n else 1)
        assert compare.mcnemar(label, second, first) == (found.only_second, found.only_first, found.p)
    assert compare.mcnemar(label, label, label) == (0, 0, 1)
    # Six clips, all for one of them: 2 / 2^6.
    assert compare.mcnemar(label[:6], label[:6], label[:6] + 1) == (6, 0, 1 / 32)


def test_mcnemar_of_many_clips_is_near_the_normal():
    label = np.zeros(100003, int)
    first, second = label.copy(), label.copy()
    first[:1100], second[1100:2100] = 1, 1
    found = compare.mcnemar(label, first, second)
    assert (found.only_first, found.only_second) == (1000, 1100)
    assert found.p == pytest.approx(2 * stats.norm.sf(99 / 2100**0.5), rel=0.01)


def test_the_verdict_says_what_is_shown_and_no_more():
    def say(*difference, resamples=1999):
        return compare.verdict(compare.Difference(*difference), "A", "B", resamples=resamples)

    real = (
        "A is better than B by 0.041 UF1 (95% interval 0.012 to 0.070 over subjects, p = 0.004): the difference is real"
    )
    assert say(0.041, 0.012, 0.07, 3 / 1999) == f"{real} on these clips."
    assert say(-0.041, -0.07, -0.012, 1 - 3 / 1999) == f"{real} on these clips.".replace("A", "?").replace(
        "B", "A"
    ).replace("?", "B")
    none = "No difference can be told: A is ahead of B by 0.041 UF1, which may be chance (95% interval"
    assert say(0.041, -0.01, 0.07, 0.1) == f"{none} -0.010 to 0.070 over subjects)."
    assert say(-0.041, -0.07, 0.01, 0.9).startswith("No difference can be told: B is ahead of A by 0.041 UF1")
    assert say(0.041, 0.0, 0.07, 0.02).startswith(none)  # an interval that touches 0 contains it
    assert say(0.0, 0.0, 0.0, 1.0) == "No difference can be told: A and B have the same UF1 in every resample."
    # Few resamples can show little, and one subject nothing.
    assert "the difference is real" in say(0.041, 0.012, 0.07, 0.0, resamples=97)
    assert say(0.041, 0.012, 0.07, 0.0, resamples=29).startswith("No difference can be told")
    assert "as they are with a single subject" in say(0.041, 0.041, 0.041, 0.0)
    assert "95% interval 3e-05 to 0.070 over subjects, p = 0.001)" in say(0.041, 3e-5, 0.07, 0.0)
    assert "p < 0.001" in say(0.041, 0.012, 0.07, 0.0, resamples=10**5)


def test_the_verdict_of_draws():
    label, first, second, subjects = draw(2, clips=307, subjects=13)
    for said, better in (((first, second), "A is better than B"), ((second, first), "B is better than A")):
        found = compare.paired_bootstrap(EvaluationSet(label, subjects, 3, 199), *said)["uf1"]
        assert compare.verdict(found, "A", "B", resamples=199).startswith(better)
    # Equal in all clips but those of one subject: most draws are ties, and no p may be made of them.
    almost = first.copy()
    chosen = np.flatnonzero(np.array(subjects) == "s3")[:2]
    almost[:, chosen] = (label[chosen] + 1) % 3
    for said in ((almost, first), (first, almost)):
        found = compare.paired_bootstrap(EvaluationSet(label, subjects, 3, 199), *said)["uf1"]
        told = compare.verdict(found, "A", "B", resamples=199)
        assert told.startswith("No difference can be told") and "p =" not in told
