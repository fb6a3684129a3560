"""The figures of a report that show no face, each with the arrays that are drawn in it (docs/report.md)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stag_jax.analysis import faithfulness
from stag_jax.analysis.drawing import ACCENT, INK, MUTED, SERIES, WARM, Chart
from stag_jax.protocol.calibration import Bin
from stag_jax.training.history import History

OUTLIERS = 3  # most folds that are named in a learning curve
QUANTILES = (0.1, 0.5, 0.9)  # over folds
LABELLED = 45  # names that fit side by side beneath a figure


def confusion_figure(confusion: Int[np.ndarray, "k k2"], classes: Sequence[str]) -> Chart:
    """Draw the confusion matrix: counts and rates, the rate as colour."""
    rate = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.8 + 0.95 * len(classes), 1.2 + 0.75 * len(classes)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(rate, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(classes)), classes, rotation=30 if len(classes) > 3 else 0)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true")
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    for (row, column), count in np.ndenumerate(confusion):
        # The text lies on the cell's blue, not on the page's background.
        colour = "white" if rate[row, column] > 0.5 else "#10202f"
        axes.text(column, row, f"{count}\n{rate[row, column]:.0%}", ha="center", va="center", color=colour)
    return Chart(figure, {"classes": classes, "clips": confusion, "rate": rate})


def calibration_figure(bins: Sequence[Bin], error: float) -> Chart:
    """Draw accuracy against confidence, larger dots for more clips, and the number of clips at each confidence."""
    figure = Figure(figsize=(4.2, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="as sure as right")
    points = ([b.confidence for b in bins], [b.accuracy for b in bins])
    most_clips = max(b.clips for b in bins)
    above.plot(*points, color=ACCENT, linewidth=1)
    above.scatter(*points, [8 + 72 * b.clips / most_clips for b in bins], color=ACCENT, zorder=3)
    above.set(ylabel="accuracy", ylim=(-0.02, 1.02), xlim=(0, 1), title=f"expected calibration error {error:.3f}")
    above.grid(True)
    above.legend(loc="lower right")
    width = [b.high - b.low for b in bins]
    below.bar([b.low for b in bins], [b.clips for b in bins], width, align="edge", color=ACCENT, alpha=0.55)
    below.set(xlabel="probability of the class predicted", ylabel="clips")
    data = {name: [getattr(b, name) for b in bins] for name in ("low", "high", "confidence", "accuracy", "clips")}
    return Chart(figure, data | {"calibration_error": error})


def learning_figure(
    past: History, label: Int[np.ndarray, " b"], fold: Int[np.ndarray, " b"], names: Sequence[str]
) -> Chart:
    """Draw training loss and held-out log loss over all folds: median, 10th to 90th percentile, outliers.

    Args:
      past: the recorded history.
      label: class of each tested clip.
      fold: index in `names` of the fold that tests each clip.
      names: of the folds.
    """
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    training, held_out = past.metrics["loss"].mean(axis=1), held_out_loss(past, label, fold, len(names))
    _band(left, past.steps, training, names, "training loss")
    _band(right, past.steps, held_out, names, "log loss of held-out clips")
    data = {"steps": past.steps, "folds": names, "training_loss": training, "held_out_loss": held_out}
    return Chart(figure, data | {"quantiles": QUANTILES})


def held_out_loss(
    past: History, label: Int[np.ndarray, " b"], fold: Int[np.ndarray, " b"], folds: int
) -> Float[np.ndarray, "i s"]:
    """Return the mean log loss of each fold's own test clips after each dispatch, seeds averaged."""
    probability = np.take_along_axis(past.probability, label[None, None, :, None], axis=-1)[..., 0]
    loss = -np.log(np.maximum(probability, np.finfo(np.float32).tiny)).mean(axis=1)
    count = np.bincount(fold, minlength=folds)
    return np.stack([np.bincount(fold, clip_loss, minlength=folds) / np.maximum(count, 1) for clip_loss in loss])


def _band(
    axes: Axes, steps: Int[np.ndarray, " i"], values: Float[np.ndarray, "i s"], names: Sequence[str], title: str
) -> None:
    low, middle, high = np.quantile(values, QUANTILES, axis=1)
    axes.fill_between(steps, low, high, color=ACCENT, alpha=0.2, linewidth=0, label="10th to 90th percentile of folds")
    axes.plot(steps, middle, color=ACCENT, label="median")
    for colour, index in zip(SERIES[1:], outliers(values), strict=False):
        axes.plot(steps, values[:, index], color=colour, linewidth=0.9, label=names[index])
    axes.set(xlabel="step", title=title, ylim=(0, 1.35 * values.max()))
    axes.grid(True)
    axes.legend(loc="upper right")


def outliers(values: Float[np.ndarray, "i s"]) -> list[int]:
    """Return folds that end more than 1.5 interquartile ranges above the third quartile, worst first."""
    last = values[-1]
    first, third = np.quantile(last, (0.25, 0.75))
    above = np.flatnonzero(last > third + 1.5 * (third - first))
    return above[np.argsort(-last[above], kind="stable")][:OUTLIERS].tolist()


def subject_figure(frame: pd.DataFrame) -> Chart:
    """Draw the accuracy of each subject, lowest first; the width of a bar is the number of clips."""
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = figure.subplots()
    edge = np.concatenate([[0], np.cumsum(frame["clips"])])
    axes.bar(
        edge[:-1],
        frame["accuracy"],
        np.diff(edge),
        align="edge",
        color=ACCENT,
        alpha=0.7,
        edgecolor="white",
        linewidth=0.4,
    )
    mean = frame["right"].sum() / frame["clips"].sum()
    axes.axhline(mean, color=WARM, linewidth=1, label=f"all clips: {mean:.3f}")
    axes.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, edge[-1]))
    centre, labelled = (edge[:-1] + edge[1:]) / 2, []
    for index in range(len(frame)):  # every name that has room after the one before it
        if not labelled or centre[index] - centre[labelled[-1]] >= edge[-1] / LABELLED:
            labelled.append(index)
    short = frame["subject"].str.removeprefix(_common(list(frame["subject"])))
    axes.set_xticks(centre[labelled], short.iloc[labelled], rotation=90)
    axes.set_xlabel("subjects, as wide as they have clips")
    axes.legend(loc="upper left")
    data = {name: frame[name].to_numpy() for name in ("clips", "right", "accuracy")}
    return Chart(figure, {"subjects": frame["subject"], **data, "mean_accuracy": mean})


def _common(names: Sequence[str]) -> str:
    """Return the prefix, up to an underscore, that all names share."""
    first = names[0].rpartition("_")[0] + "_"
    return first if len(names) > 1 and len(first) > 1 and all(name.startswith(first) for name in names) else ""


def area_figure(curves: Mapping[str, Float[np.ndarray, "mode share b"]], ids: Sequence[str]) -> Chart:
    """Draw deletion and insertion: probability of the predicted class against the share deleted or inserted.

    Args:
      curves: by method, as in `faithfulness.curves`; means over clips are drawn.
      ids: of the clips.
    """
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for mode, (axes, title) in enumerate(
        zip(panels, ("deletion: lower is better", "insertion: higher is better"), strict=True)
    ):
        for colour, (name, values) in zip(SERIES, curves.items(), strict=False):
            is_random = name == faithfulness.RANDOM
            line = {"color": MUTED, "linestyle": (0, (4, 3))} if is_random else {"color": colour}
            axes.plot(faithfulness.SHARES, values[mode].mean(axis=1), marker="o", markersize=3, label=name, **line)
        axes.set(
            xlabel=f"share of regions and frames {('deleted', 'inserted')[mode]}", title=title, xlim=(0, 1), ylim=(0, 1)
        )
        axes.grid(True)
    panels[0].set_ylabel("probability of the class predicted")
    panels[1].legend(loc="lower right")
    by_clip = np.stack(list(curves.values()))
    data = {"methods": list(curves), "modes": (faithfulness.DELETION, faithfulness.INSERTION), "ids": ids}
    data |= {"shares": faithfulness.SHARES, "probability": by_clip.mean(axis=-1), "probability_by_clip": by_clip}
    return Chart(figure, data)


def unit_figure(au: Float[np.ndarray, "k u"], units: Sequence[int], classes: Sequence[str]) -> Chart:
    """Draw the probability of each action unit: largest over a clip's frames, mean over the clips of each class."""
    figure = Figure(figsize=(1.6 + 0.5 * len(units), 1.0 + 0.38 * len(classes)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(au, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(units)), [f"{unit}" for unit in units])
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("action unit")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    for (row, column), value in np.ndenumerate(au):
        axes.text(
            column,
            row,
            f"{value:.2f}".lstrip("0"),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if value > 0.5 else "#10202f",
        )
    return Chart(figure, {"classes": classes, "units": units, "probability": au})


def time_figure(
    times_ms: Float[np.ndarray, "b t"],
    weight: Float[np.ndarray, "b t"],
    seen: Bool[np.ndarray, "b t"],
    label: Int[np.ndarray, " b"],
    classes: Sequence[str],
    marks: Mapping[str, Float[np.ndarray, " b"]],
) -> Chart:
    """Draw attention over time in milliseconds, by class, as a density, so that any choice of frames can be shown.

    Args:
      times_ms: times of the kept frames.
      weight: attention of each kept frame; the weights of a clip sum to 1.
      seen: False for padded frames.
      label: the class of each clip.
      marks: onset, apex and offset of each clip, NaN where the corpus has none; their medians are drawn.
    """
    last = float(np.quantile(times_ms[seen], 0.98)) or 1.0
    edges = np.linspace(0, last, 25)
    figure = Figure(figsize=(7.2, 1.0 + 1.15 * len(classes)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(classes), 1, sharex=True, sharey=True))
    attention, uniform = np.zeros((2, len(classes), len(edges) - 1))
    medians = {mark: np.full(len(classes), np.nan) for mark in marks}
    for index, (axes, name) in enumerate(zip(panels, classes, strict=True)):
        mask = (label == index)[:, None] & seen
        attended, _ = np.histogram(times_ms[mask], edges, weights=weight[mask])
        kept, _ = np.histogram(
            times_ms[mask], edges, weights=(seen / np.maximum(seen.sum(axis=1, keepdims=True), 1))[mask]
        )
        clips = max(int((label == index).sum()), 1)
        attention[index], uniform[index] = attended / clips, kept / clips
        axes.stairs(uniform[index], edges, color=MUTED, linestyle=(0, (3, 2)), label="were all kept frames alike")
        axes.stairs(attention[index], edges, color=ACCENT, fill=True, alpha=0.5, label="attention")
        for (mark, mark_ms), style in zip(marks.items(), ((0, (1, 1)), "-", (0, (4, 2))), strict=False):
            annotated_ms = mark_ms[(label == index) & ~np.isnan(mark_ms)]
            if len(annotated_ms):
                medians[mark][index] = np.median(annotated_ms)
                axes.axvline(medians[mark][index], color=WARM, linewidth=1.2, linestyle=style, label=f"{mark}, median")
        axes.set_ylabel(name)
        axes.grid(True, axis="x")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    panels[-1].set(xlabel="milliseconds after the first frame", xlim=(0, last))
    data = {"classes": classes, "edges_ms": edges, "attention": attention, "attention_if_alike": uniform}
    return Chart(figure, data | {f"{mark}_ms": values for mark, values in medians.items()})


def embedding_figure(
    points: Float[np.ndarray, "b 2"],
    label: Int[np.ndarray, " b"],
    classes: Sequence[str],
    subjects: Sequence[str],
    ids: Sequence[str],
) -> Chart:
    """Draw the same points twice: coloured by emotion, and by subject."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    by_emotion, by_subject = figure.subplots(1, 2, sharex=True, sharey=True)
    for colour, (index, name) in zip(SERIES, enumerate(classes), strict=False):
        rows = label == index
        by_emotion.scatter(*points[rows].T, s=11, color=colour, alpha=0.75, linewidths=0, label=name)
    by_emotion.legend(loc="best", markerscale=1.6)
    names, subject_index = np.unique(np.asarray(subjects), return_inverse=True)
    by_subject.scatter(*points.T, s=11, c=subject_index, cmap="turbo", alpha=0.75, linewidths=0)
    by_emotion.set_title("emotion")
    by_subject.set_title(f"subject ({len(names)} of them)")
    for axes in (by_emotion, by_subject):
        axes.set_xticks([])
        axes.set_yticks([])
    emotions = [classes[index] for index in label]
    return Chart(figure, {"ids": ids, "points": points, "emotions": emotions, "subjects": subjects})


def difference_figure(
    names: Sequence[str], mean: Sequence[float], low: Sequence[float], high: Sequence[float]
) -> Chart:
    """Draw differences with their intervals, one per row."""
    figure = Figure(figsize=(6.2, 0.8 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(names))[::-1]
    error = np.abs(np.stack([np.subtract(mean, low), np.subtract(high, mean)]))
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.errorbar(mean, y, xerr=error, fmt="o", color=ACCENT, capsize=3, markersize=4.5)
    axes.set_yticks(y, names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("first less second, 95% interval over subjects")
    axes.grid(True, axis="x")
    return Chart(figure, {"scores": names, "difference": mean, "low": low, "high": high})
