"""What is explained of action units, against numbers made by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from stag_jax.analysis import connections, explain
from stag_jax.motion import nodes
from stag_jax.protocol import metrics
from tests import makers

INCIDENCE = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]], np.float32)


def test_the_peak_is_over_the_frames_that_are_there():
    probability = np.array([[[0.2, 0.1], [0.6, 0.3], [0.9, 0.9]]])
    seen = np.array([[True, True, False]])
    np.testing.assert_allclose(explain.peak(probability, seen), [[0.6, 0.3]])


def test_relevance_is_one_where_all_regions_are_alike():
    even = np.full((2, 3, 5), 1 / 15)
    np.testing.assert_allclose(explain.relevance(even, INCIDENCE), np.ones((2, 3)))
    one = np.zeros((1, 3, 5))
    one[0, 1, 0] = 1  # all of it in a region that only the first unit moves
    np.testing.assert_allclose(explain.relevance(one, INCIDENCE), [[2.5, 0, 0]])


def test_a_unit_is_explained_where_it_was_seen_and_its_regions_count():
    probability = np.array([[[0.9, 0.9, 0.0]]])
    spread = np.zeros((1, 1, 5))
    spread[0, 0, 2:4] = 0.5
    found = explain.explained(probability, np.ones((1, 1), bool), spread, INCIDENCE)
    assert found[0].argmax() == 1 and found[0, 0] == 0 and found[0, 2] == 0


def test_means_by_class_leave_an_absent_class_open():
    found = explain.mean_by_class(np.array([[1.0], [3.0], [7.0]]), np.array([0, 0, 2]), 3)
    np.testing.assert_array_equal(found, [[2.0], [np.nan], [7.0]])


def test_agreement_is_average_precision():
    rng = np.random.default_rng(0)
    au, score = (rng.random((29, 5)) < 0.3).astype(float), rng.random((29, 5))
    mask = rng.random((29, 5)) < 0.8
    au[0] = [1, 0, 0, 0, 1]
    mask[0] = True
    subjects = [f"s{index % 7}" for index in range(29)]
    found = explain.agreement(score, au, mask, subjects, resamples=200)
    true = (au > 0) & mask
    assert found.pooled == pytest.approx(sklearn.average_precision_score(true[mask], score[mask]))
    units = [sklearn.average_precision_score(true[m, u], score[m, u]) for u, m in enumerate(mask.T)]
    assert found.per_unit == pytest.approx(np.mean(units))
    clips = [sklearn.average_precision_score(true[b, m], score[b, m]) for b, m in enumerate(mask) if true[b].any()]
    assert found.per_clip == pytest.approx(np.mean(clips))
    assert found.low < found.pooled < found.high
    assert explain.agreement(au, au, mask, subjects, resamples=20) == (1, 1, 1, 1, 1)
    assert explain.agreement(score, au, np.zeros_like(mask), subjects, resamples=20) is None


def test_the_interval_of_agreement_is_over_whole_subjects():
    """Resamples weigh each subject's pairs by how often it is drawn: the same as repeating its clips."""
    rng = np.random.default_rng(1)
    au, score = (rng.random((11, 5)) < 0.4).astype(float), rng.random((11, 5))
    mask, subjects = rng.random((11, 5)) < 0.9, ["a"] * 3 + ["b"] * 5 + ["c"] * 3
    _, draws = metrics.resample(subjects, 13)
    rows = [np.repeat(np.arange(11), [draw["abc".index(name)] for name in subjects]) for draw in draws]
    want = [sklearn.average_precision_score((au > 0)[r][mask[r]], score[r][mask[r]]) for r in rows]
    found = explain._resampled(score, (au > 0) & mask, mask, subjects, 13)
    # scikit-learn takes pairs of equal score, which repeated clips are, together; here one follows the other.
    np.testing.assert_allclose(found, want, atol=0.03)
    once = [index for index, draw in enumerate(draws) if draw.max() == 1]
    np.testing.assert_allclose(found[once], np.asarray(want)[once])


def test_links_of_a_class_are_those_beyond_an_average_clip():
    rng = np.random.default_rng(3)
    bias, label = rng.normal(size=(7, 3, 5, 5)), np.array([0, 0, 0, 2, 2, 2, 2])
    seen = np.ones((7, 3), bool)
    seen[1, 2] = False
    bias[1, 2] = 99  # a frame that is not there
    found = connections.by_class(bias, seen, label, 3)
    clips = np.stack([bias[b, seen[b]].mean(axis=0) for b in range(7)])
    np.testing.assert_allclose(found[0], clips[:3].mean(axis=0) - clips.mean(axis=0))
    np.testing.assert_allclose(3 * found[0] + 4 * found[2], 0, atol=1e-12)
    assert not found[1].any()


def test_links_of_units_are_means_over_their_regions():
    links = np.arange(25.0).reshape(5, 5)
    found = connections.of_units(links, INCIDENCE)
    np.testing.assert_allclose([found[0, 1], found[2, 0]], [links[:2, 2:4].mean(), links[2:, :2].mean()], rtol=1e-6)


def test_regions_that_are_kept_are_drawn_where_they_are():
    whole = makers.tiny_config(graph__kind="roi")
    few = makers.tiny_config(graph__kind="roi", graph__units=(1, 17), graph__nodes=("chin", "glabella"))
    graphs = [nodes.graph(config.graph, config.motion) for config in (whole, few)]
    everywhere, places = (connections.region_places(c.graph, g) for c, g in zip((whole, few), graphs, strict=True))
    at = [graphs[0].node_names.index(name) for name in graphs[1].node_names]
    np.testing.assert_array_equal(places, everywhere[at])


def test_units_are_drawn_apart():
    units = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26)
    config = makers.tiny_config(graph__kind="roi", graph__units=units)
    graph = nodes.graph(config.graph, config.motion)
    places = connections.region_places(config.graph, graph)
    found = connections.unit_places(places, graph.incidence)
    far = np.linalg.norm(found[:, None] - found[None], axis=-1) + np.eye(len(units))
    assert far.min() > 0.7 * connections.APART
    assert np.isfinite(found).all()
    alike = connections.unit_places(np.zeros((5, 2)), INCIDENCE)  # all in one place to begin with
    assert np.isfinite(alike).all() and np.linalg.norm(alike[0] - alike[1]) > 0.1
