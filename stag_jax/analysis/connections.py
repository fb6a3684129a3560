"""Learned connectivity between regions and between action units, by class, drawn on a face."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stag_jax.analysis.drawing import ACCENT, INK, MUTED, WARM, Chart
from stag_jax.analysis.face_plot import OUTLINES
from stag_jax.config import GraphConfig
from stag_jax.face import regions, template
from stag_jax.motion import nodes
from stag_jax.types import FaceGraph

LINES = 16  # links drawn in each face, the strongest
APART = 0.2  # least distance of two units, in outer eye distances


def by_class(
    connectivity: Float[np.ndarray, "b t n n2"],
    seen: Bool[np.ndarray, "b t"],
    label: Int[np.ndarray, " b"],
    classes: int,
) -> Float[np.ndarray, "k n n2"]:
    """Return how much more (or less) regions are linked in the clips of a class than in an average clip.

    This is the bias of the attention scores, mean over frames and clips, less its mean over all clips: what is added to
    the logarithm of an attention weight before the scores are. Zero for a class without clips.
    """
    weight = (seen / np.maximum(seen.sum(axis=1, keepdims=True), 1))[:, :, None, None]
    clips = (connectivity * weight).sum(axis=1)
    masks = [label == index for index in range(classes)]
    return np.stack(
        [clips[mask].mean(axis=0) - clips.mean(axis=0) if mask.any() else np.zeros(clips.shape[1:]) for mask in masks]
    )


def of_units(links: Float[np.ndarray, "*k n n2"], incidence: Float[np.ndarray, "u n"]) -> Float[np.ndarray, "*k u u2"]:
    """Return the links between action units: the mean over all links from the regions of one to those of the other."""
    share = incidence / np.maximum(incidence.sum(axis=1, keepdims=True), 1)
    return share @ links @ share.T


def symmetric(links: Float[np.ndarray, "k n n2"]) -> Float[np.ndarray, "k n n2"]:
    """Return the mean of both directions."""
    return (links + np.swapaxes(links, -1, -2)) / 2


def region_places(config: GraphConfig, graph: FaceGraph) -> Float[np.ndarray, "n 2"]:
    """Return the positions of the nodes on the mean face, in outer eye distances."""
    if config.kind == "roi":
        return nodes.kept(regions.roi_centres(template.mean_face()), config)
    return (graph.position - (0.5, template.FLOW_EYE_LINE)) / np.asarray(template.FLOW_OUTER_EYES)


def unit_places(places: Float[np.ndarray, "n 2"], incidence: Float[np.ndarray, "u n"]) -> Float[np.ndarray, "u 2"]:
    """Return where to draw the units: amid their regions on the subject's left, moved apart where they would touch."""
    half = np.where(places[:, 0] >= -1e-6, 1.0, 0.0)
    weight = incidence * half + 1e-9  # a unit without a region lies at the centre of all of them
    positions = weight @ places / weight.sum(axis=1, keepdims=True)
    # Units at the same position move apart, each in its own fixed direction.
    angle = np.arange(len(positions)) * 2.4
    default_direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None] * np.ones((1, len(positions), 1))
    for _ in range(200):
        offset = positions[:, None] - positions[None]
        distance = np.linalg.norm(offset, axis=-1)
        push = np.maximum(APART - distance, 0) * (1 - np.eye(len(positions)))
        if push.max() < 1e-3:
            break
        separate = distance[..., None] > 1e-6
        direction = np.divide(offset, distance[..., None], out=default_direction.copy(), where=separate)
        positions = positions + (direction * push[..., None]).sum(axis=1) / 2
    return positions


def figure(
    links: Float[np.ndarray, "k n n2"],
    classes: Sequence[str],
    places: Float[np.ndarray, "n 2"],
    names: Sequence[str],
    *,
    written: bool = False,
    size: Float[np.ndarray, "k n"] | None = None,
) -> Chart:
    """Draw one face per class with its strongest links: warm if stronger than in an average clip, blue if weaker.

    Args:
      links: of each class, see `by_class`; both directions are averaged.
      classes: their names.
      places: positions of the nodes, in outer eye distances.
      names: of the nodes.
      written: whether names are written into the nodes.
      size: 0 to 1 for each node; a larger value draws a larger node.
    """
    columns = min(len(classes), 4)
    rows = -(-len(classes) // columns)
    canvas = Figure(figsize=(2.5 * columns, 2.95 * rows), layout="constrained")
    panels = canvas.subplots(rows, columns, squeeze=False)
    mean_links = symmetric(links)
    upper = np.triu_indices(links.shape[-1], 1)
    largest = float(np.abs(mean_links[:, *upper]).max()) or 1.0
    for axes, index in zip(panels.flat, range(len(classes)), strict=False):
        _face(axes)
        strength = mean_links[index][upper]
        for pair in np.argsort(np.abs(strength))[-LINES:]:
            i, j, value = upper[0][pair], upper[1][pair], strength[pair] / largest
            if abs(value) > 0.02:
                line = {"color": WARM if value > 0 else ACCENT, "linewidth": 0.4 + 3.2 * abs(value), "alpha": 0.75}
                axes.plot(*places[[i, j]].T, zorder=2, solid_capstyle="round", **line)
        area = 16 + (150 * size[index] / (size.max() or 1) if size is not None else 0)
        if written:
            for (x, y), name in zip(places, names, strict=True):
                box = {"boxstyle": "circle,pad=0.22", "facecolor": "white", "edgecolor": MUTED, "linewidth": 0.8}
                axes.text(x, y, name, ha="center", va="center", fontsize=6.5, color="#10202f", bbox=box, zorder=4)
        else:
            axes.scatter(*places.T, s=area, color="#4a4d52", edgecolors="white", linewidths=0.6, zorder=3)
        axes.set_title(classes[index])
    for axes in panels.flat[len(classes) :]:
        axes.set_visible(False)
    data = {"classes": classes, "nodes": names, "places": places, "links": mean_links}
    return Chart(canvas, data if size is None else data | {"saliency": size})


def scale(links: Float[np.ndarray, "k n n2"]) -> float:
    """Return the value of the thickest line of `figure`, in the units of `links`."""
    mean_links = symmetric(links)
    return float(np.abs(mean_links[:, *np.triu_indices(links.shape[-1], 1)]).max())


def _face(axes: Axes) -> None:
    face = template.mean_face()
    for points, closed in OUTLINES.values():
        axes.plot(*face[list(points) + [points[0]] * closed].T, color=INK, linewidth=0.9, alpha=0.35, zorder=1)
    axes.set_xlim(-0.95, 0.95)
    axes.set_ylim(1.38, -0.52)
    axes.set_aspect("equal")
    axes.set_axis_off()
