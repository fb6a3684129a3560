"""Write files atomically, so that a reader never sees half of one."""

import contextlib
import csv
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Files that are being written. A process that must exit at once removes them (`discard_unfinished`).
_unfinished: set[Path] = set()


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`: only the owner may read its files, and a workdir is often shared.
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    _unfinished.add(temporary)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


def discard_unfinished() -> None:
    """Remove the files that are being written, before a process exits early."""
    for path in list(_unfinished):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Raise OSError, naming the folder, if it cannot be written to; create it if missing."""
    with write_atomically(folder / ".writable") as temporary:
        temporary.write_bytes(b"")
    (folder / ".writable").unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the text of a file atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a CSV file; return its path."""
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_arrays(path: Path, data: Mapping[str, Any]) -> Path:
    """Write named arrays as a compressed `.npz` that `numpy.load` opens without pickle; return the path.

    The same arrays give the same bytes.

    Raises:
      TypeError: an array of Python objects.
    """
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in data.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject and all(isinstance(item, str) for item in array.flat):
            arrays[name] = array.astype(str)  # a column of a table
        elif array.dtype.hasobject:
            raise TypeError(f"{path}: {name} is an array of Python objects")
    with write_atomically(path) as temporary:
        np.savez_compressed(temporary, **arrays)
    return path
