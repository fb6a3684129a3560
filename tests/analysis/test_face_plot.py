"""The picture of the regions: everything is in it, and nothing covers what is written."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from stag_jax.analysis import face_plot
from stag_jax.face import regions, template, topology


@pytest.fixture(scope="module")
def drawn():
    figure = face_plot.regions_figure()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure.axes[0], canvas.get_renderer()


def test_every_region_is_named_with_its_units(drawn):
    axes, _ = drawn
    written = {text.get_text().replace("\n", " ").replace("  ", " ") for text in axes.texts}
    for name, region in regions.table().items():
        assert f"{name.replace('_', ' ')} AU {' '.join(map(str, region.units))}" in written
    assert {"subject's right", "subject's left"} <= written and len(written) == 22 + 2
    (right,) = (text for text in axes.texts if text.get_text() == "subject's right")
    assert right.get_position()[0] < 0  # as one looks at somebody
    for text in axes.texts:
        name = text.get_text().split("\n")[0]
        if name.endswith((" r", " l")):
            assert (text.get_position()[0] < 0) == name.endswith(" r")


def test_labels_cover_neither_each_other_nor_a_dot(drawn):
    axes, renderer = drawn
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    boxes += [text.get_window_extent(renderer) for text in axes.get_legend().get_texts()]
    for (i, one), (j, other) in itertools.combinations(enumerate(boxes), 2):
        assert not one.overlaps(other), (i, j)
    dots = axes.transData.transform(regions.roi_centres(template.mean_face()))
    face = axes.transData.transform(template.mean_face())
    for box in boxes:
        assert not any(box.contains(*point) for point in (*dots, *face))


def test_edges_are_those_of_the_graph(drawn):
    axes, _ = drawn
    graph = topology.roi_topology((4, 12))
    centres = regions.roi_centres(template.mean_face())
    widths = {
        frozenset(np.flatnonzero(np.linalg.norm(centres - end, axis=1) < 1e-9)[0] for end in line.get_xydata()): line
        for line in axes.lines
        if len(line.get_xydata()) == 2
        and all(np.linalg.norm(centres - end, axis=1).min() < 1e-9 for end in line.get_xydata())
    }
    n = len(centres)
    expected = {frozenset((i, j)) for i in range(n) for j in range(i) if graph.adjacency[i, j]}
    assert set(widths) == expected
    ratio = [line.get_linewidth() / graph.adjacency[tuple(pair)] for pair, line in widths.items()]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


def test_the_file_is_a_small_picture_and_the_same_each_time(tmp_path):
    path = face_plot.draw_regions(tmp_path / "docs" / "regions.png")
    assert path.stat().st_size <= 200_000
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width < 1200
        assert np.asarray(image.convert("L")).min() < 50
    assert face_plot.draw_regions(tmp_path / "again.png").read_bytes() == path.read_bytes()
    names = ["again.npz", "again.png", "docs", "regions.npz", "regions.png"]
    assert sorted(file.name for file in tmp_path.rglob("*")) == names
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as data:
        np.testing.assert_allclose(data["centres"], regions.roi_centres(template.mean_face()))
        assert data["nodes"].tolist() == list(regions.table())
