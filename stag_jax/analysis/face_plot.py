"""A picture of the graph over the face: regions, the units that move them, their closeness, and rigid points."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stag_jax.face import regions, template, topology
from stag_jax.files import write_arrays, write_atomically

DPI = 110
OUTLINES = {
    "jaw": (range(0, 17), False),
    "right brow": (range(17, 22), False),
    "left brow": (range(22, 27), False),
    "nose ridge": (range(27, 31), False),
    "nose base": (range(31, 36), False),
    "right eye": (range(36, 42), True),
    "left eye": (range(42, 48), True),
    "outer lips": (range(48, 60), True),
    "inner lips": (range(60, 68), True),
}
COLUMN = 1.02  # outer eye distances from the midline to the labels ...
ROWS = (-0.42, 1.24)  # ... and from the line of the eyes to the first and the last of them
AFTER = 0.11  # labels of the midline are sorted as if their dots were this much lower
ABOVE, BELOW = "glabella", "jaw"  # regions of the midline that are labelled over and under the face, ...
ON_THE_RIGHT = ("lower_lip", "chin")  # ... and on the subject's right; the others on the left
GREY, EDGE, SKIN = "#9a9a9a", "#4c72b0", "#c9a48c"


def draw_regions(path: Path) -> Path:
    """Draw the picture to `path` as a PNG of about 1050 x 650 pixels, and write the arrays drawn beside it as `.npz`.

    Each file is written whole or not at all. Returns `path`.
    """
    matplotlib.use("agg")
    figure = regions_figure()
    with write_atomically(path) as temporary:
        # Without the version in it, the same picture gives the same file.
        options = {"metadata": {"Software": None}, "pil_kwargs": {"optimize": True}}
        figure.savefig(temporary, dpi=DPI, bbox_inches="tight", pad_inches=0.08, **options)
    write_arrays(path.with_suffix(".npz"), graph_arrays())
    return path


def graph_arrays() -> dict[str, Any]:
    """Return what `regions_figure` draws, by name; positions are in outer eye distances from midway between the eyes.

    landmarks [p 2], nodes [n], centres [n 2], rigid [r 2], units [u], incidence [u n] (1 where a unit moves a region),
    adjacency [n n2] (closeness, 0 to 1), mirror [n] (index of the region on the other side).
    """
    face, graph = template.mean_face(), _graph()
    return {
        "landmarks": face,
        "nodes": graph.node_names,
        "centres": regions.roi_centres(face),
        "rigid": regions.rigid_points(face),
        "units": graph.units,
        "incidence": graph.incidence,
        "adjacency": graph.adjacency,
        "mirror": graph.mirror,
    }


def _graph() -> topology.Topology:
    units = {unit for region in regions.table().values() for unit in region.units}
    return topology.roi_topology(tuple(sorted(units)))


def regions_figure() -> Figure:
    """Draw the mean face, in outer eye distances, seen from the front: the subject's right is on the left."""
    face, table = template.mean_face(), regions.table()
    graph = _graph()
    centres = regions.roi_centres(face)
    colours = _colours(tuple(table))
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    axes = figure.subplots()
    for points, closed in OUTLINES.values():
        line = face[list(points) + [points[0]] * closed]
        axes.plot(*line.T, color=SKIN, linewidth=1.4, zorder=1)
    _draw_edges(axes, graph, centres)
    rigid = regions.rigid_points(face)
    axes.scatter(*rigid.T, marker="x", s=38, color="black", linewidths=1.3, zorder=4, label="holds still")
    axes.scatter(*centres.T, s=70, c=colours, edgecolors="white", linewidths=1.0, zorder=5)
    _draw_labels(axes, table, centres, colours)
    axes.plot([], [], "o", color=GREY, label="region, and the action units that move it")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.08), ncols=4, frameon=False, fontsize=9)
    for side, x in (("subject's right", -1), ("subject's left", 1)):
        align = {"ha": "left" if x > 0 else "right", "va": "center"}
        axes.text(x * COLUMN, ROWS[0] - 0.17, side, fontsize=10, style="italic", color="#444444", **align)
    axes.set_xlim(-1.62, 1.62)
    axes.set_ylim(ROWS[1] + 0.2, ROWS[0] - 0.23)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure


def _colours(names: tuple[str, ...]) -> list[tuple[float, float, float, float]]:
    """Return one colour per region, the same for both sides, so that a label matches its dot."""
    kinds = list(dict.fromkeys(name.removesuffix("_r").removesuffix("_l") for name in names))
    wheel = [*matplotlib.colormaps["tab10"].colors[:7], *matplotlib.colormaps["Dark2"].colors[:7]]
    return [(*wheel[kinds.index(name.removesuffix("_r").removesuffix("_l"))], 1.0) for name in names]


def _draw_edges(axes: Axes, graph: topology.Topology, centres: Float[np.ndarray, "n 2"]) -> None:
    """Draw closeness as thickness; mirror pairs, which are linked at any distance, are dotted."""
    n = len(graph.node_names)
    for i, j in zip(*np.triu_indices(n, 1), strict=True):
        closeness = float(graph.adjacency[i, j])
        if closeness:
            pair = graph.mirror[i] == j
            style = {"linestyle": (0, (1, 2)), "color": GREY} if pair else {"linestyle": "-", "color": EDGE}
            axes.plot(*centres[[i, j]].T, linewidth=3.5 * closeness, alpha=0.3 + 0.3 * closeness, zorder=2, **style)
    axes.plot([], [], color=EDGE, linewidth=3, alpha=0.5, label="anatomically close")
    axes.plot([], [], color=GREY, linewidth=1.75, linestyle=(0, (1, 2)), label="mirror pair")


def _draw_labels(
    axes: Axes, table: dict[str, regions.Region], centres: Float[np.ndarray, "n 2"], colours: list[tuple[float, ...]]
) -> None:
    """Draw names and units in two columns beside the face, evenly spaced, each with a line to its dot."""
    names = list(table)
    # A region of the midline comes after the pair beside it, so that its line passes below their dots.
    order = np.argsort(centres[:, 1] + AFTER * np.isclose(centres[:, 0], 0))
    places = {ABOVE: (0.0, ROWS[0] - 0.1, "center"), BELOW: (0.0, ROWS[1] + 0.13, "center")}
    right = [names[i] for i in order if names[i].endswith("_r") or names[i] in ON_THE_RIGHT]
    left = [names[i] for i in order if names[i] not in (*right, *places)]
    for x, align, column in ((-COLUMN, "right", right), (COLUMN, "left", left)):
        places |= {name: (x, y, align) for name, y in zip(column, np.linspace(*ROWS, len(column)), strict=True)}
    for name, (x, y, align) in places.items():
        i = names.index(name)
        units = f"AU {' '.join(map(str, table[name].units))}"
        text = f"{name.replace('_', ' ')}{'  ' if x == 0 else chr(10)}{units}"
        end = (x - np.sign(x) * 0.03, y if x else y - np.sign(y) * 0.05)
        axes.plot(*zip(centres[i], end, strict=True), color=colours[i], linewidth=0.7, zorder=3)
        dark = tuple(0.75 * part for part in colours[i][:3])
        axes.text(x, y, text, fontsize=8.5, linespacing=1.15, color=dark, ha=align, va="center")
