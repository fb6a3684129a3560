"""Read the annotation sheets of several corpora: column titles, checked cells, the choice among several sheets."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stag_datasets import levels, sheets, versions
from stag_datasets.archive import UNLABELLED, Said
from stag_datasets.errors import CorpusError
from stag_datasets.sheets import Row, Sheet
from stag_datasets.tree import FILMS, Tree

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
FPS_MAX = 100_000
REASONS = 5  # tables that an error names
_NAMED_AFTER = re.compile(r"(?:sub|s)?(\d+)[_-]", re.IGNORECASE)


class Erratum(NamedTuple):
    """A known error of a sheet. It is corrected in rows that have all values of `given`."""

    given: Mapping[str, int]  # column -> value in the sheet
    right: Mapping[str, int]  # column -> correct value


class Reading(NamedTuple):
    """A sheet, with the clips that were read from it."""

    sheet: Sheet
    clips: list[Any]
    problems: list[str]  # one line for each row that cannot be read
    remarks: list[str]  # rows that are no clips
    emotions: list[str]  # those of unreadable rows too, which say as much about the version of the sheet
    version: str  # of the known ones; empty if none is known


Make = Callable[[Row, str], Any]  # what a row describes; None: no clip. Raises ValueError for a row that is unusable.


def titled(**first: str) -> dict[str, Sequence[str]]:
    """Return `COLUMNS` with the titles of a corpus in front, which messages name."""
    return {name: (first[name], *titles) if name in first else titles for name, titles in COLUMNS.items()}


def read(
    tree: Tree,
    needed: Sequence[str],
    make: Make,
    *,
    dataset: str,
    columns: Mapping[str, Sequence[str]] = COLUMNS,
    known: Mapping[str, Mapping[str, int]] | None = None,
    prefer: Callable[[Sheet], Any] = lambda sheet: 0,
) -> tuple[Reading, list[str]]:
    """Read the annotation sheet of an archive, and say in lines which other tables there are.

    Of several, sheets of other corpora are passed over, and then taken in this order: those that `prefer` ranks
    highest, `known` versions, the one with most clips, the one with fewest other rows.

    Raises:
      CorpusError: there is none, or two that differ are as good.
    """
    readings, remarks = candidates(tree, needed, make, dataset=dataset, columns=columns, known=known)
    order = list(known or ())

    def rank(reading: Reading) -> tuple[Any, ...]:
        place = order.index(reading.version) if reading.version else len(order)
        return prefer(reading.sheet), -place, len(reading.clips)

    best = max(map(rank, readings))
    first, *tied = sorted((each for each in readings if rank(each) == best), key=lambda each: len(each.sheet.rows))
    if not first.version and any(_plain(each) != _plain(first) for each in tied):
        names = ", ".join(str(each.sheet.path) for each in (first, *tied))
        raise CorpusError(f"{len(tied) + 1} sheets with {len(first.clips)} clips each that differ: {names}; leave one")
    for each in readings:
        if each is not first:
            version = f", version {each.version}" if each.version else ""
            same = " the same" if _plain(each) == _plain(first) else ""
            remarks.append(f"sheet passed over: {each.sheet} ({len(each.clips)} clips{same}{version})")
    return first, remarks


def candidates(
    tree: Tree,
    needed: Sequence[str],
    make: Make,
    *,
    dataset: str,
    columns: Mapping[str, Sequence[str]] = COLUMNS,
    known: Mapping[str, Mapping[str, int]] | None = None,
) -> tuple[list[Reading], list[str]]:
    """Read all sheets of an archive that may be of this corpus; return also what is to be said of the other tables.

    Raises CorpusError if there is none.
    """
    found = sheets.find(tree.tables, columns, needed)
    remarks = [*tree.remarks, *found.unreadable, *(f"sheet passed over: {line}" for line in found.lacking)]
    readings = []
    for sheet in found.sheets:
        reading = describe(sheet, needed, make, known or {})
        other = "" if reading.version else versions.owner(reading.emotions)
        if other and other != dataset:
            remarks.append(f"sheet passed over: {sheet} is that of {other}")
        else:
            readings.append(reading)
    if not readings:
        titles = ", ".join(columns[name][0] for name in needed)
        reasons = [*found.lacking, *tree.remarks, *found.unreadable][:REASONS] or [
            f"found {', '.join(path.name for path in tree.tables[:REASONS]) or 'no table at all'}"
        ]
        hint = levels.nearby(tree.root, lambda folder: _holds_sheet(folder, columns, needed))
        raise CorpusError(f"no sheet with the columns {titles} below {tree.root}: {'; '.join(reasons)}{hint}")
    return readings, remarks


def describe(
    sheet: Sheet, needed: Sequence[str], make: Make, known: Mapping[str, Mapping[str, int]] | None = None
) -> Reading:
    """Read the clips of a sheet. Unreadable rows with fewer than half of the needed cells are text, not clips."""
    clips, problems, remarks, emotions = [], [], [], []
    for row in sheet.rows:
        place = f"{sheet} row {row.number}"
        try:
            parsed = make(row, place)
        except (ValueError, CorpusError) as error:
            if sum(bool(row.cells.get(name)) for name in needed) < len(needed) / 2:
                text = next(filter(None, row.cells.values()))
                remarks.append(f"{place} is taken for text and not for a clip: {text[:60]!r}")
            else:
                problems.append(f"{place}: {error}")
                emotions += filter(None, [row.cells.get("emotion")])
            continue
        if parsed is not None:
            clips.append(parsed)
    words = {word for counts in (known or {}).values() for word in counts}
    for clip in _flat(clips) if words else ():
        if clip.emotion != UNLABELLED and clip.emotion.casefold() not in words:
            remarks.append(f"{clip.where}: emotion {clip.emotion!r} is none of {', '.join(sorted(words))}")
    remarks += _other_subjects(_flat(clips))
    emotions += [clip.emotion for clip in _flat(clips)]
    version = versions.version(emotions, known) if known else ""
    return Reading(sheet, clips, problems, remarks, emotions, version if version in (known or ()) else "")


def _other_subjects(clips: list[Said]) -> list[str]:
    """Return one line for each clip that is named after another subject, where most are named after their own."""
    others = [
        clip
        for clip in clips
        if (match := _NAMED_AFTER.match(clip.clip))
        and (digits := re.findall(r"\d+", clip.subject))
        and int(match[1]) != int(digits[-1])
    ]
    if len(others) >= len(clips) / 2:
        return []
    return [f"{clip.where}: clip {clip.clip} is named after another subject than {clip.subject}" for clip in others]


def findings(
    reading: Reading, remarks: Iterable[str], known: Mapping[str, Mapping[str, int]] | None = None
) -> dict[str, Any]:
    """Return the arguments of `archive.gather_folders` that tell of the sheet that was read."""
    about = {"sheet": str(reading.sheet.path)}
    if reading.sheet.name:
        about["sheet"] += f", sheet {reading.sheet.name}"
    if known:
        about["version"] = versions.version(reading.emotions, known)
    return {
        "about": about,
        "sheets": [reading.sheet.path],
        "problems": reading.problems,
        "remarks": [*remarks, *reading.remarks],
    }


def _flat(clips: Iterable[Any]) -> list[Said]:
    return [each for clip in clips for each in (clip if isinstance(clip, list) else [clip])]


def _plain(reading: Reading) -> list[Said]:
    """Return the clips without where they stand."""
    return sorted((clip._replace(where="") for clip in _flat(reading.clips)), key=repr)


def _holds_sheet(folder: Path, columns: Mapping[str, Sequence[str]], needed: Sequence[str]) -> bool:
    return bool(sheets.find(levels.tables(folder), columns, needed).sheets)


def marks(row: Row, names: Iterable[str] = ("onset", "apex", "offset")) -> dict[str, int | None]:
    """Return the frame numbers of a row; None for an empty cell, `/` or `?`.

    Raises ValueError for anything else, and for a negative number.
    """
    numbers = {}
    for name in names:
        try:
            numbers[name] = sheets.integer(row.cells.get(name, ""))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if (numbers[name] or 0) < 0:
            raise ValueError(f"{name}: {numbers[name]} is negative")
    return numbers


def required(row: Row, *names: str) -> list[str]:
    """Return the named cells. Raises ValueError naming the first empty one."""
    for name in names:
        if not row.cells.get(name):
            raise ValueError(f"no {name} given")
    return [row.cells[name] for name in names]


def emotion(row: Row) -> str:
    """Return the emotion of a row. Raises ValueError if there is none, or a word for not known."""
    (cell,) = required(row, "emotion")
    if cell.casefold() in sheets.UNKNOWN:
        raise ValueError(f"emotion {cell!r} is none")
    return cell


def rate(cell: str) -> float:
    """Return a frame rate, frames a second. Raises ValueError unless it is a number above 0."""
    try:
        value = float(cell)
    except ValueError:
        value = -1.0
    if not 0 < value <= FPS_MAX:
        raise ValueError(f"fps {cell!r} is no frame rate")
    return value


def clip(row: Row, where: str, *, fps: float, subject: str) -> Said:
    """Return the clip of a row, with a folder of its own below its subject's.

    `subject` is a format for the subject's number, e.g. `sub{:02d}`. Raises ValueError for a row that cannot be used.
    """
    subject_cell, name = required(row, "subject", "clip")
    subject_number = number(subject_cell)
    name = without_suffix(name)
    return Said(
        subject=subject.format(subject_number),
        clip=name,
        emotion=emotion(row),
        fps=fps,
        where=where,
        folder=(subject_number, name),
        action_units=row.cells.get("units"),
        objective=roman(row.cells.get("objective", "")),
        marked=True,
        **marks(row),
    )


def without_suffix(name: str) -> str:
    """Return the name of a clip that a sheet writes as the path of a film, `sub01/EP02_01f.avi`.

    Raises ValueError if nothing is left, or a word for not known.
    """
    written, name = name, re.split(r"[/\\]", name)[-1]
    if name.casefold() in sheets.UNKNOWN:
        raise ValueError(f"clip {written!r} is no name")
    return name[: name.rfind(".")] if name.casefold().endswith(FILMS) else name


def amend(clips: Iterable[Said], errata: Mapping[tuple[str, str], Erratum]) -> list[Said]:
    """Return the clips with their known errata corrected and listed in `repairs`.

    Clips keep what is written; `archive.gather_folders` goes back to it where the frames do not bear the correction
    out.
    """
    amended = []
    for clip in clips:
        erratum = errata.get((clip.subject, clip.clip))
        if erratum is None or any(getattr(clip, name) != value for name, value in erratum.given.items()):
            amended.append(clip)
            continue
        changes = {name: right for name, right in erratum.right.items() if getattr(clip, name) != right}
        repairs = tuple(
            f"{name} {'missing' if (old := getattr(clip, name)) is None else old} -> {right}"
            for name, right in changes.items()
        )
        if repairs:
            written = {name: getattr(clip, name) for name in changes}
            clip = clip._replace(repairs=repairs, written=written, row_known=bool(erratum.given), **changes)
        amended.append(clip)
    return amended


def number(text: str) -> int:
    """Return the last whole number in a name: 7 of `sub07`, `spNO.7`, `7.0`. Raises ValueError if there is none."""
    numbers = re.findall(r"\d+", re.sub(r"(?<=\d)\.0+$", "", text))
    if not numbers:
        raise ValueError(f"no number in {text!r}")
    return int(numbers[-1])


def roman(text: str) -> str:
    """Return an objective class as a Roman numeral, from any spelling; empty if there is none."""
    return ROMAN.get(text, text.upper())
