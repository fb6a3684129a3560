"""Keep the progress of a recording until it is finished, so that the same command resumes after a kill at any moment.

The folder `<name>.unfinished` beside the outputs describes the recording, the network and the settings, and holds the
last saved progress. One process at a time may use it, and it is removed when the recording is finished.
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
VERSION = 1  # of the folder's content; raise it when the code would resume differently
PACKAGES = ("stag-jax", "numpy", "jax", "jaxlib", "dlib-bin", "face_recognition_models", "opencv-python-headless", "av")
LOCK, ABOUT, SNAPSHOT = "lock", "about.json", "snapshot.npz"


class Unfinished(NamedTuple):
    """An open folder of unfinished work."""

    folder: Path
    saved: Any  # last argument of `save`; None at the beginning


def about(recogniser: Recogniser, recording: Source, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Describe all that determines the outputs of a recording; None if its content has no hash.

    Raises:
      UserError: a file cannot be read; names the file.
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
    """Open the folder of a recording, and remove it when the block ends without an error.

    Progress saved by an earlier process is returned if its description is the same, and deleted if not.

    Args:
      out: output folder; None: a temporary folder is used, and nothing is kept.
      name: of the recording.
      of: description from `about`; None: the recording cannot be resumed.
      kinds: types of the saved records, for `snapshot.read`.

    Raises:
      UserError: the folder cannot be made, or another process uses it; names the folder.
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
    """Save a tree in place of the previous one, and return it as read back from the file.

    With the returned tree, an uninterrupted recording computes with exactly the same arrays as a resumed one.

    Raises:
      UserError: the tree cannot be written; names the file.
    """
    path = folder / SNAPSHOT
    try:
        snapshot.write(path, tree)
        return snapshot.read(path, kinds)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def remove(out: Path, name: str) -> None:
    """Remove the unfinished work of a recording, if there is any."""
    shutil.rmtree(out / f"{name}{SUFFIX}", ignore_errors=True)


def _read(folder: Path, name: str, of: Mapping[str, Any] | None, kinds: Sequence[type]) -> Any:
    """Return the last saved progress if its description matches; None if there is none, or it is unusable."""
    if not (folder / ABOUT).exists():
        return None
    try:
        saved = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        wanted = json.loads(json.dumps(of))
        if wanted is None or saved is None:
            return None
        if differing := sorted(key for key in saved.keys() | wanted if saved.get(key) != wanted.get(key)):
            logging.warning("%s is begun anew: what was unfinished has another %s", name, ", ".join(differing))
            return None
        return snapshot.read(folder / SNAPSHOT, kinds)
    except FileNotFoundError:  # stopped before anything was saved
        return None
    except (OSError, ValueError, AttributeError) as error:
        logging.warning("%s is begun anew: what was unfinished cannot be read (%s)", name, error)
        return None


def _empty(folder: Path) -> None:
    (folder / ABOUT).unlink(missing_ok=True)  # first, so that an interrupted deletion is not taken for valid progress
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()
