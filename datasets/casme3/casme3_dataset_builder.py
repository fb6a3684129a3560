"""CAS(ME)³: 30 frames a second with depth; part A (94 subjects, 860 clips), part C (mock crime, 30 subjects, 165)."""

import functools
import re
from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree, versions
from stag_datasets.annotation import Erratum
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.errors import CorpusError
from stag_datasets.sheets import Row, Sheet, fold
from stag_datasets.tree import Place, Tree

NAME, FPS = "casme3", 30.0
NEEDED = ("subject", "clip", "onset", "offset", "units", "emotion")
COLUMNS = {
    **annotation.titled(onset="Onset", apex="Apex", offset="Offset", units="AU", emotion="emotion"),
    "kind": ("Type", "Expression type", "micro-/macro-expression"),
}
PART_C_COLUMNS = {
    **COLUMNS,
    **annotation.titled(subject="sub", clip="count", onset="onset", offset="offset", units="au", emotion="emotion"),
}
VERSIONS = versions.KNOWN[NAME]
# Errors of version 2 of part A, with the values that the public benchmark MEB uses instead.
ERRATA = {
    ("spNO.149", "d_112"): Erratum({"onset": 112, "apex": 83}, {"apex": 123}),
    ("spNO.214", "c_5"): Erratum({"onset": 5, "offset": 3460}, {"offset": 34}),
    ("spNO.216", "d_3647"): Erratum({"offset": 2694, "onset": 3647}, {"onset": 2647}),
    ("spNO.216", "e_0"): Erratum({"onset": 0, "apex": 0}, {"onset": 1, "apex": 1}),
    ("spNO.40", "e_1812"): Erratum({"onset": 1812, "offset": 0}, {"offset": 1845}),
    ("spNO.40", "e_2327"): Erratum({"onset": 2327, "offset": 0}, {"offset": 2403}),
}
_SUBJECT = re.compile(r"(spno|sp|subject|sub|s|no)?[ ._-]*\d+", re.IGNORECASE)


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset, colour; with action units, emotions and, in part A, objective classes."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [
        Variant(name="part_a", description="Part A, watched films.", part="part_a"),
        Variant(name="part_c", description="Part C, mock crime.", part="part_c"),
        Variant(
            name="part_a_as_annotated",
            description="Part A, known errors of the sheet left as they are.",
            part="part_a",
            errata=False,
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for CAS(ME)3 at http://casme.psych.ac.cn/casme/e4. Put the sheet of the part (micro-expressions of "
        "part A, version 2, or mockCrimeME) and its unpacked frames (part_A/spNO.1/a/color/175.jpg) into one folder "
        "and give it as manual_dir."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if no sheet can be read."""
        return scan(root, self.variant)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root` as `variant` says."""
    contents = tree.walk(root)
    is_part_a = variant.part == "part_a"

    def prefer(sheet: Sheet) -> bool:
        return any("apex" in row.cells for row in sheet.rows) == is_part_a  # only part A has an apex

    known = {name: counts for name, counts in VERSIONS.items() if name.startswith("part A") == is_part_a}
    columns = COLUMNS if is_part_a else PART_C_COLUMNS
    reading, remarks = annotation.read(
        contents, NEEDED, _said, dataset=NAME, columns=columns, known=known, prefer=prefer
    )
    if not prefer(reading.sheet):
        raise CorpusError(f"{reading.sheet} is that of another part of CAS(ME)3 than {variant.name}")
    clips = annotation.amend(reading.clips, ERRATA if is_part_a and variant.errata else {})
    places = functools.partial(_part_a if is_part_a else _part_c, contents)
    return archive.gather_folders(
        NAME, clips, contents, variant, places=places, **annotation.findings(reading, remarks, known)
    )


def _part_a(found: Tree, said: Said) -> list[Place]:
    """Return the folders of colour frames of a film, or those of its only frames."""
    return found.find(*said.folder) or found.find(*said.folder[:-1])


def _part_c(found: Tree, said: Said) -> list[Place]:
    """Return the folders of a subject of part C, whose one film the published descriptions do not name."""
    places = []
    for folder in found.images:
        parts = folder.relative_to(found.root).parts
        level = next((level for level, part in enumerate(parts) if _SUBJECT.fullmatch(part)), None)
        if level is None or annotation.number(parts[level]) != said.folder[0]:
            continue
        if "depth" not in map(fold, parts) and not {"parta", "partb"} & set(map(fold, parts[:level])):
            places.append(Place(folder, "/".join(parts[:level]) or "."))
    if len(places) > 1:
        names = ", ".join(sorted(str(place.folder.relative_to(found.root)) for place in places))
        raise CorpusError(f"{said.subject} has several folders of frames, {names}; part C has one a subject: leave one")
    return places


def _said(row: Row, where: str) -> Said | None:
    if "macro" in row.cells.get("kind", "").casefold():
        return None
    subject, film = annotation.required(row, "subject", "clip")
    film, marks = annotation.without_suffix(film), annotation.marks(row)
    if marks["onset"] is None or marks["offset"] is None:
        raise ValueError(f"{subject} {film}: no onset or no offset given")
    number = annotation.number(subject)
    return Said(
        subject=f"spNO.{number}",
        # One film holds several expressions, which differ only by their onset.
        clip=f"{film}_{marks['onset']}",
        emotion=annotation.emotion(row),
        fps=FPS,
        where=where,
        folder=(number, film, "color"),
        action_units=row.cells.get("units"),
        objective=annotation.roman(row.cells.get("objective", "")),
        marked=True,
        **marks,
    )
