"""Read and write the files of a workdir besides checkpoints: config.json, run.json, tables, metrics.json."""

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
FORMAT = 2  # version of the workdir format; raise it when older readers would misread it
# Settings that do not change the results, so a run may be resumed with other values.
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
    """Raise UserError if the workdir belongs to another config; the first differing key is named."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is not a folder")
    path = workdir / CONFIG
    if not path.exists():
        return
    check_same(path, config_lib.to_dict(config), "config")


def check_same(path: Path, now: Any, kind: str) -> None:
    """Raise UserError if the JSON file `path` differs from `now`; the first differing key is named.

    Settings in `FREE` may differ.
    """
    for key, (old, new) in _differences(config_lib.completed(_read_json(path)), now).items():
        bare = key.removeprefix("settings.")
        if not any(bare == free or bare.startswith(f"{free}.") for free in FREE):
            raise UserError(f"{path.parent} belongs to another {kind}: {key} is {old!r} there and {new!r} here")


def claim(workdir: Path, config: Config, corpus: Corpus, splits: Splits) -> None:
    """Claim the workdir for this config and data; write the splits, versions, revision and devices.

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
        "teacher": taught_by,  # hash of the teacher's metrics
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
    """Claim the workdir for a run; release it if the run fails with a UserError, so that other settings can be tried.

    A workdir that was begun earlier is released only if the run diverged: its state is then useless.

    Raises:
      UserError: as `claim` does, and errors of the block.
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
    """Cache compiled programs in `folder/cache`, or in JAX_COMPILATION_CACHE_DIR if set, for resumed runs."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str((folder / "cache").absolute()))
        compilation_cache.reset_cache()


def check_data(workdir: Path, corpus: Corpus) -> None:
    """Raise UserError if the workdir was begun with other data."""
    path = workdir / RUN
    if path.exists() and _read_json(path)["data_fingerprint"] != corpus.fingerprint:
        raise UserError(f"{workdir} was begun with other data: the corpus or its features have changed since")


def read_config(workdir: Path) -> Config:
    """Read the config of a workdir. Raise UserError if there is none, or a newer version wrote it."""
    path = workdir / CONFIG
    if not path.exists():
        raise UserError(f"{workdir} is no workdir of a run: {CONFIG} is missing")
    if (workdir / RUN).exists() and (format := read_about(workdir).get("format", 1)) > FORMAT:
        raise UserError(f"{workdir} has format {format}, of a newer stag-jax; this one reads up to {FORMAT}")
    return config_lib.from_config_dict(config_lib.completed(_read_json(path)))


def read_about(workdir: Path) -> dict[str, Any]:
    """Read what was noted when the run began: versions, revision, devices, fingerprint of the data."""
    return _read_json(workdir / RUN)


def finished(workdir: Path) -> dict[str, Any] | None:
    """Read the metrics of a finished run; None if it is unfinished. A run writes them last."""
    path = workdir / METRICS
    return _read_json(path) if path.exists() else None


def write_predictions(
    workdir: Path,
    corpus: Corpus,
    classes: Sequence[str],
    seeds: Sequence[int],
    probability: Float[np.ndarray, "seed b k"],
) -> None:
    """Write predictions.csv (a row per clip, mean over seeds) and predictions_by_seed.csv (a row per seed and clip)."""
    clips = [
        (*row, classes[label])
        for *row, label in zip(corpus.ids, corpus.datasets, corpus.subjects, corpus.batch.label, strict=True)
    ]
    clip_names, class_names = ("id", "dataset", "subject", "label"), ("prediction", *(f"p_{name}" for name in classes))

    def said(each: Float[np.ndarray, " k"]) -> list[str]:
        return [classes[int(np.argmax(each))], *_digits(each)]

    pooled = ([*row, *said(values)] for row, values in zip(clips, probability.mean(axis=0), strict=True))
    write_table(workdir / PREDICTIONS, [*clip_names, *class_names], pooled)
    by_seed = (
        [*row, seed, *said(values)]
        for seed, of_seed in zip(seeds, probability, strict=True)
        for row, values in zip(clips, of_seed, strict=True)
    )
    write_table(workdir / BY_SEED, [*clip_names, "seed", *class_names], by_seed)


def _write_splits(workdir: Path, corpus: Corpus, classes: Sequence[str], splits: Splits) -> None:
    """Write splits.csv, one row per clip: the folds that test it, and the other folds that do not train on it.

    All remaining folds train on it. A clip that is never tested has an empty `tested_in`; names are joined by `|`
    (`naming.join`).
    """
    names = np.asarray(splits.names)
    clips = zip(corpus.ids, corpus.datasets, corpus.subjects, corpus.groups, corpus.parts, strict=True)
    rows = (
        [*row, classes[label], naming.join(names[test]), naming.join(names[~test & ~train])]
        for row, label, test, train in zip(
            clips, corpus.batch.label, splits.test_mask.T, splits.train_mask.T, strict=True
        )
    )
    header = ["id", "dataset", "subject", "group", "part", "label", "tested_in", "left_out_of"]
    write_table(workdir / SPLITS, header, rows)


def write_au_predictions(workdir: Path, corpus: Corpus, probability: Float[np.ndarray, "b u"]) -> None:
    """Write au_predictions.csv: for each clip and action unit the label, empty if unknown, and the probability."""
    units = corpus.graph.units
    rows = []
    for index, values in enumerate(probability):
        annotated = zip(corpus.batch.au[index], corpus.batch.au_mask[index], strict=True)
        labels = [str(int(label)) if known else "" for label, known in annotated]
        pairs = [cell for pair in zip(labels, _digits(values), strict=True) for cell in pair]
        rows.append([corpus.ids[index], corpus.subjects[index], *pairs])
    names = [name for unit in units for name in (f"au{unit}", f"p_au{unit}")]
    write_table(workdir / AU_PREDICTIONS, ["id", "subject", *names], rows)


def read_by_seed(workdir: Path, corpus: Corpus, classes: Sequence[str]) -> Float[np.ndarray, "seed b k"]:
    """Read the probabilities of predictions_by_seed.csv, with clips in the order of `corpus`.

    Raises:
      UserError: the file is missing, or has other clips, labels or classes; the first difference is named.
    """
    path = workdir / BY_SEED
    if not path.exists():
        raise UserError(f"{path} is missing: the run is not finished, or was made by an earlier version")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_seed: dict[str, dict[str, list[str]]] = {}
    labels = dict(zip(corpus.ids, (classes[label] for label in corpus.batch.label), strict=True))
    for row in rows:
        if labels.get(row["id"]) != row["label"]:
            label = labels.get(row["id"], "not among the clips")
            raise UserError(f"{path}: clip {row['id']} is labelled {row['label']} there; here it is {label}")
        if missing := [name for name in classes if f"p_{name}" not in row]:
            raise UserError(f"{path} has no column p_{missing[0]}")
        by_seed.setdefault(row["seed"], {})[row["id"]] = [row[f"p_{name}"] for name in classes]
    for seed, of_seed in by_seed.items():
        if absent := [name for name in corpus.ids if name not in of_seed]:
            raise UserError(f"{path} has no row for clip {absent[0]} and seed {seed}")
    return np.array([[of_seed[name] for name in corpus.ids] for of_seed in by_seed.values()], np.float32)


def _digits(values: Float[np.ndarray, " any"]) -> list[str]:
    # Nine digits restore a 32-bit float exactly.
    return [f"{value:.9g}" for value in values]


def write_metrics(workdir: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """Write metrics.json with the hash of every table, which reveals later changes; return what was written."""
    tables = {path.name: digest(path) for path in map(workdir.joinpath, TABLES) if path.exists()}
    metrics = metrics | {"sha256": tables}
    write_text(workdir / METRICS, json.dumps(metrics, indent=2) + "\n")
    return metrics


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return {} if old == new else {prefix: (old, new)}
    differences = {}
    for key in sorted(old.keys() | new.keys()):
        differences |= _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    return differences


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _git_revision() -> str | None:
    """Return the git revision of this checkout; None if the code was installed from a wheel."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
