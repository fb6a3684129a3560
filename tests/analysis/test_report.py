"""Tables and explanations against numbers made by hand."""

import numpy as np

from stag_jax.analysis import explain, report

CONFUSION = np.array([[5, 2, 0], [1, 3, 0], [2, 0, 0]])
CLASSES = ("negative", "positive", "surprise")


def test_per_class_rows():
    rows = report.per_class(CONFUSION, CLASSES)
    assert rows[0] == ["negative", "7", "8", "0.6250", "0.7143", "0.6667"]
    assert rows[1] == ["positive", "4", "5", "0.6000", "0.7500", "0.6667"]
    assert rows[2] == ["surprise", "2", "0", "0.0000", "0.0000", "0.0000"]  # never predicted: 0, not NaN


def test_the_figure_shows_counts_and_rates():
    axes = report.confusion_figure(CONFUSION, CLASSES).axes[0]
    assert [text.get_text() for text in axes.texts][:2] == ["5\n71%", "2\n29%"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(CLASSES)
    np.testing.assert_allclose(axes.images[0].get_array()[1], [0.25, 0.75, 0])


def test_explanations_are_means_over_the_frames_and_clips_of_a_class():
    mask = np.array([[True, True, False], [True, False, False], [True, True, True]])
    probability = np.array([[[0.2], [0.6], [0.9]], [[0.4], [0.8], [0.8]], [[0.1], [0.1], [0.3]]])
    bias = np.arange(3 * 3).reshape(3, 3, 1, 1) * np.ones((1, 1, 2, 2))
    aux = {"au_probability": probability, "connectivity": bias, "temporal_attention": mask / mask.sum(1, keepdims=True)}
    first, second, third = explain.by_class(aux, np.array([0, 0, 1]), mask, 3)
    np.testing.assert_allclose(first.au_probability, [0.5])  # hidden frames do not count: (0.6 + 0.4) / 2
    np.testing.assert_allclose(second.au_probability, [0.3])
    np.testing.assert_allclose(first.connectivity, np.full((2, 2), (0.5 + 3) / 2))
    np.testing.assert_allclose(first.temporal_attention, [0.75, 0.25, 0])
    assert third == (None, None, None)
    # A key-frame model speaks of one frame a clip, whatever was masked.
    single = explain.by_class({"au_probability": probability[:, :1]}, np.array([0, 0, 1]), mask, 1)[0]
    np.testing.assert_allclose(single.au_probability, [0.3])
    assert explain.by_class({}, np.array([0, 0, 1]), mask, 2)[0] == (None, None, None)
