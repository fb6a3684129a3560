"""What the sheets of several corpora have in common: titles of columns, cells read with care, versions told apart."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stag_datasets import sheets
from stag_datasets.archive import Said
from stag_datasets.corpus import CorpusError
from stag_datasets.sheets import Row, Sheet
from stag_datasets.tree import Tree

COLUMNS: dict[str, Sequence[str]] = {
    "subject": ("Subject", "sub", "sub_ID"),
    "clip": ("Filename", "fold_name", "count"),
    "onset": ("OnsetFrame", "Onset", "OnsetF"),
    "apex": ("ApexFrame", "Apex", "ApexF", "ApexF1", "ApexFrame1"),
    "offset": ("OffsetFrame", "Offset", "OffsetF"),
    "units": ("Action Units", "Action Unit", "AU", "AUs"),
    "emotion": ("Estimated Emotion", "Emotion"),
    "objective": ("Objective Classes", "Objective Class"),
}
ROMAN = {str(number): numeral for number, numeral in enumerate(("I", "II", "III", "IV", "V", "VI", "VII"), start=1)}

# Known errata of one clip: column -> (what the sheet says, what it should say). None stands for whatever it says.
Errata = Mapping[tuple[str, ...], Mapping[str, tuple[int | None, int]]]


def sheet(
    tree: Tree,
    needed: Iterable[str],
    *,
    columns: Mapping[str, Sequence[str]] = COLUMNS,
    best: Callable[[Sheet], Any] | None = None,
) -> Sheet:
    """The annotation sheet of an archive. Of several, the one for which `best` is largest.

    Raises:
      CorpusError: none, several without a reason to prefer one, or one that cannot be read.
    """
    needed = tuple(needed)
    found = sheets.find(tree.tables, columns, needed)
    titles = ", ".join(columns[name][0] for name in needed)
    if not found:
        there = ", ".join(path.name for path in tree.tables) or "no table at all"
        raise CorpusError(f"no sheet with the columns {titles} below {tree.root}: found {there}")
    ranks = [best(each) if best else 0 for each in found]
    if ranks.count(max(ranks)) > 1:
        # The same table in two formats is no choice to make.
        tied = [each for each, rank in zip(found, ranks, strict=True) if rank == max(ranks)]
        if any([row.cells for row in each.rows] != [row.cells for row in tied[0].rows] for each in tied):
            names = ", ".join(str(each.path) for each in tied)
            raise CorpusError(f"several sheets with the columns {titles}: {names}; leave one")
    return found[ranks.index(max(ranks))]


def describe(
    found: Sheet,
    make: Callable[[Row, str], Said | None],
) -> tuple[list[Said], list[str]]:
    """What `make` reads out of each row (None: no clip), and the rows that it could not read, one line each."""
    said, problems = [], []
    for row in found.rows:
        where = f"{found} row {row.number}"
        try:
            each = make(row, where)
        except (ValueError, CorpusError) as error:
            problems.append(f"{where}: {error}")
            continue
        if each is not None:
            said.append(each)
    return said, problems


def marks(row: Row, names: Iterable[str] = ("onset", "apex", "offset")) -> dict[str, int | None]:
    """The numbers of frames in a row; None where nothing, `/` or `?` stands. Raises ValueError for anything else."""
    found = {}
    for name in names:
        try:
            found[name] = sheets.integer(row.cells.get(name, ""))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return found


def required(row: Row, *names: str) -> list[str]:
    """The cells, none of them empty. Raises ValueError naming the first that is."""
    for name in names:
        if not row.cells.get(name):
            raise ValueError(f"no {name} given")
    return [row.cells[name] for name in names]


def clip(row: Row, where: str, *, fps: float, subject: str) -> Said:
    """The clip of a row, in a folder of its own below its subject's.

    `subject` has a place for the subject's number, e.g. `sub{:02d}`. Raises ValueError for a row that cannot be used.
    """
    who, name, emotion = required(row, "subject", "clip", "emotion")
    person = subject.format(number(who))
    return Said(
        subject=person,
        clip=name,
        emotion=emotion,
        fps=fps,
        where=where,
        folder=(person, name),
        action_units=row.cells.get("units"),
        objective=roman(row.cells.get("objective", "")),
        **marks(row),
    )


def amend(said: Said, errata: Errata) -> Said:
    """With the known errata of the clip put right, and noted."""
    for name, (wrong, right) in errata.get((said.subject, said.clip), {}).items():
        now = getattr(said, name)
        # In another version of the sheet the clip may lie elsewhere, and nothing is to be repaired.
        fits = said.onset is None or said.onset <= right
        if now != right and wrong in (None, now) and fits:
            repair = f"{name} {'missing' if now is None else now} -> {right}"
            said = said._replace(repairs=(*said.repairs, repair), **{name: right})
    return said


def version(said: Iterable[Said], known: Mapping[str, Mapping[str, int]]) -> str:
    """Which known version of a sheet has these clips by emotion; otherwise the nearest, and in what it differs."""
    counts = Counter(each.emotion.casefold() for each in said)

    def distance(name: str) -> int:
        return sum((Counter(known[name]) - counts).values()) + sum((counts - Counter(known[name])).values())

    nearest = min(known, key=distance)
    if not distance(nearest):
        return nearest
    keys = sorted(set(counts) | set(known[nearest]))
    differing = [key for key in keys if counts[key] != known[nearest].get(key, 0)]
    listed = ", ".join(f"{key} {counts[key]} instead of {known[nearest].get(key, 0)}" for key in differing)
    return f"unknown (nearest {nearest}: {listed})"


def number(text: str) -> int:
    """The last whole number in a name: 7 of `sub07`, `s7`, `spNO.7`. Raises ValueError where there is none."""
    found = re.findall(r"\d+", text)
    if not found:
        raise ValueError(f"no number in {text!r}")
    return int(found[-1])


def roman(text: str) -> str:
    """An objective class as a Roman numeral, however written; empty where there is none."""
    return ROMAN.get(text, text.upper())
