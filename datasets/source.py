"""Tell whether the files that a corpus was built from are still the same.

What was used is listed when a corpus is built: its sheets, and the folders of its clips with a hash of their frames'
names and sizes and of two of the frames. Later it is compared by times alone, of all files or, where there are very
many, of the folders; only what has another time is read again. Files that were not used do not count.
"""

import contextlib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stag_datasets.archive import Archive

FILE = "source.json"  # in the folder of a built corpus
SAMPLE = 1 << 20  # bytes of the first and the last frame of a folder that are part of its hash
FILES_MAX = 100_000  # with more frames only the times of folders are looked at


def write(folder: Path, root: Path, found: Archive) -> None:
    """List in the folder of a built corpus the files below `root` that it was built from."""
    names: dict[Path, set[str]] = defaultdict(set)
    for entry in found.entries:
        names[entry.folder].update(entry.names)
    each_file = sum(map(len, names.values())) <= FILES_MAX
    listed = {
        "root": str(root.absolute()),
        "each_file": each_file,
        "sheets": {_key(path, root): _file(path) for path in found.sheets},
        "folders": {_key(path, root): _folder(path, sorted(used), each_file) for path, used in names.items()},
    }
    (folder / FILE).write_text(json.dumps(listed), encoding="utf-8")


def changed(folder: Path, root: Path) -> str:
    """Return the first file or folder below `root` that is not as it was; empty if all are, or nothing was listed."""
    try:
        listed = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    built_from = Path(listed["root"])
    if built_from.is_relative_to(root.absolute()) or root.absolute().is_relative_to(built_from):
        root = built_from  # the same archive, given by a folder above or inside of it
    renewed = False
    for key, known in listed["sheets"].items():
        with contextlib.suppress(OSError):
            if _time(root / key) == known["time"]:
                continue
            if (now := _file(root / key))["sha256"] == known["sha256"]:
                listed["sheets"][key], renewed = now, True
                continue
        return key
    for key, known in listed["folders"].items():
        with contextlib.suppress(OSError):
            if _times(root / key, known["names"] if listed["each_file"] else ()) == known["times"]:
                continue
            if (now := _folder(root / key, known["names"], listed["each_file"]))["sha256"] == known["sha256"]:
                listed["folders"][key], renewed = now, True
                continue
        return key
    if renewed:  # a moved or copied archive has other times
        with contextlib.suppress(OSError):
            (folder / FILE).write_text(json.dumps(listed), encoding="utf-8")
    return ""


def _key(path: Path, root: Path) -> str:
    return os.path.relpath(path, root) if path.is_relative_to(root) else str(path)


def _file(path: Path) -> dict[str, Any]:
    return {"time": _time(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _folder(path: Path, names: list[str], each_file: bool) -> dict[str, Any]:
    sizes = [(name, (path / name).stat().st_size) for name in names]
    digest = hashlib.sha256(repr(sizes).encode())
    for name in (names[0], names[-1]):
        with (path / name).open("rb") as file:
            digest.update(file.read(SAMPLE))
    return {"times": _times(path, names if each_file else ()), "sha256": digest.hexdigest(), "names": names}


def _time(path: Path) -> int:
    return os.stat(path).st_mtime_ns


def _times(folder: Path, names: Iterable[str]) -> int:
    """Return a number that changes with the time of the folder, or of any of the files if there are names."""
    prefix = f"{folder}{os.sep}"
    stats = [os.stat(prefix + name) for name in names] or [os.stat(folder)]
    return hash(tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))
