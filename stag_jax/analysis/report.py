"""Tables and figures of a finished run, from its checkpoints: nothing is retrained."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from stag_jax.analysis import explain
from stag_jax.protocol import metrics
from stag_jax.protocol.splits import make_splits
from stag_jax.training import dataset, restore, workdir
from stag_jax.training.files import write_atomically
from stag_jax.types import UserError

REPORT = "report"
AGREEMENT = 1e-4  # how far a probability from a checkpoint may lie from the run's own


class Evidence(NamedTuple):
    """What the checkpoints say of the clips that they did not see."""

    corpus: dataset.Corpus
    classes: tuple[str, ...]
    probability: Float[np.ndarray, "b k"]
    explanation: list[explain.ClassExplanation]


def collect(folder: Path, corpora: Path | Sequence[Path]) -> Evidence:
    """Applies each fold's checkpoint to the clips that it held out.

    Raises:
      UserError: no finished run, other data than the run's, a missing fold, or predictions.csv that the checkpoints
        do not bear out (the first clip that differs is named).
    """
    run = restore.open_run(folder)
    config = run.config
    if workdir.finished(folder) is None:
        raise UserError(f"{folder} is not finished; run experiments/train.py on it again")
    corpus = dataset.load(corpora, config)
    workdir.check_data(folder, corpus)
    splits = make_splits(config.protocol, corpus.clips)
    probability = np.full((len(corpus.ids), len(config.data.classes)), np.nan, np.float32)
    parts: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    longest = int(splits.test_mask.sum(axis=1).max())
    for name, test in zip(splits.names, splits.test_mask, strict=True):
        rows = np.flatnonzero(test)
        # Repeated to one length, so that one compiled program serves all folds.
        held_out = jax.tree.map(lambda x, rows=rows: x[np.resize(rows, longest)], corpus.batch)
        said, aux = restore.apply(run, restore.load_fold(run, name), held_out)
        probability[rows] = said[: len(rows)]
        parts.append((rows, {key: value[: len(rows)] for key, value in aux.items()}))
    tested = splits.test_mask.any(axis=0)
    corpus, probability = corpus.take(tested), probability[tested]
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    names = ("au_probability", "connectivity", "temporal_attention")
    aux = {key: np.concatenate([part[key] for _, part in parts])[order] for key in names if key in parts[0][1]}
    explanation = explain.by_class(aux, corpus.batch.label, corpus.batch.frame_mask, len(config.data.classes))
    _compare(folder, corpus, config.data.classes, probability)
    return Evidence(corpus, config.data.classes, probability, explanation)


def write(folder: Path, evidence: Evidence) -> list[Path]:
    """Writes confusion.csv and .png, per_class.csv and au_by_class.csv into `<folder>/report`; returns their paths."""
    matplotlib.use("agg")
    report = folder / REPORT
    corpus, classes = evidence.corpus, evidence.classes
    label, prediction = corpus.batch.label, evidence.probability.argmax(axis=1)
    confusion = metrics.confusion_matrix(label, prediction, len(classes))
    written = [
        workdir.write_table(report / "confusion.csv", ["true", *classes], zip(classes, *confusion.T, strict=True)),
        workdir.write_table(report / "per_class.csv", list(PER_CLASS), per_class(confusion, classes)),
        _figure(report / "confusion.png", confusion_figure(confusion, classes)),
    ]
    if evidence.explanation[0].au_probability is not None:
        rows = (
            [f"AU{unit}", *(_digits(e.au_probability[index]) for e in evidence.explanation)]
            for index, unit in enumerate(corpus.graph.units)
        )
        written.append(workdir.write_table(report / "au_by_class.csv", ["unit", *classes], rows))
    return written


PER_CLASS = ("class", "clips", "predicted", "precision", "recall", "f1")


def per_class(confusion: Int[np.ndarray, "k k2"], classes: Sequence[str]) -> list[list[str]]:
    """Rows of PER_CLASS."""
    rows = []
    for index, name in enumerate(classes):
        hit, true, predicted = confusion[index, index], confusion[index].sum(), confusion[:, index].sum()
        ratios = (hit / max(predicted, 1), hit / max(true, 1), 2 * hit / max(true + predicted, 1))
        rows.append([name, str(true), str(predicted), *map(_digits, ratios)])
    return rows


def confusion_figure(confusion: Int[np.ndarray, "k k2"], classes: Sequence[str]) -> Figure:
    """The confusion matrix: counts, and the share of each true class as colour."""
    rate = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.6 + 1.0 * len(classes), 1.2 + 0.9 * len(classes)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(rate, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true")
    for (row, column), count in np.ndenumerate(confusion):
        colour = "white" if rate[row, column] > 0.5 else "black"
        text = f"{count}\n{rate[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=colour)
    return figure


def _compare(folder: Path, corpus: dataset.Corpus, classes: Sequence[str], probability: np.ndarray) -> None:
    with (folder / workdir.PREDICTIONS).open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for index, name in enumerate(corpus.ids):
        if name not in rows:
            raise UserError(f"{folder / workdir.PREDICTIONS} has no row for clip {name}")
        said = np.array([float(rows[name][f"p_{each}"]) for each in classes])
        if np.abs(said - probability[index]).max() > AGREEMENT:
            raise UserError(f"{folder / workdir.PREDICTIONS}: clip {name} is not what the checkpoints predict")


def _digits(value: float) -> str:
    return f"{value:.4f}"


def _figure(path: Path, figure: Figure) -> Path:
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return path
