"""What a run leaves in its workdir besides checkpoints: config.json, run.json, tables of predictions, metrics.json."""

import contextlib
import csv
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import Float

from stag_jax import config as config_lib
from stag_jax.config import Config
from stag_jax.corpora import features
from stag_jax.corpora.dataset import Corpus
from stag_jax.files import write_table, write_text
from stag_jax.protocol.splits import Splits
from stag_jax.training import checkpoint, history, hosts, naming
from stag_jax.types import Diverged, UserError

CONFIG, RUN, METRICS, LOG = "config.json", "run.json", "metrics.json", "log.jsonl"
SPLITS = "splits.csv"
PREDICTIONS, BY_SEED, AU_PREDICTIONS = "predictions.csv", "predictions_by_seed.csv", "au_predictions.csv"
TABLES = (SPLITS, PREDICTIONS, BY_SEED, AU_PREDICTIONS)
FORMAT = 2  # of a workdir; raise it when a reader of the one before would misread it
# Neither of these changes what is computed, so a run may go on under other values.
FREE = ("parallel", "checkpoint", "data.data_dir", "data.manual_dir", "data.workers")
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "tensorflow-datasets",
    "opencv-python-headless",
)


def check(workdir: Path, config: Config) -> None:
    """Raises UserError where the workdir belongs to another config; the first key that differs is named."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is not a folder")
    path = workdir / CONFIG
    if not path.exists():
        return
    check_same(path, config_lib.to_dict(config), "config")


def check_same(path: Path, now: Any, kind: str) -> None:
    """Raises UserError where the JSON file `path` says something else than `now`; the first key that differs is named.

    Settings that change nothing of what is computed may differ.
    """
    for key, (old, new) in _differences(config_lib.completed(_read_json(path)), now).items():
        bare = key.removeprefix("settings.")
        if not any(bare == free or bare.startswith(f"{free}.") for free in FREE):
            raise UserError(f"{path.parent} belongs to another {kind}: {key} is {old!r} there and {new!r} here")


def claim(workdir: Path, config: Config, corpus: Corpus, splits: Splits) -> None:
    """Makes the workdir this config's and this data's own, and notes who is held out, versions, revision and devices.

    Raises:
      UserError: it belongs to another config, or was begun with other data or another teacher.
    """
    check(workdir, config)
    check_data(workdir, corpus)
    taught = config.distil.teacher and not config_lib.is_off(config.distil.weight)
    taught_by = digest(Path(config.distil.teacher) / METRICS) if taught else ""
    if (workdir / RUN).exists():
        if read_about(workdir).get("teacher", "") != taught_by:
            raise UserError(f"{workdir} was begun with another teacher: {config.distil.teacher} has changed since")
        return
    about = {
        "format": FORMAT,
        "data_fingerprint": corpus.fingerprint,
        "n_clips": len(corpus.ids),
        "teacher": taught_by,  # hash of its metrics
        "python": platform.python_version(),
        "packages": features.versions(PACKAGES),
        "git_revision": _git_revision(),
        "devices": [str(device) for device in jax.devices()],
        "device_kinds": sorted({device.device_kind for device in jax.devices()}),
        "features": list(corpus.origin),
    }
    _write_splits(workdir, corpus, config.data.classes, splits)
    write_text(workdir / CONFIG, json.dumps(config_lib.to_dict(config), indent=2) + "\n")
    write_text(workdir / RUN, json.dumps(about, indent=2) + "\n")


@contextlib.contextmanager
def claimed(workdir: Path, config: Config, corpus: Corpus, splits: Splits) -> Iterator[None]:
    """Claim the workdir for a run; give it back where the run fails for its settings, so that others may be tried.

    What failed for a setting would fail again. A run that was begun earlier is given back only where it diverged: its
    state is of no use then.

    Raises:
      UserError: as `claim` does, and what the block raises.
    """
    begun = (workdir / RUN).exists()
    hosts.in_turn(lambda: claim(workdir, config, corpus, splits))
    try:
        yield
    except UserError as error:
        if hosts.first() and (not begun or isinstance(error, Diverged)):
            _release(workdir)
        raise


def _release(workdir: Path) -> None:
    for name in (RUN, CONFIG, SPLITS):
        (workdir / name).unlink(missing_ok=True)
    for folder in (checkpoint.STATE, history.FOLDER):
        shutil.rmtree(workdir / folder, ignore_errors=True)


def keep_programs(folder: Path) -> None:
    """Keep compiled programs in `folder/cache`, or where JAX_COMPILATION_CACHE_DIR says, for runs that are resumed."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str((folder / "cache").absolute()))
        compilation_cache.reset_cache()


def check_data(workdir: Path, corpus: Corpus) -> None:
    """Raises UserError where the workdir was begun with other data."""
    path = workdir / RUN
    if path.exists() and _read_json(path)["data_fingerprint"] != corpus.fingerprint:
        raise UserError(f"{workdir} was begun with other data: the corpus or its features have changed since")


def read_config(workdir: Path) -> Config:
    """The config of a workdir. Raises UserError where there is none, or one that a newer version wrote."""
    path = workdir / CONFIG
    if not path.exists():
        raise UserError(f"{workdir} is no workdir of a run: {CONFIG} is missing")
    if (workdir / RUN).exists() and (format := read_about(workdir).get("format", 1)) > FORMAT:
        raise UserError(f"{workdir} has format {format}, of a newer stag-jax; this one reads up to {FORMAT}")
    return config_lib.from_config_dict(config_lib.completed(_read_json(path)))


def read_about(workdir: Path) -> dict[str, Any]:
    """What was noted of a run when it began: versions, revision, devices, fingerprint of the data."""
    return _read_json(workdir / RUN)


def finished(workdir: Path) -> dict[str, Any] | None:
    """The metrics of a finished run, which are the last thing a run writes."""
    path = workdir / METRICS
    return _read_json(path) if path.exists() else None


def write_predictions(
    workdir: Path,
    corpus: Corpus,
    classes: Sequence[str],
    seeds: Sequence[int],
    probability: Float[np.ndarray, "seed b k"],
) -> None:
    """predictions.csv, one row a clip, averaged over seeds; predictions_by_seed.csv, one row a seed and clip."""
    known = [
        (*row, classes[label])
        for *row, label in zip(corpus.ids, corpus.datasets, corpus.subjects, corpus.batch.label, strict=True)
    ]
    known_names, said_names = ("id", "dataset", "subject", "label"), ("prediction", *(f"p_{name}" for name in classes))

    def said(each: Float[np.ndarray, " k"]) -> list[str]:
        return [classes[np.argmax(each)], *_digits(each)]

    pooled = ([*row, *said(each)] for row, each in zip(known, probability.mean(axis=0), strict=True))
    write_table(workdir / PREDICTIONS, [*known_names, *said_names], pooled)
    by_seed = (
        [*row, seed, *said(each)]
        for seed, of_seed in zip(seeds, probability, strict=True)
        for row, each in zip(known, of_seed, strict=True)
    )
    write_table(workdir / BY_SEED, [*known_names, "seed", *said_names], by_seed)


def _write_splits(workdir: Path, corpus: Corpus, classes: Sequence[str], splits: Splits) -> None:
    """splits.csv, one row a clip: in which fold it is tested, and which other folds do not train on it either.

    All other folds train on it. A clip that is never tested has an empty `tested_in`; names are
    joined by `|` (`naming.join`).
    """
    names = np.asarray(splits.names)
    known = zip(corpus.ids, corpus.datasets, corpus.subjects, corpus.groups, corpus.parts, strict=True)
    rows = (
        [*row, classes[label], naming.join(names[test]), naming.join(names[~test & ~train])]
        for row, label, test, train in zip(
            known, corpus.batch.label, splits.test_mask.T, splits.train_mask.T, strict=True
        )
    )
    header = ["id", "dataset", "subject", "group", "part", "label", "tested_in", "left_out_of"]
    write_table(workdir / SPLITS, header, rows)


def write_au_predictions(workdir: Path, corpus: Corpus, probability: Float[np.ndarray, "b u"]) -> None:
    """au_predictions.csv: of each clip and action unit the label, empty where it is not known, and the probability."""
    units = corpus.graph.units
    rows = []
    for index, each in enumerate(probability):
        known = zip(corpus.batch.au[index], corpus.batch.au_mask[index], strict=True)
        labels = [str(int(label)) if there else "" for label, there in known]
        pairs = [cell for pair in zip(labels, _digits(each), strict=True) for cell in pair]
        rows.append([corpus.ids[index], corpus.subjects[index], *pairs])
    names = [name for unit in units for name in (f"au{unit}", f"p_au{unit}")]
    write_table(workdir / AU_PREDICTIONS, ["id", "subject", *names], rows)


def read_by_seed(workdir: Path, corpus: Corpus, classes: Sequence[str]) -> Float[np.ndarray, "seed b k"]:
    """The probabilities of predictions_by_seed.csv, clips as in `corpus`.

    Raises:
      UserError: there is no such file, or it is about other clips, labels or classes; the first at fault is named.
    """
    path = workdir / BY_SEED
    if not path.exists():
        raise UserError(f"{path} is missing: the run is not finished, or was made by an earlier version")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, dict[str, list[str]]] = {}
    labels = dict(zip(corpus.ids, (classes[label] for label in corpus.batch.label), strict=True))
    for row in rows:
        if labels.get(row["id"]) != row["label"]:
            there = labels.get(row["id"], "not among the clips")
            raise UserError(f"{path}: clip {row['id']} is labelled {row['label']} there; here it is {there}")
        if missing := [name for name in classes if f"p_{name}" not in row]:
            raise UserError(f"{path} has no column p_{missing[0]}")
        found.setdefault(row["seed"], {})[row["id"]] = [row[f"p_{name}"] for name in classes]
    for seed, of_seed in found.items():
        if absent := [name for name in corpus.ids if name not in of_seed]:
            raise UserError(f"{path} has no row for clip {absent[0]} and seed {seed}")
    return np.array([[of_seed[name] for name in corpus.ids] for of_seed in found.values()], np.float32)


def _digits(values: Float[np.ndarray, " any"]) -> list[str]:
    # Nine digits give a 32-bit float back exactly.
    return [f"{value:.9g}" for value in values]


def write_metrics(workdir: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """metrics.json, with the hash of every table beside it, by which a later change of one is seen; returns it."""
    tables = {path.name: digest(path) for path in map(workdir.joinpath, TABLES) if path.exists()}
    metrics = metrics | {"sha256": tables}
    write_text(workdir / METRICS, json.dumps(metrics, indent=2) + "\n")
    return metrics


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return {} if old == new else {prefix: (old, new)}
    found = {}
    for key in sorted(old.keys() | new.keys()):
        found |= _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _git_revision() -> str | None:
    """The revision of the checkout that this code lies in; None where it was installed from a wheel."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
