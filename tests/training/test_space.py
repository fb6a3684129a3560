"""Spaces of settings: all combinations of a grid, draws within their ranges, mistakes named."""

import numpy as np
import pytest

from stag_jax.training import space
from stag_jax.types import UserError

ROWS = (
    ("train.learning_rate", "log_uniform", 1e-4, 1e-1),
    ("model.dropout", "uniform", 0.1, 0.5),
    ("loss.gamma", "choice", 0.0, 1.0, 2.0),
)


def test_a_grid_is_every_combination_once():
    rows = (("model.width", "choice", 32, 64), ("loss.gamma", "choice", 0.0, 1.0, 2.0))
    found = space.draw(rows, "grid", 0, 0)
    assert list(found) == [f"t{i}" for i in range(6)]
    assert [tuple(each.values()) for each in found.values()] == [(w, g) for w in (32, 64) for g in (0.0, 1.0, 2.0)]


def test_random_draws_lie_in_their_ranges_as_they_should():
    found = list(space.draw(ROWS, "random", 700, 3).values())
    rate, dropout, gamma = (np.array([each[row[0]] for each in found]) for row in ROWS)
    assert rate.min() >= 1e-4 and rate.max() <= 1e-1 and dropout.min() >= 0.1 and dropout.max() <= 0.5
    # Each third of the logarithm has a third of the draws; so has each third of the plain range.
    thirds = [np.histogram(np.log10(rate), 3, (-4, -1))[0], np.histogram(dropout, 3, (0.1, 0.5))[0]]
    thirds.append(np.array([(gamma == value).sum() for value in (0.0, 1.0, 2.0)]))
    assert np.abs(np.array(thirds) / 700 - 1 / 3).max() < 0.07
    assert all(float(f"{value:.6g}") == value for value in rate)


def test_more_trials_keep_the_first_ones():
    few, many = space.draw(ROWS, "random", 5, 1), space.draw(ROWS, "random", 9, 1)
    assert [many[name] for name in few] == list(few.values())
    assert space.draw(ROWS, "random", 5, 2) != few
    assert list(space.draw(ROWS, "random", 11, 1))[:2] == ["t00", "t01"]


@pytest.mark.parametrize(
    "rows, search, count, message",
    [
        (ROWS, "random", 0, "`count` must be 1 or more"),
        (ROWS, "grid", 0, r"train\.learning_rate: a grid takes choices only"),
        (ROWS, "bayes", 3, "`search` is grid or random, got 'bayes'"),
        ((), "random", 3, "names one or more keys"),
        ((ROWS[1], ROWS[1]), "random", 3, "each once"),
        ((("a", "normal", 0, 1),), "random", 3, "a: 'normal' is none of choice, uniform, log_uniform"),
        ((("a", "choice"),), "grid", 3, "a: nothing to choose from"),
        ((("a", "uniform", 1.0, 1.0),), "random", 3, "a: uniform needs a lower and a higher end"),
        ((("a", "uniform", 1.0),), "random", 3, "a: uniform needs a lower and a higher end"),
        ((("a", "log_uniform", 0.0, 1.0),), "random", 3, "a: log_uniform needs ends above zero"),
    ],
)
def test_mistakes_are_named(rows, search, count, message):
    with pytest.raises(UserError, match=message):
        space.draw(rows, search, count, 0)
