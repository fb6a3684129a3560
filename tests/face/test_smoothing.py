import numpy as np
import pytest

from stag_jax.face import smoothing

GAIN = {5: 1.43, 7: 1.73, 9: 1.98}  # as documented


def clip(f, path, seed=0):
    """A face 80 pixels between the eyes that moves along `path` (f, 2), everything in sync."""
    shape = np.random.default_rng(seed).uniform(0, 100, (68, 2))
    shape[36], shape[45] = (10, 40), (90, 40)
    return (shape + np.broadcast_to(path, (f, 2))[:, None]).astype(np.float32)


def slow(points, window):
    """Slow and obvious: fit a parabola to the window around each frame, clamped to the clip."""
    f = len(points)
    out = np.empty(points.shape)
    for i in range(f):
        first = min(max(i - window // 2, 0), f - window)
        t = np.arange(first, first + window)
        fit = np.polynomial.polynomial.polyfit(t - i, points[t].reshape(window, -1).astype(float), 2)
        out[i] = fit[0].reshape(68, 2)
    return out


@pytest.mark.parametrize("window", [5, 7, 11])
def test_it_is_the_parabola_through_the_window(window):
    points = clip(23, np.random.default_rng(1).normal(size=(23, 2)))
    np.testing.assert_allclose(smoothing.smooth(points, window, np.inf), slow(points, window), atol=1e-4)


def test_even_and_evenly_accelerated_movement_passes():
    t = np.arange(31.0)[:, None]
    for path in (t * (0.7, -0.3), 0.05 * t**2 * (1, 2)):
        points = clip(31, path)
        np.testing.assert_allclose(smoothing.smooth(points, 7, np.inf), points, atol=1e-4)


@pytest.mark.parametrize("window", GAIN)
def test_noise_falls_by_the_documented_factor(window):
    noise = np.random.default_rng(2).normal(size=(401, 68, 2)).astype(np.float32)
    still = clip(401, 0.0)
    left = smoothing.smooth(still + noise, window, np.inf) - still
    assert 1 / left[window:-window].std() == pytest.approx(GAIN[window], rel=0.03)


def test_a_peak_stays_in_its_frame_and_symmetric():
    t = np.arange(41.0)
    for peak in (13, 20, 29):
        pulse = np.exp(-0.5 * ((t - peak) / 4) ** 2)
        out = smoothing.smooth(clip(41, pulse[:, None] * (2, 1)), 7, np.inf)
        height = out[:, 0, 0] - out[0, 0, 0]
        assert height.argmax() == peak
        np.testing.assert_allclose(height[peak - 7 : peak], height[peak + 7 : peak : -1], atol=1e-4)
        assert height.max() > 1.9  # of 2


def test_a_sine_neither_leads_nor_lags():
    t = np.arange(61.0)
    out = smoothing.smooth(clip(61, np.sin(t / 3)[:, None] * (1, 1)), 7, np.inf)[:, 5, 0]
    inner = slice(7, -7)
    waves = np.stack([np.sin(t / 3), np.cos(t / 3), np.ones(61)], axis=1)[inner]
    in_phase, out_of_phase, _ = np.linalg.lstsq(waves, out[inner], rcond=None)[0]
    assert in_phase > 0.9 and abs(out_of_phase) < 1e-4


def test_refused_frames_part_the_runs():
    points = clip(29, np.random.default_rng(3).normal(size=(29, 2)))
    points[[11, 12, 20]] = np.nan
    out = smoothing.smooth(points, 7, np.inf)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(points))
    for run in (slice(0, 11), slice(13, 20)):
        np.testing.assert_allclose(out[run], slow(points[run], 7), atol=1e-4)


def test_a_jump_is_not_smoothed_over():
    points = clip(20, 0.0)
    points[9:] += 30  # more than a third of the eye distance
    np.testing.assert_allclose(smoothing.smooth(points, 7, 0.1), points, atol=1e-4)
    assert np.abs(smoothing.smooth(points, 7, np.inf) - points).max() > 3


def test_short_runs_are_smoothed_by_less():
    points = clip(6, np.random.default_rng(4).normal(size=(6, 2)))
    np.testing.assert_allclose(smoothing.smooth(points, 9, np.inf), slow(points, 5), atol=1e-4)
    for f in (0, 1, 3, 4):
        np.testing.assert_array_equal(smoothing.smooth(points[:f], 9, np.inf), points[:f])


def test_zero_is_off():
    points = clip(13, np.random.default_rng(5).normal(size=(13, 2)))
    np.testing.assert_array_equal(smoothing.smooth(points, 0, np.inf), points)
