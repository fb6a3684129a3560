import json

import numpy as np
import pytest
from sklearn import metrics as sklearn

from stag_jax.protocol import metrics

CLASSES = ("negative", "positive", "surprise")


def draw(seed, clips=101, classes=3, subjects=11):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, clips)
    prediction = np.where(rng.random(clips) < 0.5, label, rng.integers(0, classes, clips))
    return label, prediction, [f"s{index:02d}" for index in rng.integers(0, subjects, clips)]


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn(classes, seed):
    label, prediction, _ = draw(seed, clips=53, classes=classes)
    confusion = metrics.confusion_matrix(label, prediction, classes)
    np.testing.assert_array_equal(confusion, sklearn.confusion_matrix(label, prediction, labels=range(classes)))
    found = metrics.scores(confusion)
    assert found["uf1"] == pytest.approx(sklearn.f1_score(label, prediction, average="macro", zero_division=0))
    assert found["uar"] == pytest.approx(sklearn.balanced_accuracy_score(label, prediction))
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(label, prediction))
    assert found["weighted_f1"] == pytest.approx(
        sklearn.f1_score(label, prediction, average="weighted", zero_division=0)
    )


def test_a_class_without_clips_is_left_out_though_it_was_predicted():
    label, prediction = np.array([0, 0, 2, 2, 2]), np.array([0, 1, 2, 2, 1])
    found = metrics.scores(metrics.confusion_matrix(label, prediction, 3))
    assert found["uf1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["uar"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    there = {"labels": [0, 2], "average": "macro", "zero_division": 0}
    assert found["uf1"] == pytest.approx(sklearn.f1_score(label, prediction, **there))
    assert found["uar"] == pytest.approx(sklearn.recall_score(label, prediction, **there))
    assert found["accuracy"] == pytest.approx(3 / 5)


def test_no_clips_score_zero():
    assert all(score == 0 for score in metrics.scores(np.zeros((3, 3), int)).values())


# Clips by class, and what always saying the commonest class scores: constants of the corpora.
MAJORITY = {
    "composite": ((250, 109, 83), 0.5656, 0.2408, 0.3333),
    "composite, CASME II": ((88, 32, 25), 0.6069, 0.2518, 0.3333),
    "composite, SAMM": ((92, 26, 15), 0.6917, 0.2726, 0.3333),
    "composite, SMIC-HS": ((70, 51, 43), 0.4268, 0.1994, 0.3333),
    "CASME II, 5 classes": ((99, 63, 32, 28, 27), 0.3976, 0.1138, 0.2),
    "SAMM, 5 classes": ((57, 26, 26, 15, 12), 0.4191, 0.1181, 0.2),
    "DFME, train": ((161, 100, 548, 265, 206, 278, 298), 0.2953, 0.0651, 0.1429),
    "DFME, test A": ((39, 34, 129, 62, 63, 46, 101), 0.2722, 0.0611, 0.1429),
    "DFME, test B": ((41, 37, 58, 38, 42, 35, 48), 0.1940, 0.0464, 0.1429),
}


@pytest.mark.parametrize("counts, accuracy, uf1, uar", MAJORITY.values(), ids=MAJORITY)
def test_always_the_commonest_class(counts, accuracy, uf1, uar):
    label = np.repeat(np.arange(len(counts)), counts)
    prediction = np.full(len(label), np.argmax(counts))
    found = metrics.scores(metrics.confusion_matrix(label, prediction, len(counts)))
    assert (found["accuracy"], found["uf1"], found["uar"]) == pytest.approx((accuracy, uf1, uar), abs=5e-5)


def test_the_parts_of_the_composite_are_the_whole():
    parts = [np.array(MAJORITY[f"composite, {name}"][0]) for name in ("CASME II", "SAMM", "SMIC-HS")]
    np.testing.assert_array_equal(sum(parts), MAJORITY["composite"][0])


def test_a_stack_of_confusions_is_scored_one_by_one():
    stack = np.random.default_rng(0).integers(0, 5, (2, 7, 3, 3))
    stack[0, 0, 1] = 0  # a class that is not there
    stack[1, 3] = 0  # nothing is there
    for name, values in metrics.scores(stack).items():
        assert values.shape == (2, 7)
        for index in np.ndindex(2, 7):
            assert values[index] == pytest.approx(metrics.scores(stack[index])[name])


def test_intervals_are_repeatable_and_hold_the_score():
    held = 0
    for seed in range(11):
        label, prediction, subjects = draw(seed)
        found = metrics.subject_bootstrap(label, prediction, subjects, 3, resamples=199)
        assert found == metrics.subject_bootstrap(label, prediction, subjects, 3, resamples=199)
        assert found != metrics.subject_bootstrap(label, prediction, subjects, 3, resamples=199, seed=1)
        for name, score in metrics.scores(metrics.confusion_matrix(label, prediction, 3)).items():
            low, high = found[name]
            assert 0 <= low < high <= 1
            held += low <= score <= high
    assert held >= 43  # of 44


def test_intervals_are_those_of_resampling_in_loops():
    label, prediction, subjects = draw(0, clips=29, subjects=5)
    found = metrics.subject_bootstrap(label, prediction, subjects, 3, resamples=97, seed=3)
    names, rng, values = sorted(set(subjects)), np.random.default_rng(3), []
    for _ in range(97):
        drawn = []
        for name, times in zip(names, rng.multinomial(len(names), [1 / len(names)] * len(names)), strict=True):
            drawn += [clip for clip in range(29) if subjects[clip] == name] * times
        values.append(metrics.scores(metrics.confusion_matrix(label[drawn], prediction[drawn], 3))["uf1"])
    assert found["uf1"] == pytest.approx(np.quantile(values, (0.025, 0.975)))


def test_perfect_predictions_leave_no_doubt():
    label, _, subjects = draw(0)
    found = metrics.subject_bootstrap(label, label, subjects, 3, resamples=53)
    assert [tuple(interval) for interval in found.values()] == [(1.0, 1.0)] * 4


def test_subjects_are_resampled_and_not_clips():
    label, prediction, subjects = draw(0, clips=23, subjects=5)
    once = metrics.subject_bootstrap(label, prediction, subjects, 3, resamples=97)
    often = metrics.subject_bootstrap(np.tile(label, 7), np.tile(prediction, 7), subjects * 7, 3, resamples=97)
    for name in once:  # more clips of the same people say no more
        assert often[name] == pytest.approx(once[name])
    alone = metrics.subject_bootstrap(label, prediction, ["s00"] * 23, 3, resamples=97)
    for name, score in metrics.scores(metrics.confusion_matrix(label, prediction, 3)).items():
        assert alone[name] == pytest.approx((float(score), float(score)))


def test_report():
    label, prediction, subjects = draw(0)
    datasets = ["samm" if subject < "s06" else "casme2" for subject in subjects]
    found = metrics.report(label, prediction, subjects, datasets, CLASSES, resamples=19)
    scores = {"uf1", "uar", "accuracy", "weighted_f1"}
    assert set(found) == scores | {"ci95", "classes", "confusion", "per_dataset"}
    assert json.loads(json.dumps(found))["classes"] == list(CLASSES)
    assert set(found["ci95"]) == scores
    pooled = metrics.confusion_matrix(label, prediction, 3)
    assert found["confusion"] == pooled.tolist()
    assert found["uf1"] == pytest.approx(sklearn.f1_score(label, prediction, average="macro"))
    assert list(found["per_dataset"]) == ["casme2", "samm"]
    for name, part in found["per_dataset"].items():
        assert set(part) == scores | {"n_clips", "confusion"}
        chosen = np.array(datasets) == name
        assert part["n_clips"] == chosen.sum()
        assert part["uf1"] == pytest.approx(sklearn.f1_score(label[chosen], prediction[chosen], average="macro"))
    np.testing.assert_array_equal(sum(np.array(part["confusion"]) for part in found["per_dataset"].values()), pooled)
