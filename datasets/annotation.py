"""Read the annotation sheets of several corpora: column titles, checked cells, versions of a sheet."""

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

# Known errata by clip: column -> (value in the sheet, correct value). None stands for any value.
Errata = Mapping[tuple[str, ...], Mapping[str, tuple[int | None, int]]]


def sheet(
    tree: Tree,
    needed: Iterable[str],
    *,
    columns: Mapping[str, Sequence[str]] = COLUMNS,
    best: Callable[[Sheet], Any] | None = None,
) -> Sheet:
    """Return the annotation sheet of an archive; of several, the one for which `best` is largest.

    Raises:
      CorpusError: there is none, `best` does not decide between several, or one cannot be read.
    """
    needed = tuple(needed)
    candidates = sheets.find(tree.tables, columns, needed)
    titles = ", ".join(columns[name][0] for name in needed)
    if not candidates:
        table_names = ", ".join(path.name for path in tree.tables) or "no table at all"
        raise CorpusError(f"no sheet with the columns {titles} below {tree.root}: found {table_names}")
    ranks = [best(candidate) if best else 0 for candidate in candidates]
    if ranks.count(max(ranks)) > 1:
        # The same table in two formats is not ambiguous.
        tied = [candidate for candidate, rank in zip(candidates, ranks, strict=True) if rank == max(ranks)]
        if any([row.cells for row in candidate.rows] != [row.cells for row in tied[0].rows] for candidate in tied):
            names = ", ".join(str(candidate.path) for candidate in tied)
            raise CorpusError(f"several sheets with the columns {titles}: {names}; leave one")
    return candidates[ranks.index(max(ranks))]


def describe(
    found: Sheet,
    make: Callable[[Row, str], Said | None],
) -> tuple[list[Said], list[str]]:
    """Return the clips that `make` reads from the rows (None: no clip), and one line per row that it cannot read."""
    clips, problems = [], []
    for row in found.rows:
        source = f"{found} row {row.number}"
        try:
            parsed = make(row, source)
        except (ValueError, CorpusError) as error:
            problems.append(f"{source}: {error}")
            continue
        if parsed is not None:
            clips.append(parsed)
    return clips, problems


def marks(row: Row, names: Iterable[str] = ("onset", "apex", "offset")) -> dict[str, int | None]:
    """Return the frame numbers of a row; None for an empty cell, `/` or `?`. Raises ValueError for anything else."""
    numbers = {}
    for name in names:
        try:
            numbers[name] = sheets.integer(row.cells.get(name, ""))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return numbers


def required(row: Row, *names: str) -> list[str]:
    """Return the named cells. Raises ValueError naming the first empty one."""
    for name in names:
        if not row.cells.get(name):
            raise ValueError(f"no {name} given")
    return [row.cells[name] for name in names]


def clip(row: Row, where: str, *, fps: float, subject: str) -> Said:
    """Return the clip of a row, with a folder of its own below its subject's.

    `subject` is a format for the subject's number, e.g. `sub{:02d}`. Raises ValueError for a row that cannot be used.
    """
    subject_cell, name, emotion = required(row, "subject", "clip", "emotion")
    subject_name = subject.format(number(subject_cell))
    return Said(
        subject=subject_name,
        clip=name,
        emotion=emotion,
        fps=fps,
        where=where,
        folder=(subject_name, name),
        action_units=row.cells.get("units"),
        objective=roman(row.cells.get("objective", "")),
        **marks(row),
    )


def amend(said: Said, errata: Errata) -> Said:
    """Return the clip with its known errata corrected and listed in `repairs`."""
    for name, (wrong, right) in errata.get((said.subject, said.clip), {}).items():
        current = getattr(said, name)
        # In another version of the sheet the clip may have other frame numbers; then there is nothing to correct.
        in_range = said.onset is None or said.onset <= right
        if current != right and wrong in (None, current) and in_range:
            repair = f"{name} {'missing' if current is None else current} -> {right}"
            said = said._replace(repairs=(*said.repairs, repair), **{name: right})
    return said


def version(said: Iterable[Said], known: Mapping[str, Mapping[str, int]]) -> str:
    """Return the known version of a sheet with these counts by emotion; else the nearest, with its differences."""
    counts = Counter(clip.emotion.casefold() for clip in said)

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
    """Return the last whole number in a name: 7 of `sub07`, `s7`, `spNO.7`. Raises ValueError if there is none."""
    numbers = re.findall(r"\d+", text)
    if not numbers:
        raise ValueError(f"no number in {text!r}")
    return int(numbers[-1])


def roman(text: str) -> str:
    """Return an objective class as a Roman numeral, from any spelling; empty if there is none."""
    return ROMAN.get(text, text.upper())
