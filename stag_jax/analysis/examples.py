"""Figures of single clips: saliency over the aligned face, and action units over time."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stag_jax.analysis.drawing import MUTED, SERIES, WARM, Chart

SHOWN = 6  # most frames in a strip
REACH = 0.055  # standard deviation of a blob, as a share of the picture's longer side
UNITS = 4  # leading action units that are drawn with a name; the others are grey


def heat(
    weights: Float[np.ndarray, "t n"], centres: Float[np.ndarray, "n 2"], height: int, width: int
) -> Float[np.ndarray, "t y x"]:
    """Return a Gaussian blob at each region, as high as its weight; the largest value of the clip is 1."""
    rows, columns = np.mgrid[:height, :width]
    squared_distance = (columns - centres[:, 0, None, None]) ** 2 + (rows - centres[:, 1, None, None]) ** 2
    blobs = np.exp(-squared_distance / (2 * (REACH * max(height, width)) ** 2))
    field = np.einsum("tn,nyx->tyx", weights, blobs)
    return field / (field.max() or 1.0)


def strip(
    pictures: UInt8[np.ndarray, "t y x *c"],
    centres: Float[np.ndarray, "n 2"],
    saliency: Mapping[str, Float[np.ndarray, "t n"]],
    times_ms: Float[np.ndarray, " t"],
    shown: Bool[np.ndarray, " t"],
    *,
    id: str,
    nodes: Sequence[str],
) -> Chart:
    """Draw kept frames of a clip in a row for each method, with its saliency drawn over them.

    Args:
      pictures: the kept frames; a flow image, in colour, is drawn with rings beside the plain picture instead.
      centres: of the regions, pixels.
      saliency: positive, by method.
      times_ms: of the kept frames.
      shown: False where the clip has no frame.
      id: of the clip.
      nodes: names of the regions.
    """
    data = {"id": id, "methods": list(saliency), "nodes": nodes, "centres": centres}
    if pictures.ndim == 4:
        weights = {method: shares[0] for method, shares in saliency.items()}
        data |= {"picture": pictures[0], "saliency": np.stack(list(weights.values()))}
        return Chart(_rings(pictures[0], centres, weights), data)
    frames = np.flatnonzero(shown)
    frames = frames[np.unique(np.round(np.linspace(0, len(frames) - 1, min(SHOWN, len(frames)))).astype(int))]
    height, width = pictures.shape[1:3]
    figure = Figure(figsize=(max(1.2 * len(frames) + 0.3, 2.4), 1.25 * len(saliency) + 0.35), layout="constrained")
    panels = figure.subplots(len(saliency), len(frames), squeeze=False)
    heats = [heat(weights, centres, height, width) for weights in saliency.values()]
    for row, name, fields in zip(panels, saliency, heats, strict=True):
        for axes, frame in zip(row, frames, strict=True):
            axes.imshow(pictures[frame], cmap="gray", vmin=0, vmax=255)
            axes.imshow(fields[frame], cmap="inferno", vmin=0, vmax=1, alpha=0.75 * fields[frame])
            _bare(axes)
        row[0].set_ylabel(name.replace(" ", "\n", 1), fontsize=7)
    for axes, frame in zip(panels[0], frames, strict=True):
        axes.set_title(f"{times_ms[frame]:.0f} ms", fontsize=7.5)
    data |= {"saliency": np.stack(list(saliency.values())), "times_ms": times_ms, "frame_mask": shown}
    data |= {"drawn": frames, "pictures": pictures[frames], "heat": np.float32([fields[frames] for fields in heats])}
    return Chart(figure, data)


def _rings(
    picture: UInt8[np.ndarray, "y x 3"],
    centres: Float[np.ndarray, "n 2"],
    saliency: Mapping[str, Float[np.ndarray, " n"]],
) -> Figure:
    """Draw the flow in colour, and for each method a copy with a ring at each region, sized by saliency."""
    figure = Figure(figsize=(2.3 * (len(saliency) + 1), 2.5), layout="constrained")
    first, *others = figure.subplots(1, len(saliency) + 1)
    for axes, title in zip((first, *others), ("motion, onset to apex", *saliency), strict=True):
        axes.imshow(picture, interpolation="bicubic")
        axes.set_title(title, fontsize=8)
        _bare(axes)
    for axes, weights in zip(others, saliency.values(), strict=True):
        size = 320 * weights / (weights.max() or 1.0)
        axes.scatter(*centres.T, s=size, facecolors=(0, 0, 0, 0.18), edgecolors="black", linewidths=1.1)
    return figure


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def units_over_time(
    times_ms: Float[np.ndarray, " t"],
    probability: Float[np.ndarray, "t u"],
    units: Sequence[int],
    annotated: Sequence[int],
    marks: Mapping[str, float],
    *,
    id: str,
) -> Chart:
    """Draw the probability of each unit in the kept frames; leading and annotated units have names.

    Args:
      times_ms: of the frames.
      probability: of each unit in them.
      units: their numbers.
      annotated: units that the annotators saw; drawn as full lines.
      marks: onset, apex and offset in milliseconds, if they are known.
      id: of the clip.
    """
    figure = Figure(figsize=(7.2, 2.1), layout="constrained")
    axes = figure.subplots()
    leading = set(np.argsort(-probability.max(axis=0))[:UNITS].tolist()) | {
        units.index(unit) for unit in annotated if unit in units
    }
    colours = iter(SERIES * 3)
    for index in range(len(units)):
        if index not in leading:
            axes.plot(times_ms, probability[:, index], color=MUTED, linewidth=0.6, alpha=0.5)
    for index in sorted(leading):
        is_annotated = units[index] in annotated
        style = {"linewidth": 1.8} if is_annotated else {"linewidth": 1.2, "linestyle": (0, (4, 2))}
        text = f"AU {units[index]}{', annotated' if is_annotated else ''}"
        axes.plot(times_ms, probability[:, index], color=next(colours), marker="o", markersize=2.5, label=text, **style)
    for (name, mark_ms), style in zip(marks.items(), ((0, (1, 1)), "-", (0, (4, 2))), strict=False):
        axes.axvline(mark_ms, color=WARM, linewidth=1, linestyle=style, label=name)
    axes.set(xlabel="milliseconds after the first frame", ylabel="probability", ylim=(-0.02, 1.02))
    axes.grid(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    data = {"id": id, "times_ms": times_ms, "units": units, "probability": probability}
    data |= {"annotated": np.isin(units, annotated)} | {f"{name}_ms": mark_ms for name, mark_ms in marks.items()}
    return Chart(figure, data)
