"""Read annotation tables as their owners wrote them: Excel or text, header found by its titles, every cell as text."""

import codecs
import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import python_calamine as calamine

from stag_datasets.errors import CorpusError

EXCEL, TEXT = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods"), (".csv", ".tsv", ".txt")
ENCODINGS = ("utf-8-sig", "gb18030", "cp1252")  # sheets written by Excel in China often have the second
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # "Unicode text" of Excel
SEPARATORS = (",", ";", "\t")
UNKNOWN = ("", "/", "?", "-", "nan", "none", "n/a")  # contents of a number cell whose value is not known
ZIP, OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # first bytes of new and of old Office files
HEADER_WITHIN = 1 << 16  # the header of a text table stands within as many characters


class Row(NamedTuple):
    """One line below the header."""

    number: int  # as spreadsheet programs count, from 1
    cells: dict[str, str]  # by our own column names, without columns that the sheet does not have


class Sheet(NamedTuple):
    """A recognised annotation table."""

    path: Path
    name: str  # of the sheet in its workbook; empty for text files
    rows: list[Row]

    def __str__(self) -> str:
        return f"{self.path.name}, sheet {self.name}" if self.name else self.path.name


class Found(NamedTuple):
    """What `find` has read."""

    sheets: list[Sheet]
    unreadable: list[str]  # one line for each file that is no table
    lacking: list[str]  # one line for each table with some of the needed columns only, that with most of them first


def fold(title: str) -> str:
    """Return a title without what varies between versions of a sheet: case, spaces, punctuation, width of letters."""
    return "".join(c for c in unicodedata.normalize("NFKC", title).casefold() if c.isalnum())


def find(paths: Iterable[Path], columns: Mapping[str, Sequence[str]], needed: Iterable[str]) -> Found:
    """Return every table among the files, and among the sheets of their workbooks, with a header for all of `needed`.

    Args:
      columns: accepted titles, in any spelling, of each of our own column names, the likeliest first.
      needed: column names that the table must have.
    """
    needed = tuple(needed)
    found, unreadable, partial = [], [], {}
    for path in paths:
        try:
            for sheet, lacking in _read(path, columns, needed):
                if lacking:
                    partial[str(sheet)] = lacking
                else:
                    found.append(sheet)
        except CorpusError as error:
            unreadable.append(str(error))
    lines = [
        f"{name} has no column {', '.join(columns[column][0] for column in lacking)}"
        for name, lacking in sorted(partial.items(), key=lambda item: len(item[1]))
    ]
    return Found(found, unreadable, lines)


def _read(path: Path, columns: Mapping[str, Sequence[str]], needed: tuple[str, ...]) -> Iterator[tuple[Sheet, list]]:
    """Yield each table of a file with the needed columns that it lacks, if it has at least half of them.

    Raises CorpusError if the file cannot be read.
    """
    wanted = {name: [fold(title) for title in titles] for name, titles in columns.items()}
    known = {title for titles in wanted.values() for title in titles}
    best: tuple[Sheet, list] | None = None
    for name, table in _tables(path, known, len(needed)):
        for row_index, line in enumerate(table):
            titles = [fold(cell) for cell in line]
            if known.isdisjoint(titles):
                continue
            # A title that occurs twice means its first column.
            column_indices = {
                column: next(titles.index(title) for title in accepted if title in titles)
                for column, accepted in wanted.items()
                if any(title in titles for title in accepted)
            }
            lacking = [column for column in needed if column not in column_indices]
            if not lacking:
                yield Sheet(path, name, list(_rows(table[row_index + 1 :], column_indices, first=row_index + 2))), []
                best = None
                break
            if len(lacking) <= len(needed) / 2 and (best is None or len(lacking) < len(best[1])):
                best = Sheet(path, name, []), lacking
        else:
            continue
        if not name:
            return  # a text file holds one table, whatever its separator
    if best is not None:
        yield best


def integer(cell: str) -> int | None:
    """Return the whole number of a cell; None if its text is one of `UNKNOWN`. Raises ValueError for other text."""
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
        cells = {name: line[index] if index < len(line) else "" for name, index in places.items()}
        if any(line):
            # Text below a table stands in any column.
            yield Row(number, cells if any(cells.values()) else {**cells, "": next(filter(None, line))})


def _tables(path: Path, titles: set[str], needed: int) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield (name, rows of text) of each sheet of the file, which is told by what it holds, not by its name.

    Text in which fewer than half of the `needed` titles occur is no table and is not taken apart.
    """
    try:
        data = path.read_bytes()
        if not data:
            raise CorpusError(f"{path} cannot be read as a table: it is empty")
        if data.startswith((ZIP, OLE)):
            yield from _workbook(path, data)
            return
        text = _decoded(data)
        if re.match(r"\s*<(?!\?xml)", text) or "<html" in text[:1000].casefold():
            raise CorpusError(f"{path} cannot be read as a table: it is a web page; open it and save it as .xlsx")
        if path.suffix.lower() in EXCEL and "\0" in text:
            raise CorpusError(f"{path} cannot be read as a table: it is no Excel file, or cut off")
        head = fold(text[:HEADER_WITHIN])
        if sum(title in head for title in titles) < needed / 2:
            if path.suffix.lower() in EXCEL:
                raise CorpusError(f"{path} cannot be read as a table: it is no Excel file, or cut off")
            return
        for separator in SEPARATORS:
            yield "", [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=separator)]
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CorpusError(f"{path} cannot be read as a table: {reason}") from error


def _workbook(path: Path, data: bytes) -> Iterator[tuple[str, list[list[str]]]]:
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise CorpusError(f"{path} cannot be read as a table: it is locked by a password; save it without one")
    try:
        with calamine.load_workbook(io.BytesIO(data)) as book:
            for name in book.sheet_names:
                # Row numbers count from the top of the sheet, as spreadsheet programs show them.
                rows = book.get_sheet_by_name(name).to_python(skip_empty_area=False)
                yield name, [[_text(cell) for cell in row] for row in rows]
    except (calamine.CalamineError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CorpusError(f"{path} cannot be read as a table: {reason}; save it as .xlsx") from error


def _decoded(data: bytes) -> str:
    if data.startswith(UTF_16):
        return data.decode("utf-16", errors="replace")
    for encoding in ENCODINGS[:-1]:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode(ENCODINGS[-1], errors="replace")


def _text(cell: object) -> str:
    """Return a cell as text, whole numbers without a decimal point."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
