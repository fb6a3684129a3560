"""What is drawn is what is handed over beside it."""

import numpy as np
import pandas as pd
import pytest

from stag_jax import files
from stag_jax.analysis import charts, connections, drawing, examples
from stag_jax.analysis.faithfulness import RANDOM
from stag_jax.training.history import History

CLASSES = ("negative", "positive", "surprise")


def strip(rng):
    """A clip of seven kept frames, the last of them missing."""
    saliency = {name: rng.random((7, 5)) for name in ("integrated gradients", "attention rollout")}
    pictures, centres = rng.integers(0, 256, (7, 31, 29)).astype(np.uint8), rng.uniform(5, 25, (5, 2))
    mask = np.arange(7) < 6
    return examples.strip(
        pictures, centres, saliency, np.arange(7) * 10.0, mask, id="a/b/c", nodes=tuple("abcde")
    )  # fmt: skip


def images(chart):
    return [np.asarray(image.get_array()) for axes in chart.figure.axes for image in axes.images]


def test_saliency_over_faces():
    chart = strip(np.random.default_rng(0))
    data, shown = chart.data, images(chart)
    assert data["drawn"].tolist() == list(range(6)) and data["heat"].shape == (2, 6, 31, 29)
    np.testing.assert_array_equal(shown[0::2], np.concatenate([data["pictures"]] * 2))
    np.testing.assert_allclose(shown[1::2], data["heat"].reshape(12, 31, 29), atol=1e-6)
    for heat, shares in zip(data["heat"], data["saliency"], strict=True):
        again = examples.heat(shares, data["centres"], 31, 29)
        np.testing.assert_allclose(heat, again[data["drawn"]], atol=1e-6)
    assert str(data["id"]) == "a/b/c" and list(data["nodes"]) == list("abcde")


def test_curves_of_training():
    rng = np.random.default_rng(1)
    past = History(np.array([3, 6, 9]), rng.dirichlet(np.ones(3), (3, 2, 7)), {"loss": rng.random((3, 2, 4))})
    fold = np.arange(7) % 4
    chart = charts.learning_figure(past, rng.integers(0, 3, 7), fold, ["a", "b", "c", "d"])
    for axes, name in zip(chart.figure.axes, ("training_loss", "held_out_loss"), strict=True):
        assert chart.data[name].shape == (3, 4)
        (median,) = (line for line in axes.lines if line.get_label() == "median")
        np.testing.assert_allclose(median.get_ydata(), np.median(chart.data[name], axis=1))
        assert chart.data["quantiles"][1] == 0.5


def test_attention_over_time():
    rng = np.random.default_rng(2)
    weight, seen = rng.dirichlet(np.ones(5), 11), np.ones((11, 5), bool)
    label, times = rng.integers(0, 3, 11), np.sort(rng.uniform(0, 300, (11, 5)), axis=1)
    marks = {"onset": np.full(11, np.nan), "apex": rng.uniform(50, 200, 11)}
    chart = charts.time_figure(times, weight, seen, label, CLASSES, marks)
    for index, axes in enumerate(chart.figure.axes):
        alike, paid = (patch.get_data().values for patch in axes.patches)
        np.testing.assert_allclose(paid, chart.data["attention"][index])
        np.testing.assert_allclose(alike, chart.data["attention_if_alike"][index])
        assert chart.data["apex_ms"][index] == pytest.approx(np.median(marks["apex"][label == index]))
    assert np.isnan(chart.data["onset_ms"]).all()


def test_matrices_and_links():
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 9, (3, 3))
    chart = charts.confusion_figure(counts, CLASSES)
    np.testing.assert_allclose(images(chart)[0], chart.data["rate"])
    np.testing.assert_array_equal(chart.data["clips"], counts)
    links = rng.normal(size=(3, 5, 5))
    chart = connections.figure(links, CLASSES, rng.random((5, 2)), list("abcde"))
    np.testing.assert_allclose(chart.data["links"], (links + links.transpose(0, 2, 1)) / 2)
    assert "saliency" not in chart.data
    curves = {name: rng.random((2, 6, 4)) for name in ("integrated gradients", RANDOM)}
    chart = charts.area_figure(curves, list("wxyz"))
    for mode, axes in enumerate(chart.figure.axes):
        for line, mean in zip(axes.lines, chart.data["probability"][:, mode], strict=True):
            np.testing.assert_allclose(line.get_ydata(), mean)


def test_three_files_of_one_stem_and_no_objects(tmp_path):
    chart = strip(np.random.default_rng(0))
    paths, _ = drawing.save(chart, tmp_path / "saliency")
    assert [path.name for path in paths] == ["saliency.png", "saliency.svg", "saliency.npz"]
    with np.load(paths[2], allow_pickle=False) as data:
        assert set(data.files) == set(chart.data) and data["methods"].dtype.kind == "U"
    with pytest.raises(TypeError, match="x is an array of Python objects"):
        files.write_arrays(tmp_path / "odd.npz", {"x": [None, 1]})
    files.write_arrays(tmp_path / "table.npz", {"words": pd.Series(["uf1", "uar"])})  # objects, in a table
    assert list(np.load(tmp_path / "table.npz")["words"]) == ["uf1", "uar"]
    assert not (tmp_path / "odd.npz").exists()
