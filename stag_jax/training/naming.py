"""Encode names of folds and trials as folder names, and decode them: any text, on any disk.

Small letters, digits, `_`, `-` and `.` are kept; everything else is percent-encoded, also capitals, since some disks
ignore case, and a dot at either end. A name too long for one folder continues in a subfolder.
"""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

LONGEST = 200  # characters of one folder's name; file systems take 255 bytes
MORE = "+"  # at the end of a folder's name: the name continues in a subfolder; never part of an encoded name


def encode(name: str) -> str:
    """Encode any text as a relative path, reversibly; no two names differ in case alone."""
    text = "".join(f"%{ord(c):02x}" if c.isascii() and c.isupper() else quote(c, safe="").lower() for c in name)
    # "~" is the only other character that `quote` leaves.
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
    """Return the folder of a name below `root`, which need not exist yet.

    Folders of older versions, which did not encode names, are found too.
    """
    # Search the listing: on a disk that ignores case, the path would also match the folder of another name.
    plain = root.is_dir() and name in os.listdir(root)
    return root / (name if plain else encode(name))


def names(root: Path) -> list[str]:
    """List the names of all folders below `root` that `encode` could have made, sorted."""
    return sorted(_below(root, "")) if root.is_dir() else []


def join(listed: Iterable[str]) -> str:
    """Join names by `|` to one cell of a table; a name that contains `|` is quoted as in CSV."""
    buffer = io.StringIO()
    names = list(listed)
    if names:
        csv.writer(buffer, delimiter="|", lineterminator="").writerow(names)
    return buffer.getvalue()


def split(cell: str) -> list[str]:
    """Return the names that `join` joined to this cell."""
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
