"""Annotation tables as their owners wrote them: Excel or CSV, header found by its titles, every cell as text."""

import csv
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import python_calamine as calamine

from stag_datasets.corpus import CorpusError

EXCEL, TEXT = (".xlsx", ".xls", ".xlsm", ".ods"), (".csv", ".tsv", ".txt")
ENCODINGS = ("utf-8-sig", "gb18030")  # sheets that Excel wrote in China are often the latter
SEPARATORS = (",", ";", "\t")
UNKNOWN = ("", "/", "?", "-", "nan", "none", "n/a")  # what stands in a cell of numbers that nobody could give


class Row(NamedTuple):
    """One line below the header."""

    number: int  # as spreadsheet programs count, from 1
    cells: dict[str, str]  # by our own names of the columns; one that the sheet does not have is not in it


class Sheet(NamedTuple):
    """A table that was recognised."""

    path: Path
    name: str  # of the sheet in its workbook; empty for text files
    rows: list[Row]

    def __str__(self) -> str:
        return f"{self.path.name}, sheet {self.name}" if self.name else self.path.name


def fold(title: str) -> str:
    """A title without what varies between versions of a sheet: case, spaces, punctuation, width of letters."""
    return "".join(c for c in unicodedata.normalize("NFKC", title).casefold() if c.isalnum())


def read(path: Path, columns: Mapping[str, Sequence[str]], needed: Iterable[str]) -> Sheet | None:
    """The first table of the file that has a row with titles for all of `needed`; None where there is none.

    Args:
      columns: titles, however written, that stand for each of our own names, the likeliest first.
      needed: names without which it is not the sheet that is looked for.

    Raises:
      CorpusError: the file cannot be read.
    """
    wanted = {name: [fold(title) for title in titles] for name, titles in columns.items()}
    for name, table in _tables(path):
        for at, line in enumerate(table):
            titles = [fold(cell) for cell in line]
            # A title that stands twice is that of its first column.
            places = {
                ours: next(titles.index(title) for title in accepted if title in titles)
                for ours, accepted in wanted.items()
                if any(title in titles for title in accepted)
            }
            if set(needed) <= set(places):
                return Sheet(path, name, list(_rows(table[at + 1 :], places, first=at + 2)))
    return None


def find(paths: Iterable[Path], columns: Mapping[str, Sequence[str]], needed: Iterable[str]) -> list[Sheet]:
    """Every such table among the files, one a file. Raises CorpusError for a table file that cannot be read."""
    return [sheet for path in paths if (sheet := read(path, columns, needed))]


def integer(cell: str) -> int | None:
    """The whole number of a cell, None where it holds a sign that there is none. Raises ValueError for other text."""
    plain = unicodedata.normalize("NFKC", cell).strip().casefold()
    if plain in UNKNOWN:
        return None
    try:
        value = float(plain)
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise ValueError(f"{cell!r} is no whole number")
    return int(value)


def _rows(lines: Sequence[Sequence[str]], places: Mapping[str, int], first: int) -> Iterator[Row]:
    for number, line in enumerate(lines, start=first):
        cells = {name: line[at] if at < len(line) else "" for name, at in places.items()}
        if any(cells.values()):
            yield Row(number, cells)


def _tables(path: Path) -> Iterator[tuple[str, list[list[str]]]]:
    """(name, rows of text) of each sheet of the file."""
    try:
        if path.suffix.lower() in EXCEL:
            with calamine.load_workbook(str(path)) as book:
                for name in book.sheet_names:
                    # Rows are counted from the top of the sheet, as its reader sees them.
                    rows = book.get_sheet_by_name(name).to_python(skip_empty_area=False)
                    yield name, [[_text(cell) for cell in row] for row in rows]
            return
        text = _decoded(path)
        for separator in SEPARATORS:
            yield "", [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=separator)]
    except (calamine.CalamineError, OSError, csv.Error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CorpusError(f"{path} cannot be read as a table: {reason}") from error


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    for encoding in ENCODINGS[:-1]:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode(ENCODINGS[-1])


def _text(cell: object) -> str:
    """A cell as its reader would write it: numbers that are whole have no point."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
