import numpy as np
import pytest

from stag_jax.motion import selection


def movement(f, peak, seed=0):
    """Rise, peak and fall over a noisy floor."""
    t = np.arange(f)
    rng = np.random.default_rng(seed)
    return (0.1 + np.exp(-(((t - peak) / (f / 8)) ** 2)) + rng.uniform(0, 0.02, f)).astype(np.float32)


@pytest.mark.parametrize("kind", ["magnitude", "uniform"])
@pytest.mark.parametrize("f", [1, 2, 5, 7, 8, 11, 60, 199])
@pytest.mark.parametrize("k", [1, 3, 7, 8])
def test_indices_are_sorted_distinct_and_padded(kind, f, k):
    index, mask = selection.select(movement(f, f // 3, seed=k), k, kind)
    assert index.shape == mask.shape == (k,)
    assert mask.sum() == min(f, k) and (np.diff(mask.astype(int)) <= 0).all()
    assert (np.diff(index[mask]) > 0).all()
    assert index.min() >= 0 and index.max() < f
    assert (index[~mask] == f - 1).all()


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_is_always_among_them(seed):
    rng = np.random.default_rng(seed)
    magnitude = rng.exponential(size=rng.integers(1, 50)).astype(np.float32) ** 3
    for k in (1, 2, 8):
        index, mask = selection.select(magnitude, k, "magnitude")
        assert magnitude.argmax() in index[mask]


def test_rise_peak_and_fall_are_covered():
    index, _ = selection.select(movement(80, 30), 8, "magnitude")
    assert (index < 29).sum() >= 2 and (index > 31).sum() >= 2
    # Frames are where the movement is: none in the still half of the clip, where uniform has four.
    assert (index > 60).sum() <= 1


def test_one_wild_frame_does_not_take_more_than_one_place():
    magnitude = movement(40, 15)
    magnitude[33] = 1000
    index, _ = selection.select(magnitude, 6, "magnitude")
    assert 33 in index and len(set(index)) == 6


def test_a_still_clip_is_sampled_evenly():
    for value in (0.0, 0.3):
        index, mask = selection.select(np.full(21, value, np.float32), 5, "magnitude")
        np.testing.assert_array_equal(index, [0, 5, 10, 15, 20])
        assert mask.all()


def test_the_still_half_of_the_face_does_not_count():
    face = np.zeros((3, 23), np.float32)
    face[1, 8:16] = 0.5  # some regions move
    face[2] = 0.1  # all of them, a little
    still, moving, all_a_little = selection.frame_magnitude(face)
    assert still == 0 and moving > 0.3
    np.testing.assert_allclose(all_a_little, 0.1, rtol=1e-6)


def test_magnitude_grows_with_the_movement_whatever_the_order_of_regions():
    rng = np.random.default_rng(0)
    face = rng.uniform(size=(5, 23)).astype(np.float32)
    plain = selection.frame_magnitude(face)
    np.testing.assert_allclose(selection.frame_magnitude(2 * face), 2 * plain, rtol=1e-6)
    np.testing.assert_allclose(selection.frame_magnitude(face[:, rng.permutation(23)]), plain, rtol=1e-6)
    assert selection.frame_magnitude(face[:, :1]).shape == (5,)


def test_phases_of_a_known_movement():
    rise = np.concatenate([np.zeros(11), np.linspace(0, 1, 12), np.linspace(1, 0, 23)[1:], np.zeros(7)])
    found = selection.phases(rise.astype(np.float32))
    # A fifth of the height is first passed in frame 14 (3/11), and last in frame 39 (5/22).
    assert found == (13, 22, 40)
    louder = selection.phases((3 * rise + 0.7).astype(np.float32))
    assert louder == found


def test_phases_at_the_ends_of_a_clip_and_with_gaps():
    assert selection.phases(np.float32([np.nan, 1, 2, 3, 4])) == (1, 4, 4)
    assert selection.phases(np.float32([4, 3, 2, 1, 0.1])) == (0, 0, 3)
    assert selection.phases(np.float32([np.nan, 0, 5, np.nan, 5, 0.1])) == (1, 2, 5)
    with pytest.raises(ValueError, match="without a magnitude"):
        selection.phases(np.full(3, np.nan, np.float32))
