"""Walk an unpacked archive once, and find folders of frames by name."""

import functools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from stag_datasets.errors import INFO, CorpusError
from stag_datasets.sheets import EXCEL, TEXT

IMAGES = (".jpg", ".jpeg", ".png", ".bmp")
PACKED = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".001")
FILMS = (".avi", ".mp4", ".mov", ".mkv", ".mpg", ".mpeg", ".wmv", ".m4v")
OTHER_IMAGES = (".tif", ".tiff", ".gif", ".webp", ".pgm", ".ppm", ".raw", ".heic")
TEXTS_OF_A_FOLDER = 50  # with more text files they are data, landmarks for example, and no sheets
SHOWN = 3
DEPTH = 8  # names of a path by which its folder is found
_NUMBER = re.compile(r"(\d+)\D*$")
_COPY = re.compile(r"( \(\d+\)| - (copy|kopie).*| copy( \d+)?)$", re.IGNORECASE)  # names that file managers give


class Place(NamedTuple):
    """A folder of pictures, and the folder that it was looked for in, relative to the root of the walk."""

    folder: Path
    release: str


class Tree(NamedTuple):
    """The result of one walk."""

    root: Path
    tables: list[Path]  # files that may be annotation sheets
    folders: dict[str, list[Path]]  # folders that hold pictures, by every plain name in the end of their path
    images: dict[Path, list[str]]  # the names of the pictures in each of them
    remarks: list[str]  # what was not walked
    others: dict[str, list[Path]]  # files that are not read, of the kinds of `unread`: the first ones
    counts: Counter[str]  # how many there are

    def find(self, *tail: str | int, levels: int = 0) -> list[Place]:
        """Return the folders of pictures whose path ends in these names, in order.

        Case and leading zeros do not count; an int, which is never the only name, stands for a name with that number,
        such as `sub07`, `s7`, `007`. The last name may have a single folder of pictures below it. A release lies
        `levels` above the names.
        """
        named = [self.folders.get(plain(name), []) for name in tail if isinstance(name, str)]
        candidates = min(named, key=len)
        depth = len(tail) + levels
        places = [Place(path, self._release(path, depth)) for path in candidates if _ends(path, tail)]
        nested = [path for path in candidates if _ends(path.parent, tail) and path.parent not in self.images]
        siblings = Counter(path.parent for path in nested)
        single = [path for path in nested if siblings[path.parent] == 1 and not _ends(path, tail)]
        return places + [Place(path, self._release(path, depth + 1)) for path in single]

    def _release(self, folder: Path, depth: int) -> str:
        return "/".join(folder.relative_to(self.root).parts[:-depth]) or "."

    def unread(self) -> str:
        """Return in words what there is besides pictures and tables; empty if there is nothing of that kind."""
        advice = {
            "packed": "unpack",
            "film": "the builder reads pictures: take the release with frames, or write the films' frames as .png",
            "picture of another kind": "convert to .png",
        }
        texts = []
        for kind, what in advice.items():
            if paths := self.others.get(kind):
                more = f" and {self.counts[kind] - len(paths)} more" if self.counts[kind] > len(paths) else ""
                names = ", ".join(str(path.relative_to(self.root)) for path in paths)
                texts.append(f"{names}{more} ({what})")
        return "; ".join(texts)


def walk(root: Path) -> Tree:
    """Collect all tables and pictures below `root`; links are followed, except those that lead back up.

    What this project has written is left out: prepared corpora, features and reports.
    """
    tree = Tree(root, [], {}, {}, [], {}, Counter())
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            tree.remarks.append(f"{folder} cannot be read: {error.strerror}")
            continue
        names = {entry.name for entry in entries}
        if INFO in names:
            continue
        written = {"features", "reports"} if {"features", "reports"} <= names else set()
        pictures, texts = [], []
        for entry in entries:
            # Skip lock files of Excel and the side files of macOS.
            if entry.name.startswith((".", "~$", "__MACOSX")) or entry.name in written:
                continue
            kind = os.path.splitext(entry.name)[1].lower()
            if kind in IMAGES:
                pictures.append(entry.name)
            elif kind in TEXT:
                texts.append(folder / entry.name)
            elif kind in EXCEL:
                tree.tables.append(folder / entry.name)
            elif entry.is_symlink():
                path = folder / entry.name
                if misled := _misleads(path):
                    tree.remarks.append(f"{path} is a link {misled}")
                elif path.is_dir():
                    pending.append(path)
            elif entry.is_dir():
                pending.append(folder / entry.name)
            else:
                _note(tree, folder / entry.name, kind)
        if len(texts) > TEXTS_OF_A_FOLDER:
            tree.remarks.append(f"{folder} holds {len(texts)} text files, which are taken for data and not for sheets")
        else:
            tree.tables.extend(texts)
        if pictures:
            tree.images[folder] = _without_copies(folder, pictures, tree.remarks)
    tree.tables.sort()
    for folder in sorted(tree.images):
        for name in {plain(part) for part in folder.parts[-DEPTH:]}:
            tree.folders.setdefault(name, []).append(folder)
    return tree


@functools.lru_cache(maxsize=1 << 16)
def plain(name: str) -> str:
    """Return a name without what varies between releases: case, width of letters, zeros before a number."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", unicodedata.normalize("NFKC", name).strip().casefold())


def numbered(folder: Path, names: Iterable[str]) -> dict[int, str]:
    """Return pictures by the last number of their names, in numerical order: img9 comes before img10.

    Raises:
      CorpusError: a name without a number, or two with the same.
    """
    frames: dict[int, str] = {}
    for name in names:
        match = _NUMBER.search(os.path.splitext(name)[0])
        if match is None:
            raise CorpusError(f"{folder / name} has no number in its name")
        number = int(match[1])
        if number in frames:
            raise CorpusError(f"{folder / name} and {frames[number]} have the same number")
        frames[number] = name
    return dict(sorted(frames.items()))


def _ends(path: Path, tail: tuple[str | int, ...]) -> bool:
    parts = path.parts[-len(tail) :]
    return len(parts) == len(tail) and all(map(_same, parts, tail))


def _same(part: str, name: str | int) -> bool:
    if isinstance(name, str):
        return plain(part) == plain(name)
    match = re.fullmatch(r"\D*(\d+)", part)
    return match is not None and int(match[1]) == name


def _note(tree: Tree, path: Path, suffix: str) -> None:
    for kind, suffixes in (("packed", PACKED), ("film", FILMS), ("picture of another kind", OTHER_IMAGES)):
        if suffix in suffixes:
            tree.counts[kind] += 1
            if len(tree.others.setdefault(kind, [])) < SHOWN:
                tree.others[kind].append(path)


def _without_copies(folder: Path, names: list[str], remarks: list[str]) -> list[str]:
    """Leave out `img1 (1).jpg` where there is `img1.jpg`."""
    if not any(" " in name for name in names):
        return names
    originals, copies = set(names), []
    for name in names:
        stem, suffix = os.path.splitext(name)
        if (match := _COPY.search(stem)) and stem[: match.start()] + suffix in originals:
            copies.append(name)
    if copies:
        remarks.append(f"{folder}: {len(copies)} copies of pictures are left out ({copies[0]})")
    return [name for name in names if name not in set(copies)]


def _misleads(link: Path) -> str:
    """Return why a link must not be followed; empty if it may be."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return "that leads nowhere"
    # Compare with the parents as walked, because a loop may run through several links.
    return "to a folder that it lies in" if any(target == parent.resolve() for parent in link.parents) else ""
