"""Names of folds and trials as folders, and back: any text, on any disk.

Letters, digits, `_`, `-` and `.` stand for themselves, but for capitals, which some disks do not tell from small
letters, and a point at an end; all else is percent-encoded. A name too long for one folder goes on in a folder within.
"""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

LONGEST = 200  # characters of one folder's name; file systems take 255 bytes
MORE = "+"  # ends a folder's name where the name goes on inside; never part of an encoded name


def encode(name: str) -> str:
    """Encode any text as a relative path, reversibly; no two names differ in case alone."""
    text = "".join(f"%{ord(c):02x}" if c.isascii() and c.isupper() else quote(c, safe="").lower() for c in name)
    # "~" is the one character besides these that `quote` leaves.
    text = text.replace("~", "%7e")
    if text[:1] == ".":
        text = f"%2e{text[1:]}"
    if text[-1:] == ".":
        text = f"{text[:-1]}%2e"
    pieces = [text[at : at + LONGEST] for at in range(0, len(text), LONGEST)] or ["%"]
    return "/".join([*(f"{piece}{MORE}" for piece in pieces[:-1]), pieces[-1]])


def decode(path: str) -> str:
    """Return the name that `encode` made into this relative path."""
    text = path.replace(f"{MORE}/", "")
    return "" if text == "%" else unquote(text)


def find(root: Path, name: str) -> Path:
    """Return the folder of a name below `root`, which may not be there yet.

    Folders of versions that wrote names as they are, are found as well.
    """
    # Looked up in the listing: on a disk that ignores case, the path alone would find the folder of another name.
    plain = root.is_dir() and name in os.listdir(root)
    return root / (name if plain else encode(name))


def names(root: Path) -> list[str]:
    """List the names of all folders below `root` that `encode` could have made, sorted."""
    return sorted(_below(root, "")) if root.is_dir() else []


def join(listed: Iterable[str]) -> str:
    """Join names to one cell of a table, by `|`; a name that holds one is quoted as in CSV."""
    buffer = io.StringIO()
    names = list(listed)
    if names:
        csv.writer(buffer, delimiter="|", lineterminator="").writerow(names)
    return buffer.getvalue()


def split(cell: str) -> list[str]:
    """Return the names that `join` made a cell of."""
    return next(csv.reader([cell], delimiter="|"), [])


def _below(folder: Path, before: str) -> list[str]:
    listed = []
    for path in folder.iterdir():
        if not path.is_dir():
            continue
        if path.name.endswith(MORE) and len(path.name) > LONGEST:
            listed += _below(path, f"{before}{path.name}/")
        else:
            listed.append(decode(f"{before}{path.name}"))
    return listed
