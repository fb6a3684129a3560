"""A workdir loaded for analysis: its settings, its tables as data frames, its networks."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from stag_jax.config import Config
from stag_jax.corpora import dataset, records
from stag_jax.protocol import splits as splits_lib
from stag_jax.protocol.metrics import EvaluationSet
from stag_jax.training import checkpoint, history, naming, workdir
from stag_jax.training.trained import TrainedFolds
from stag_jax.types import ClipBatch, UserError

# Columns that are read as text, even if they hold only digits.
TEXTS = ("id", "dataset", "subject", "group", "part", "label", "prediction", "tested_in", "left_out_of")


class LoadedModel(NamedTuple):
    """The networks of one fold, one per seed, which never saw the clips that the fold tests."""

    fold: str
    params: Any  # every leaf has a leading axis of seeds
    statistics: Any  # mean, scale and class weights of the training clips; same leading axis
    # Raw clips -> probabilities [b, k] and named intermediates, both averaged over seeds.
    apply: Callable[[ClipBatch], tuple[Float[np.ndarray, "b k"], dict[str, np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A run, finished or not. Callers may change its data frames: every call of `load_run` returns new ones.

    Columns of `predictions`, one row per tested clip: id, dataset, subject, fold, label, prediction and p_<class>,
    averaged over seeds; `by_seed` has one row per seed and clip, and a column seed.
    """

    folder: Path
    config: Config
    about: dict[str, Any]  # run.json
    metrics: dict[str, Any]  # metrics.json; empty if the run is not finished
    splits: pd.DataFrame  # splits.csv
    predictions: pd.DataFrame
    by_seed: pd.DataFrame
    history: history.History | None
    partial: str  # how far an unfinished run has come; empty if it is finished
    missing: tuple[str, ...]  # folds whose networks should be there but are not
    changed: tuple[str, ...]  # tables whose hashes are not those in metrics.json

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in label order."""
        return self.config.data.classes

    @functools.cached_property
    def trained(self) -> TrainedFolds:
        """Return the trained networks, read when first needed and compiled once for all folds."""
        return TrainedFolds(self.folder)

    @property
    def folds(self) -> list[str]:
        """Return the names of the folds whose networks are there."""
        return self.trained.names

    def fold_of(self, subject: str) -> str:
        """Return the fold that tests a subject's clips.

        Raises:
          UserError: there is no such subject, or several folds test clips of this one.
        """
        rows = self.predictions[self.predictions["subject"] == subject]
        folds = sorted(set(rows["fold"]))
        if not folds:
            subjects = ", ".join(sorted(set(self.predictions["subject"])))
            raise UserError(f"{self.folder} tests no subject {subject!r}; there are: {subjects}")
        if len(folds) > 1:
            raise UserError(f"{self.folder}: clips of {subject} are tested in several folds: {', '.join(folds)}")
        return folds[0]

    def model(self, subject: str) -> LoadedModel:
        """Return the networks that never saw a subject; the name of a fold is accepted too.

        Raises:
          UserError: there is no such subject or fold, or its networks are not there.
        """
        name = subject if subject in set(self.predictions["fold"]) else self.fold_of(subject)
        trained = self.trained

        def apply(clips: ClipBatch) -> tuple[Float[np.ndarray, "b k"], dict[str, np.ndarray]]:
            return trained.ask(name, clips, question=trained.intermediates, size=len(clips.label))

        return LoadedModel(name, *trained.weights(name), apply)

    def corpus(self, corpora: Path | Sequence[Path]) -> dataset.Corpus:
        """Return the tested clips, as in `predictions`, from the folders of the prepared corpora.

        Raises:
          UserError: the data is not the run's.
        """
        corpus = dataset.load(corpora, self.config)
        workdir.check_data(self.folder, corpus)
        return corpus.take(np.isin(corpus.ids, self.predictions["id"]))


def load_run(folder: Path | str) -> LoadedRun:
    """Load the workdir of a run.

    For an unfinished run, the predictions are those after its last dispatch, and `partial` says so. Missing folds and
    changed tables are listed in the fields `missing` and `changed`.

    Raises:
      UserError: there is no run, or its files are incomplete, or it tests no clip; a newer version wrote it; a table is
        damaged.
    """
    folder = Path(folder)
    config = workdir.read_config(folder)
    if config.protocol.split == splits_lib.ALL:
        raise UserError(f"{folder} tested no clip (config.protocol.split='all'): there is nothing to report")
    splits = _table(folder / workdir.SPLITS)
    recorded = history.read(folder)
    done = workdir.finished(folder) or {}
    tested = splits[splits["tested_in"] != ""].rename(columns={"tested_in": "fold"})
    tested["fold"] = tested["fold"].map(lambda cell: naming.split(cell)[0])
    if done:
        partial, by_seed = "", _table(folder / workdir.BY_SEED)
        predictions = _table(folder / workdir.PREDICTIONS)
    elif recorded is None:
        raise UserError(f"{folder} has no predictions yet: the run is not finished, and no dispatch of it was recorded")
    else:
        partial = f"step {recorded.steps[-1]} of {config.train.steps}"
        by_seed = _frame(tested, config, recorded.probability[-1])
        predictions = _frame(tested, config, recorded.probability[-1].mean(axis=0, keepdims=True)).drop(columns="seed")
    fold_of_clip = tested[["id", "fold"]]
    _check_columns(folder, predictions, by_seed, config.data.classes)
    predictions, by_seed = (
        frame.drop(columns="fold", errors="ignore").merge(fold_of_clip, on="id", how="left").fillna({"fold": ""})
        for frame in (predictions, by_seed)
    )
    exported = checkpoint.fold_names(folder)
    missing = [name for name in dict.fromkeys(sorted(tested["fold"])) if name not in exported] if done else []
    return LoadedRun(
        folder=folder,
        config=config,
        about=workdir.read_about(folder),
        metrics=done,
        splits=splits,
        predictions=predictions,
        by_seed=by_seed,
        history=recorded,
        partial=partial,
        missing=tuple(missing),
        changed=tuple(_changed(folder, done)),
    )


def require_clips(folder: Path, corpora: Sequence[Path]) -> None:
    """Raise UserError for a run on windows of recordings: report and viewer show clips as the corpus has them."""
    if any(records.holds_recordings(corpus) for corpus in corpora):
        raise UserError(f"{folder} is a run on windows of recordings: see benchmark.py spotting")


def labels(frame: pd.DataFrame, classes: Sequence[str], column: str = "label") -> np.ndarray:
    """Return a column as indices into the classes: int [b]."""
    return frame[column].map({name: index for index, name in enumerate(classes)}).to_numpy(int)


def evaluation_set(run: LoadedRun, frame: pd.DataFrame) -> EvaluationSet:
    """Return the clips of a table of predictions as what scores and intervals are computed on."""
    return EvaluationSet(
        labels(frame, run.classes), frame["subject"].tolist(), len(run.classes), run.config.protocol.bootstrap
    )


def probabilities(frame: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Return the columns p_<class>: float [b, k]."""
    return frame[[f"p_{name}" for name in classes]].to_numpy(float)


def seeds_apart(run: LoadedRun) -> np.ndarray:
    """Return the predicted classes of each seed, clips as in `run.predictions`: int [seed, b]."""
    frames = [frame.set_index("id").loc[run.predictions["id"]] for _, frame in run.by_seed.groupby("seed", sort=False)]
    return np.stack([labels(frame, run.classes, "prediction") for frame in frames])


def _frame(tested: pd.DataFrame, config: Config, probability: Float[np.ndarray, "seed b k"]) -> pd.DataFrame:
    """Arrange recorded probabilities in the columns of predictions_by_seed.csv."""
    classes = config.data.classes
    frames = []
    for seed, of_seed in zip(config.seeds, probability, strict=False):
        frame = tested[["id", "dataset", "subject", "label"]].reset_index(drop=True)
        frame = frame.assign(seed=seed, prediction=np.asarray(classes)[of_seed.argmax(axis=1)])
        frames.append(pd.concat([frame, pd.DataFrame(of_seed, columns=[f"p_{name}" for name in classes])], axis=1))
    return pd.concat(frames, ignore_index=True)


def _table(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(TEXTS, str))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: the run was made by an earlier version, or its files were moved"
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return frame


def _check_columns(folder: Path, predictions: pd.DataFrame, by_seed: pd.DataFrame, classes: Sequence[str]) -> None:
    for name, frame in ((workdir.PREDICTIONS, predictions), (workdir.BY_SEED, by_seed)):
        path = folder / name
        for column in ("id", "subject", "dataset", "label", "prediction", *(f"p_{k}" for k in classes)):
            if column not in frame:
                raise UserError(f"{path} has no column {column}")
        for column in ("label", "prediction"):
            invalid = frame[~frame[column].isin(classes)]
            if len(invalid):
                raise UserError(
                    f"{path}: clip {invalid['id'].iloc[0]} has {column} {invalid[column].iloc[0]!r}, which is no class"
                )
        numbers = frame[[f"p_{k}" for k in classes]].apply(pd.to_numeric, errors="coerce")
        not_numeric = frame[numbers.isna().any(axis=1)]
        if len(not_numeric):
            raise UserError(f"{path}: clip {not_numeric['id'].iloc[0]} has a probability that is no number")


def _changed(folder: Path, done: dict[str, Any]) -> list[str]:
    return [name for name, digest in done.get("sha256", {}).items() if _digest(folder / name) != digest]


def _digest(path: Path) -> str:
    return workdir.digest(path) if path.exists() else ""
