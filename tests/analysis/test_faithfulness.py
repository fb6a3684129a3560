"""Curves of a network whose answer rests on known places."""

import jax.numpy as jnp
import numpy as np
import pytest

from stag_jax.analysis import faithfulness

KEY = (3, 2)  # the frame and region that the answer rests on


@pytest.fixture
def clips(make_batch):
    mask = np.ones((5, 7), bool)
    mask[1, 5:] = False
    batch = make_batch(frame_mask=mask)
    return batch._replace(nodes=jnp.abs(batch.nodes) + 1)


def answer(clips):
    """Class 1 where the key place moves, class 0 where it is still."""
    moves = (clips.nodes[:, KEY[0], KEY[1]] != 0).any(axis=-1).astype(jnp.float32)
    return jnp.stack([1 - moves, moves], axis=-1)


def test_the_place_that_matters_is_gone_first_and_there_first(clips):
    best = jnp.zeros((5, 7, 5)).at[:, KEY[0], KEY[1]].set(1.0)
    found = np.asarray(faithfulness.curves(answer, clips, jnp.ones(5, jnp.int32), jnp.stack([best, -best])))
    deletion, insertion = found
    assert found.shape == (2, 2, len(faithfulness.SHARES), 5)
    last = len(faithfulness.SHARES) - 1

    def step(first, then, at):
        """One value up to a place, another from there on, the same for all clips."""
        return np.where(np.arange(last + 1) < at, first, then)[:, None] * np.ones(5)

    np.testing.assert_array_equal(deletion[0], step(1, 0, 1))
    np.testing.assert_array_equal(insertion[0], step(0, 1, 1))
    # The wrong way round it goes last, and comes last.
    np.testing.assert_array_equal(deletion[1], step(1, 0, last))
    np.testing.assert_array_equal(insertion[1], step(0, 1, last))


def test_as_many_places_go_as_the_share_says_and_hidden_frames_do_not_count(clips):

    def count(changed):
        moves = (changed.nodes != 0).any(axis=-1)
        shown = (moves & changed.frame_mask[:, :, None]).sum(axis=(1, 2)).astype(jnp.float32)
        return jnp.stack([shown, shown], axis=-1)

    saliency = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 7, 5)), jnp.float32)
    found = np.asarray(faithfulness.curves(count, clips, jnp.zeros(5, jnp.int32), saliency))[:, 0]
    for share, deleted, inserted in zip(faithfulness.SHARES, *found, strict=True):
        for clip, total in enumerate((35, 25, 35, 35, 35)):
            gone = round(share * total)
            assert (deleted[clip], inserted[clip]) == (total - gone, gone), (share, clip)


def test_random_order_belongs_to_a_clip():
    one = faithfulness.random_saliency(["a/1", "b/2"], (7, 5))
    other = faithfulness.random_saliency(["b/2"], (7, 5))
    np.testing.assert_array_equal(one[1], other[0])
    assert not np.array_equal(one[0], one[1])


def test_areas_and_what_is_better_than_random():
    shares = np.asarray(faithfulness.SHARES)
    flat, good = np.full((2, len(shares), 3), 0.5), np.zeros((2, len(shares), 3))
    good[1] = 1.0
    found = faithfulness.areas(
        {"good": good, "bad": 1 - good, faithfulness.RANDOM: flat}, ["s1", "s1", "s2"], resamples=50
    )
    by = {(each.mode, each.method): each for each in found}
    assert by[faithfulness.DELETION, "good"][2:] == pytest.approx((0.0, 0.5, 0.5, 0.5))
    assert by[faithfulness.INSERTION, "good"][2:] == pytest.approx((1.0, 0.5, 0.5, 0.5))
    assert by[faithfulness.DELETION, "bad"].better == pytest.approx(-0.5)
    assert by[faithfulness.INSERTION, faithfulness.RANDOM][2:] == pytest.approx((0.5, 0, 0, 0))


def test_the_interval_is_over_subjects():
    """A subject with many clips counts as one: the interval reaches as far as either subject alone."""
    curve = np.zeros((2, len(faithfulness.SHARES), 11))
    curve[1, :, :10] = 1.0
    plain = np.zeros_like(curve)
    found = faithfulness.areas({"x": curve, faithfulness.RANDOM: plain}, ["a"] * 10 + ["b"], resamples=400)
    inserted = next(each for each in found if each.mode == faithfulness.INSERTION and each.method == "x")
    assert inserted.better == pytest.approx(10 / 11)
    assert (inserted.low, inserted.high) == (0.0, 1.0)
