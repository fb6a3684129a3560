"""What a run leaves in its workdir besides checkpoints: config.json, run.json, predictions.csv, metrics.json."""

import csv
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from stag_jax import config as config_lib
from stag_jax.config import Config
from stag_jax.training.dataset import Corpus
from stag_jax.training.files import write_atomically, write_text
from stag_jax.types import UserError

CONFIG, RUN, METRICS, PREDICTIONS, LOG = "config.json", "run.json", "metrics.json", "predictions.csv", "log.jsonl"
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
    for key, (old, new) in _differences(_read_json(path), config_lib.to_dict(config)).items():
        if not any(key == free or key.startswith(f"{free}.") for free in FREE):
            raise UserError(f"{workdir} belongs to another config: {key} is {old!r} there and {new!r} here")


def claim(workdir: Path, config: Config, corpus: Corpus) -> None:
    """Makes the workdir this config's and this data's own, and notes versions, revision and devices.

    Raises:
      UserError: it belongs to another config, or was begun with other data.
    """
    check(workdir, config)
    check_data(workdir, corpus)
    if (workdir / RUN).exists():
        return
    about = {
        "data_fingerprint": corpus.fingerprint,
        "n_clips": len(corpus.ids),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "git_revision": _git_revision(),
        "devices": [str(device) for device in jax.devices()],
    }
    write_text(workdir / CONFIG, json.dumps(config_lib.to_dict(config), indent=2) + "\n")
    write_text(workdir / RUN, json.dumps(about, indent=2) + "\n")


def check_data(workdir: Path, corpus: Corpus) -> None:
    """Raises UserError where the workdir was begun with other data."""
    path = workdir / RUN
    if path.exists() and _read_json(path)["data_fingerprint"] != corpus.fingerprint:
        raise UserError(f"{workdir} was begun with other data: the corpus or its features have changed since")


def read_config(workdir: Path) -> Config:
    """The config of a workdir. Raises UserError where there is none."""
    path = workdir / CONFIG
    if not path.exists():
        raise UserError(f"{workdir} is no workdir of a run: {CONFIG} is missing")
    return config_lib.from_config_dict(_read_json(path))


def finished(workdir: Path) -> dict[str, Any] | None:
    """The metrics of a finished run, which are the last thing a run writes."""
    path = workdir / METRICS
    return _read_json(path) if path.exists() else None


def write_predictions(
    workdir: Path, corpus: Corpus, classes: Sequence[str], probability: Float[np.ndarray, "b k"]
) -> Int[np.ndarray, " b"]:
    """predictions.csv, one row a clip; returns the predicted classes."""
    prediction = np.argmax(probability, axis=1)
    with (
        write_atomically(workdir / PREDICTIONS) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["id", "dataset", "subject", "label", "prediction", *(f"p_{name}" for name in classes)])
        for index, name in enumerate(corpus.ids):
            label, chosen = classes[corpus.batch.label[index]], classes[prediction[index]]
            # Nine digits give a 32-bit float back exactly.
            row = [f"{value:.9g}" for value in probability[index]]
            writer.writerow([name, corpus.datasets[index], corpus.subjects[index], label, chosen, *row])
    return prediction


def write_metrics(workdir: Path, metrics: dict[str, Any]) -> None:
    """metrics.json."""
    write_text(workdir / METRICS, json.dumps(metrics, indent=2) + "\n")


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
