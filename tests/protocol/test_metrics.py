import json

import numpy as np
import pytest
from sklearn import metrics as sklearn

from stag_jax.protocol import metrics
from stag_jax.protocol.metrics import EvaluationSet

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
        found = metrics.subject_bootstrap(EvaluationSet(label, subjects, 3, 199), prediction)
        assert found == metrics.subject_bootstrap(EvaluationSet(label, subjects, 3, 199), prediction)
        assert found != metrics.subject_bootstrap(EvaluationSet(label, subjects, 3, 199, 1), prediction)
        for name, score in metrics.scores(metrics.confusion_matrix(label, prediction, 3)).items():
            low, high = found[name]
            assert 0 <= low < high <= 1
            held += low <= score <= high
    assert held >= 43  # of 44


def test_intervals_are_those_of_resampling_in_loops():
    label, prediction, subjects = draw(0, clips=29, subjects=5)
    found = metrics.subject_bootstrap(EvaluationSet(label, subjects, 3, 97, 3), prediction)
    names, rng, values = sorted(set(subjects)), np.random.default_rng(3), []
    for _ in range(97):
        drawn = []
        for name, times in zip(names, rng.multinomial(len(names), [1 / len(names)] * len(names)), strict=True):
            drawn += [clip for clip in range(29) if subjects[clip] == name] * times
        values.append(metrics.scores(metrics.confusion_matrix(label[drawn], prediction[drawn], 3))["uf1"])
    assert found["uf1"] == pytest.approx(np.quantile(values, (0.025, 0.975)))


def test_perfect_predictions_leave_no_doubt():
    label, _, subjects = draw(0)
    found = metrics.subject_bootstrap(EvaluationSet(label, subjects, 3, 53), label)
    assert [tuple(interval) for interval in found.values()] == [(1.0, 1.0)] * 4


def test_subjects_are_resampled_and_not_clips():
    label, prediction, subjects = draw(0, clips=23, subjects=5)
    once = metrics.subject_bootstrap(EvaluationSet(label, subjects, 3, 97), prediction)
    often = metrics.subject_bootstrap(EvaluationSet(np.tile(label, 7), subjects * 7, 3, 97), np.tile(prediction, 7))
    for name in once:  # more clips of the same people say no more
        assert often[name] == pytest.approx(once[name])
    alone = metrics.subject_bootstrap(EvaluationSet(label, ["s00"] * 23, 3, 97), prediction)
    for name, score in metrics.scores(metrics.confusion_matrix(label, prediction, 3)).items():
        assert alone[name] == pytest.approx((float(score), float(score)))


def seeds_of(seed, seeds=3):
    """Predictions of several seeds for the clips of `draw(seed)`, each wrong in its own way."""
    label, _, subjects = draw(seed)
    rng = np.random.default_rng(seed + 100)
    rate = np.linspace(0.3, 0.7, seeds)[:, None]
    wrong = rng.integers(0, 3, (seeds, len(label)))
    return label, np.where(rng.random((seeds, len(label))) < rate, label, wrong), subjects


def test_several_seeds_are_scored_apart_and_then_averaged():
    label, by_seed, _ = seeds_of(0)
    found = metrics.mean_scores(label, by_seed, 3)
    assert found["uf1"] == pytest.approx(np.mean([sklearn.f1_score(label, each, average="macro") for each in by_seed]))
    assert found["uar"] == pytest.approx(np.mean([sklearn.balanced_accuracy_score(label, each) for each in by_seed]))
    alone = metrics.scores(metrics.confusion_matrix(label, by_seed[1], 3))
    assert metrics.mean_scores(label, by_seed[1], 3) == {name: float(score) for name, score in alone.items()}


def test_the_interval_of_several_seeds_is_that_of_their_mean():
    label, by_seed, subjects = seeds_of(1)
    found = metrics.subject_bootstrap(EvaluationSet(label, subjects, 3, 53, 5), by_seed)
    names, rng, values = sorted(set(subjects)), np.random.default_rng(5), []
    for _ in range(53):
        drawn = []
        for name, times in zip(names, rng.multinomial(len(names), [1 / len(names)] * len(names)), strict=True):
            drawn += [clip for clip, subject in enumerate(subjects) if subject == name] * times
        each = [sklearn.f1_score(label[drawn], said[drawn], average="macro") for said in by_seed]
        values.append(np.mean(each))
    assert found["uf1"] == pytest.approx(np.quantile(values, (0.025, 0.975)))
    same = metrics.subject_bootstrap(EvaluationSet(label, subjects, 3, 53), by_seed[:1])
    assert same == metrics.subject_bootstrap(EvaluationSet(label, subjects, 3, 53), by_seed[0])


def test_report():
    label, by_seed, subjects = seeds_of(0)
    prediction = by_seed[2]
    datasets = ["samm" if subject < "s06" else "casme2" for subject in subjects]
    found = metrics.report(EvaluationSet(label, subjects, 3, 19), prediction, by_seed, datasets, CLASSES)
    scores = {"uf1", "uar", "accuracy", "weighted_f1"}
    own = scores | {"ci95", "mean_over_seeds", "confusion", "n_clips"}
    assert set(found) == own | {"classes", "per_dataset"}
    assert json.loads(json.dumps(found))["classes"] == list(CLASSES)
    pooled = metrics.confusion_matrix(label, prediction, 3)
    assert found["confusion"] == pooled.tolist()
    assert list(found["per_dataset"]) == ["casme2", "samm"]
    everything = np.ones(len(label), bool)
    for name, part in {"": found, **found["per_dataset"]}.items():
        assert name == "" or set(part) == own
        chosen = np.array(datasets) == name if name else everything
        who = [subject for subject, there in zip(subjects, chosen, strict=True) if there]
        assert part["n_clips"] == chosen.sum()
        assert part["uf1"] == pytest.approx(sklearn.f1_score(label[chosen], prediction[chosen], average="macro"))
        assert part["ci95"] == metrics.subject_bootstrap(EvaluationSet(label[chosen], who, 3, 19), prediction[chosen])
        assert set(part["mean_over_seeds"]) == set(part["ci95"]) == scores
        mean = part["mean_over_seeds"]["uar"]
        assert mean["mean"] == metrics.mean_scores(label[chosen], by_seed[:, chosen], 3)["uar"]
        bounds = metrics.subject_bootstrap(EvaluationSet(label[chosen], who, 3, 19), by_seed[:, chosen])
        assert mean["ci95"] == bounds["uar"]
    np.testing.assert_array_equal(sum(np.array(part["confusion"]) for part in found["per_dataset"].values()), pooled)


@pytest.mark.parametrize("levels", [3, 10**6])  # many clips of equal score, and none
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_scikit_learn(seed, levels):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, levels, 47) / levels
    label = rng.random(47) < 0.2 + 0.5 * score
    found = metrics.average_precision(label, score)
    assert found == pytest.approx(sklearn.average_precision_score(label, score))


def test_average_precision_by_hand():
    label = np.array([True, False, True, False])
    assert metrics.average_precision(label, np.array([0.9, 0.8, 0.7, 0.1])) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.average_precision(label, np.full(4, 0.3)) == 0.5  # nothing is told apart
    assert metrics.average_precision(label, np.array([0.2, 0.1, 0.2, 0.0])) == 1


def test_units_are_scored_where_their_label_is_known():
    rng = np.random.default_rng(7)
    label = (rng.random((37, 3)) < 0.4).astype(np.float32)
    probability = np.clip(0.5 * label + rng.uniform(0, 0.6, label.shape), 0, 1).astype(np.float32)
    probability[3, 0] = 0.5  # counts as predicted
    mask = rng.random((37, 3)) < 0.8
    mask[3, 0] = True
    label[:, 1] = 0  # nobody shows it
    found = metrics.unit_report(label, mask, probability, (1, 6, 12))
    assert json.loads(json.dumps(found)) == found
    assert list(found["per_unit"]) == ["1", "6", "12"]
    assert found["per_unit"]["6"] == {"f1": None, "average_precision": None, "positives": 0, "clips": mask[:, 1].sum()}
    for index, unit in ((0, "1"), (2, "12")):
        true, said = (values[mask[:, index], index] for values in (label, probability))
        each = found["per_unit"][unit]
        assert each["f1"] == pytest.approx(sklearn.f1_score(true, said >= 0.5))
        assert each["average_precision"] == pytest.approx(sklearn.average_precision_score(true, said))
        assert (each["positives"], each["clips"]) == (true.sum(), len(true))
    assert found["mean_f1"] == pytest.approx(np.mean([found["per_unit"][unit]["f1"] for unit in ("1", "12")]))
    assert metrics.unit_report(label[:, 1:2], mask[:, 1:2], probability[:, 1:2], (6,))["mean_f1"] is None
