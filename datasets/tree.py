"""Walk an unpacked archive once, find folders of frames by name, and check pictures."""

import io
import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from stag_datasets.corpus import CorpusError
from stag_datasets.sheets import EXCEL, TEXT

IMAGES = (".jpg", ".jpeg", ".png", ".bmp")
EIGHT_BIT = ("1", "L", "LA", "RGB", "RGBA", "P")
PNG_DEPTH = 24  # offset of the byte with the bits per channel of a PNG
_NUMBER = re.compile(r"(\d+)\D*$")


class Tree(NamedTuple):
    """The result of one walk."""

    root: Path
    tables: list[Path]  # files that may be annotation sheets
    folders: dict[str, list[Path]]  # folders that hold pictures, by their case-folded name
    images: dict[Path, list[Path]]  # the pictures in each of them
    problems: list[str]  # folders and links that could not be walked

    def find(self, *tail: str) -> list[Path]:
        """Return the folders of pictures whose path ends in these names, ignoring case, in order."""
        ending = tuple(name.casefold() for name in tail)
        candidates = self.folders.get(ending[-1], [])
        return [path for path in candidates if _tail(path, len(ending)) == ending]


def walk(root: Path) -> Tree:
    """Collect all tables and pictures below `root`; links are followed, except those that lead back up."""
    tables, images, problems = [], {}, []
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(f"{folder} cannot be read: {error.strerror}")
            continue
        pictures = []
        for entry in entries:
            path, kind = folder / entry.name, os.path.splitext(entry.name)[1].lower()
            # Skip lock files of Excel and the side files of macOS.
            if entry.name.startswith((".", "~$", "__MACOSX")):
                continue
            if kind in IMAGES:
                pictures.append(path)
            elif kind in EXCEL + TEXT:
                tables.append(path)
            elif entry.is_symlink():
                if problem := _misleads(path):
                    problems.append(f"{path} is a link {problem}")
                elif path.is_dir():
                    pending.append(path)
            elif entry.is_dir():
                pending.append(path)
        if pictures:
            images[folder] = pictures
    folders: dict[str, list[Path]] = {}
    for folder in sorted(images):
        folders.setdefault(folder.name.casefold(), []).append(folder)
    return Tree(root, sorted(tables), folders, images, problems)


def numbered(paths: Iterable[Path]) -> dict[int, Path]:
    """Return frames by the last number of their names, in numerical order: img9 comes before img10.

    Raises:
      CorpusError: a name without a number, or two with the same.
    """
    frames: dict[int, Path] = {}
    for path in paths:
        match = _NUMBER.search(path.stem)
        if match is None:
            raise CorpusError(f"{path} has no number in its name")
        number = int(match[1])
        if number in frames:
            raise CorpusError(f"{path} and {frames[number].name} have the same number")
        frames[number] = path
    return dict(sorted(frames.items()))


def raw_first(path: Path) -> tuple[bool, bool, bool, str]:
    """Return the sort key of a clip's folder: recorded before cropped, the clip before the whole recording."""
    name = str(path).casefold()
    return "crop" in name, "macro" in name, "select" not in name, name


def cropped_first(path: Path) -> tuple[bool, str]:
    """Return the same with the owners' crops first."""
    return "crop" not in str(path).casefold(), str(path)


def picture(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Return the bytes of a picture file and its (width, height); header and end are checked, nothing is decoded.

    Raises:
      CorpusError: the file cannot be read, is no picture, is cut off, or has more than 8 bits a channel.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    if not data:
        raise CorpusError(f"{path} is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind, mode, size = image.format, image.mode, image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorpusError(f"{path} is no picture: its header cannot be read") from error
    # Pillow also calls colour of 16 bits per channel RGB.
    if mode not in EIGHT_BIT or (kind == "PNG" and data[PNG_DEPTH] > 8):
        raise CorpusError(f"{path} is no 8-bit picture (mode {mode})")
    if not _whole(data, kind):
        raise CorpusError(f"{path} is cut off")
    return data, size


def _whole(data: bytes, kind: str | None) -> bool:
    """Return whether the file has its end, which no decoder requires."""
    if kind == "JPEG":
        return b"\xff\xd9" in data[-1024:]  # some writers pad
    if kind == "PNG":
        return b"IEND" in data[-64:]
    if kind == "BMP":
        return len(data) >= struct.unpack("<I", data[2:6])[0]
    return False


def _misleads(link: Path) -> str:
    """Return why a link must not be followed; empty if it may be."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return "that leads nowhere"
    # Compare with the parents as walked, because a loop may run through several links.
    return "to a folder that it lies in" if any(target == parent.resolve() for parent in link.parents) else ""


def _tail(path: Path, length: int) -> tuple[str, ...]:
    return tuple(part.casefold() for part in path.parts[-length:])
