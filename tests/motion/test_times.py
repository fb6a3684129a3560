"""Times of frames, and averages over the frames around a moment, where some are missing."""

import numpy as np
import pytest

from stag_jax.motion import times
from stag_jax.motion.times import Share


def one(*places):
    return [Share((place,), (1.0,)) for place in places]


def test_missing_frames_leave_their_time():
    np.testing.assert_array_equal(times.frame_times(3, 200.0, None), [0, 5, 10])
    np.testing.assert_array_equal(times.frame_times(3, 200.0, np.array([7, 8, 11])), [0, 5, 20])


@pytest.mark.parametrize(
    ("fps", "reach", "place", "expected"),
    [
        (200.0, 10.0, 4, one(2, 4, 6)),
        (200.0, 10.0, 1, one(1, 3)),  # nothing before the first
        (200.0, 10.0, 7, one(5, 7)),
        (200.0, 0.0, 3, one(3)),
        (120.0, 10.0, 4, one(3, 4, 5)),  # the nearest, 8.3 ms away
        (120.0, 10.0, 1, one(0, 1, 2)),
        (50.0, 10.0, 4, one(4)),  # 10 ms lie halfway to the next: of two equally near ones, the nearer to the middle
        (30.0, 10.0, 4, one(4)),
    ],
)
def test_without_gaps_a_moment_is_a_frame(fps, reach, place, expected):
    taken = times.frame_times(8, fps, None)
    assert times.around(taken, place, reach, 1000 / fps) == expected


def test_where_frames_are_missing_a_moment_is_between_its_neighbours():
    taken = times.frame_times(6, 200.0, np.array([0, 1, 2, 5, 6, 7]))  # 15 and 20 ms are missing
    found = times.around(taken, 3, 10.0, 5.0)  # 25 ms: of 15 there is two thirds of that of 10
    assert found[1:] == one(3, 5)
    assert found[0].places == (2, 3) and found[0].weights == pytest.approx((2 / 3, 1 / 3))
    assert times.places([found, one(0)]) == [0, 2, 3, 5]


def test_a_steady_movement_is_averaged_to_itself_across_a_gap():
    rng = np.random.default_rng(0)
    numbers = np.sort(rng.choice(40, 25, replace=False))
    taken = times.frame_times(25, 200.0, numbers)
    values = np.stack([taken, -2 * taken], axis=-1)
    for place in range(3, 22):
        average = times.around(taken, place, 10.0, 5.0)
        if len(average) == 3:
            np.testing.assert_allclose(times.mean(values, average), values[place])


def test_of_single_frames_it_is_their_mean_to_the_last_bit():
    values = np.random.default_rng(0).normal(size=(9, 5, 4)).astype(np.float32)
    found = times.mean(values, one(2, 4, 6))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values[[2, 4, 6]].mean(axis=0))
