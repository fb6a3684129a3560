"""Look one folder up and down where an archive is not as it was expected, for "did you mean"."""

from collections.abc import Callable, Iterator
from pathlib import Path

from stag_datasets.sheets import EXCEL, TEXT

MOST = 40  # folders and tables that are looked at


def nearby(root: Path, test: Callable[[Path], bool]) -> str:
    """Return `; did you mean DIR?` for the first folder above or below `root` that passes; empty if none does."""
    for folder in (root.absolute().parent, *folders(root), *(each.absolute() for each in folders(root.parent))):
        if folder != root.absolute() and test(folder):
            return f"; did you mean --manual_dir={folder}?"
    return ""


def folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, in order; none if it cannot be read."""
    return [path for path in _entries(folder) if path.is_dir()][:MOST]


def tables(folder: Path) -> list[Path]:
    """Return what may be annotation tables in a folder, in order; none if it cannot be read."""
    return [path for path in _entries(folder) if path.suffix.lower() in EXCEL + TEXT and path.is_file()][:MOST]


def named(root: Path, name: str) -> Path | None:
    """Return the folder in `root` with this name, ignoring case and punctuation; None if there is none."""
    wanted = _plain(name)
    return next((folder for folder in folders(root) if _plain(folder.name) == wanted), None)


def listing(root: Path) -> str:
    """Return in words what a folder holds."""
    names = [path.name + "/" * path.is_dir() for path in _entries(root)]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "nothing"


def _entries(folder: Path) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        paths = []
    return (path for path in paths if not path.name.startswith((".", "~$")))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
