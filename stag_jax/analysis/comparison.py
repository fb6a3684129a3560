"""Models compared on the same clips, folds and resamples of subjects: each score, and its difference from the first."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from stag_jax import files
from stag_jax.config import Config
from stag_jax.corpora.dataset import Corpus
from stag_jax.protocol import compare, metrics
from stag_jax.protocol.metrics import EvaluationSet
from stag_jax.training import workdir
from stag_jax.types import UserError

ALL = "all"
HEADER = ("model", "clips", "seeds", "UF1, mean over seeds", "UF1, seeds averaged", "UF1 of the first less that of it")


class ComparedModel(NamedTuple):
    """The predictions of a model for clips that it did not see."""

    name: str
    probability: Float[np.ndarray, "seed b k"]


class ComparedRow(NamedTuple):
    """One model on all clips, or on those of one corpus; all scores are UF1."""

    model: str
    corpus: str
    clips: int
    seeds: int
    uf1: float  # mean over seeds
    low: float  # 95% interval
    high: float
    ensemble: float | None  # of the mean of the seeds' probabilities; None with one seed
    difference: compare.Difference | None  # of the first model less this one; None in its own row


def of_run(folder: Path, corpus: Corpus, config: Config, name: str = "") -> ComparedModel:
    """Return the predictions of a finished run for the clips of `corpus`, split as `config` says.

    Raises:
      UserError: the run is not finished, was split otherwise, or is about other clips.
    """
    run_config = workdir.read_config(folder)
    for key in ("split", "folds", "seed", "test"):
        actual, expected = getattr(run_config.protocol, key), getattr(config.protocol, key)
        if actual != expected:
            raise UserError(f"{folder} was run with config.protocol.{key} {actual!r}, not {expected!r}")
    if workdir.finished(folder) is None:
        raise UserError(f"{folder} is not finished; run experiments/train.py on it again")
    return ComparedModel(
        name or f"{run_config.model.name}, {folder}", workdir.read_by_seed(folder, corpus, config.data.classes)
    )


def compare_all(models: Sequence[ComparedModel], corpus: Corpus, config: Config) -> list[ComparedRow]:
    """Score all models on all clips, then on each corpus if there are several; compare all with the first."""
    all_clips = EvaluationSet(corpus.batch.label, corpus.subjects, len(config.data.classes), config.protocol.bootstrap)
    names = sorted(set(corpus.datasets))
    subsets = {ALL: np.ones(len(corpus.ids), bool)}
    if len(names) > 1:
        subsets |= {name: np.asarray(corpus.datasets) == name for name in names}
    rows = []
    for subset, mask in subsets.items():
        clips = all_clips.take(mask)
        predictions = [model.probability[:, mask].argmax(axis=-1) for model in models]
        for model, predicted in zip(models, predictions, strict=True):
            bounds = metrics.subject_bootstrap(clips, predicted)
            difference = None
            if model is not models[0]:
                difference = compare.paired_bootstrap(clips, predictions[0], predicted)["uf1"]
            pooled = model.probability[:, mask].mean(axis=0).argmax(axis=-1)
            rows.append(
                ComparedRow(
                    model.name,
                    subset,
                    len(clips.label),
                    len(predicted),
                    metrics.mean_scores(clips.label, predicted, clips.classes)["uf1"],
                    *bounds["uf1"],
                    metrics.mean_scores(clips.label, pooled, clips.classes)["uf1"] if len(predicted) > 1 else None,
                    difference,
                )
            )
    return rows


def cells(row: ComparedRow) -> tuple[str, ...]:
    """Format a row under `HEADER`."""
    difference = row.difference
    return (
        row.model,
        f"{row.clips}" if row.corpus == ALL else f"{row.clips} of {row.corpus}",
        f"{row.seeds}",
        f"{row.uf1:.3f} [{row.low:.3f}, {row.high:.3f}]",
        "" if row.ensemble is None else f"{row.ensemble:.3f}",
        ""
        if difference is None
        else f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}], p = {difference.p:.4f}",
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table as Markdown text."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def write(rows: Sequence[ComparedRow], path: Path) -> Path:
    """Write the rows as numbers to a CSV file; return its path."""
    header = [*ComparedRow._fields[:-1], *(f"difference_{name}" for name in compare.Difference._fields)]
    blank = [""] * len(compare.Difference._fields)
    body = ([*row[:-1], *(row.difference or blank)] for row in rows)
    return files.write_table(path, header, body)
