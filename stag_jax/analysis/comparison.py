"""Models on the same clips, folds and resamples of subjects: each one's score, and how far the first is from it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from stag_jax import files
from stag_jax.config import Config
from stag_jax.corpora.dataset import Corpus
from stag_jax.protocol import compare, metrics
from stag_jax.training import workdir
from stag_jax.types import UserError

ALL = "all"
HEADER = ("model", "clips", "seeds", "UF1, mean over seeds", "UF1, seeds averaged", "UF1 of the first less that of it")


class ComparedModel(NamedTuple):
    """What a model says of clips that it did not see."""

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
    ensemble: float | None  # of the mean of the seeds' probabilities, where there are several
    difference: compare.Difference | None  # of the first model less this one; None in its own row


def of_run(folder: Path, corpus: Corpus, config: Config, name: str = "") -> ComparedModel:
    """A finished run on the clips of `corpus`, split as `config` says.

    Raises:
      UserError: the run is not finished, was split otherwise, or is about other clips.
    """
    theirs = workdir.read_config(folder)
    for key in ("split", "folds", "seed", "test"):
        one, other = getattr(theirs.protocol, key), getattr(config.protocol, key)
        if one != other:
            raise UserError(f"{folder} was run with config.protocol.{key} {one!r}, not {other!r}")
    if workdir.finished(folder) is None:
        raise UserError(f"{folder} is not finished; run experiments/train.py on it again")
    return ComparedModel(
        name or f"{theirs.model.name}, {folder}", workdir.read_by_seed(folder, corpus, config.data.classes)
    )


def compare_all(models: Sequence[ComparedModel], corpus: Corpus, config: Config) -> list[ComparedRow]:
    """All models on all clips, then on each corpus where there are several; all are compared with the first."""
    classes, resamples = len(config.data.classes), config.protocol.bootstrap
    names = sorted(set(corpus.datasets))
    parts = {ALL: np.ones(len(corpus.ids), bool)}
    if len(names) > 1:
        parts |= {name: np.asarray(corpus.datasets) == name for name in names}
    rows = []
    for part, chosen in parts.items():
        label, subjects = corpus.batch.label[chosen], np.asarray(corpus.subjects)[chosen].tolist()
        said = [model.probability[:, chosen].argmax(axis=-1) for model in models]
        for model, each in zip(models, said, strict=True):
            bounds = metrics.subject_bootstrap(label, each, subjects, classes, resamples=resamples)
            paired = None
            if model is not models[0]:
                paired = compare.paired_bootstrap(label, said[0], each, subjects, classes, resamples=resamples)["uf1"]
            pooled = model.probability[:, chosen].mean(axis=0).argmax(axis=-1)
            rows.append(
                ComparedRow(
                    model.name,
                    part,
                    len(label),
                    len(each),
                    metrics.mean_scores(label, each, classes)["uf1"],
                    *bounds["uf1"],
                    metrics.mean_scores(label, pooled, classes)["uf1"] if len(each) > 1 else None,
                    paired,
                )
            )
    return rows


def cells(row: ComparedRow) -> tuple[str, ...]:
    """A row under `HEADER`."""
    far = row.difference
    return (
        row.model,
        f"{row.clips}" if row.corpus == ALL else f"{row.clips} of {row.corpus}",
        f"{row.seeds}",
        f"{row.uf1:.3f} [{row.low:.3f}, {row.high:.3f}]",
        "" if row.ensemble is None else f"{row.ensemble:.3f}",
        "" if far is None else f"{far.mean:+.3f} [{far.low:+.3f}, {far.high:+.3f}], p = {far.p:.4f}",
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as text."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def write(rows: Sequence[ComparedRow], path: Path) -> Path:
    """The rows as numbers, in a CSV file."""
    header = [*ComparedRow._fields[:-1], *(f"difference_{name}" for name in compare.Difference._fields)]
    blank = [""] * len(compare.Difference._fields)
    body = ([*row[:-1], *(row.difference or blank)] for row in rows)
    return files.write_table(path, header, body)
