import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import calibration as sklearn_calibration
from sklearn import metrics as sklearn

from stag_jax.protocol import calibration


def draw(seed, clips=211, classes=3):
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.full(classes, 0.7), clips)
    label = np.array([rng.choice(classes, p=each) for each in probability])
    return label, probability


def slowly(label, probability, bins):
    """The definition, clip by clip and bin by bin."""
    total = 0.0
    for index in range(bins):
        own = [
            (p.max(), p.argmax() == true)
            for true, p in zip(label, probability, strict=True)
            if index / bins <= p.max() < (index + 1) / bins or (index == bins - 1 and p.max() == 1)
        ]
        if own:
            gap = abs(np.mean([right for _, right in own]) - np.mean([sure for sure, _ in own]))
            total += len(own) / len(label) * gap
    return total


@pytest.mark.parametrize("bins", [1, 7, 10])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_that_of_its_definition(seed, bins):
    label, probability = draw(seed)
    assert calibration.calibration_error(label, probability, bins) == pytest.approx(slowly(label, probability, bins))


def test_the_diagram_is_that_of_scikit_learn():
    label, probability = draw(5)
    found = calibration.reliability(label, probability)
    right, sure = sklearn_calibration.calibration_curve(
        probability.argmax(axis=1) == label, probability.max(axis=1), n_bins=calibration.BINS
    )
    np.testing.assert_allclose([each.accuracy for each in found], right)
    np.testing.assert_allclose([each.confidence for each in found], sure)
    assert sum(each.clips for each in found) == len(label)
    assert all(each.low <= each.confidence <= each.high for each in found)


def test_being_sure_and_right_is_no_error_and_being_sure_and_wrong_is_all_of_it():
    label = np.array([0, 1, 2, 1, 0])
    assert calibration.calibration_error(label, np.eye(3)[label]) == 0
    assert calibration.calibration_error(label, np.eye(3)[(label + 1) % 3]) == 1


def test_probabilities_that_labels_are_drawn_from_are_calibrated():
    assert calibration.calibration_error(*draw(0, clips=40_009)) < 0.02


def test_log_loss_and_brier_score():
    label, probability = draw(3)
    assert calibration.log_loss(label, probability) == pytest.approx(sklearn.log_loss(label, probability))
    apart = [sklearn.brier_score_loss(label == k, probability[:, k]) for k in range(3)]
    assert calibration.brier(label, probability) == pytest.approx(sum(apart))


def test_a_probability_of_nothing_for_the_true_class_is_a_finite_loss():
    assert np.isfinite(calibration.log_loss(np.array([1]), np.array([[1.0, 0.0]])))


@given(st.integers(2, 5), st.integers(1, 41), st.integers(0, 99))
def test_the_error_lies_between_none_and_all(classes, clips, seed):
    label, probability = draw(seed, clips, classes)
    assert 0 <= calibration.calibration_error(label, probability) <= 1
