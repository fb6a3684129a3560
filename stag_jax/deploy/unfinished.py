"""What is kept of a recording until it is done, so that the same command goes on after a kill at any moment.

A folder `<name>.unfinished` beside the outputs: what the recording, the network and the settings were, and what was
saved last. It belongs to one process at a time, and is removed when the recording is done.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
from absl import logging

from stag_jax.config import to_dict
from stag_jax.deploy import snapshot
from stag_jax.deploy.results import Recogniser
from stag_jax.deploy.source import Source
from stag_jax.types import UserError

SUFFIX = ".unfinished"
VERSION = 1  # of what is kept; raise it when the code would go on with it differently
PACKAGES = ("stag-jax", "numpy", "jax", "jaxlib", "dlib-bin", "face_recognition_models", "opencv-python-headless", "av")
LOCK, ABOUT, SNAPSHOT = "lock", "about.json", "snapshot.npz"


class Unfinished(NamedTuple):
    """A folder that is open."""

    folder: Path
    saved: Any  # what was last saved by `save`; None at the beginning


def about(recogniser: Recogniser, recording: Source, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Describes all that the outputs of a recording follow from; None where its content has no hash.

    Raises:
      UserError: a file cannot be read; it is named.
    """
    if recording.digest is None:
        return None
    predictor = recogniser.config.face.predictor
    return {
        "recording": recording.digest(),
        "network": [recogniser.name, recogniser.digest, to_dict(recogniser.config)],
        "predictor": _hash(predictor) if predictor else "",
        "settings": dict(settings),
        "version": [VERSION, *(_version(name) for name in PACKAGES)],
    }


@functools.cache
def _hash(path: str) -> str:
    try:
        with open(path, "rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"config.face.predictor: {path} cannot be read: {error.strerror or error}") from error


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # it may be installed under another name
        return ""


@contextlib.contextmanager
def opened(out: Path | None, name: str, of: Mapping[str, Any] | None, kinds: Sequence[type]) -> Iterator[Unfinished]:
    """Opens the folder of a recording, and removes it when the block ends without an error.

    What an earlier process saved in it is gone on with if it was about the same, and is thrown away if not.

    Args:
      out: where the outputs are; None: nothing is kept, and the folder is a temporary one.
      name: of the recording.
      of: what the outputs follow from (`about`); None: nothing can be gone on with.
      kinds: records that are saved (`snapshot.read`).

    Raises:
      UserError: the folder cannot be made, or another process has it; it is named.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="stag_jax_") as folder:
            yield Unfinished(Path(folder), None)
        return
    folder = out / f"{name}{SUFFIX}"
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(folder / LOCK, timeout=0))
            saved = _read(folder, name, of, kinds)
            if saved is None:
                _empty(folder)
                (folder / ABOUT).write_text(json.dumps(of), encoding="utf-8")
        except filelock.Timeout as error:
            raise UserError(f"{folder}: another process is at this recording") from error
        except OSError as error:
            raise UserError(f"{folder} cannot be written to: {error.strerror or error}") from error
        yield Unfinished(folder, saved)
        remove(out, name)


def save(folder: Path, tree: Any, kinds: Sequence[type]) -> Any:
    """Saves a tree in place of the one before, and returns it as it will be read, to go on with.

    So a recording that is stopped and gone on with computes with the very same arrays as one that is not.

    Raises:
      UserError: it cannot be written; the file is named.
    """
    path = folder / SNAPSHOT
    try:
        snapshot.write(path, tree)
        return snapshot.read(path, kinds)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def remove(out: Path, name: str) -> None:
    """Removes what is kept of a recording, if anything is."""
    shutil.rmtree(out / f"{name}{SUFFIX}", ignore_errors=True)


def _read(folder: Path, name: str, of: Mapping[str, Any] | None, kinds: Sequence[type]) -> Any:
    """What was last saved, if it was about the same; None where there is nothing, or nothing of use."""
    if not (folder / ABOUT).exists():
        return None
    try:
        earlier = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        wanted = json.loads(json.dumps(of))
        if wanted is None or earlier is None:
            return None
        if other := sorted(key for key in earlier.keys() | wanted if earlier.get(key) != wanted.get(key)):
            logging.warning("%s is begun anew: what was unfinished has another %s", name, ", ".join(other))
            return None
        return snapshot.read(folder / SNAPSHOT, kinds)
    except FileNotFoundError:  # stopped before anything was saved
        return None
    except (OSError, ValueError, AttributeError) as error:
        logging.warning("%s is begun anew: what was unfinished cannot be read (%s)", name, error)
        return None


def _empty(folder: Path) -> None:
    (folder / ABOUT).unlink(missing_ok=True)  # first, so that nobody takes the rest for whole
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()
