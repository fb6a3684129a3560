"""SMIC: high speed (100 frames a second, 16 subjects, 164 clips), visual and near infrared (25, 8 subjects each)."""

import re
from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree, versions
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.errors import CorpusError
from stag_datasets.sheets import Row
from stag_datasets.tree import Place, Tree, plain

NAME = "smic"
FPS = {"HS": 100.0, "VIS": 25.0, "NIR": 25.0}
EMOTIONS = {"ne": "negative", "po": "positive", "sur": "surprise"}
_CLIP = re.compile(r"s(?P<subject>\d+)_(?P<tag>ne|po|sur)_\d+", re.IGNORECASE)
# The sheet of the long clips; one recording holds up to three micro-expressions.
LONG = {
    **annotation.titled(onset="OnsetF", offset="OffsetF"),
    "onset2": ("Onset2", "OnsetF2", "Onset2F"),
    "offset2": ("Offset2", "OffsetF2", "Offset2F"),
    "onset3": ("Onset3", "OnsetF3", "Onset3F"),
    "offset3": ("Offset3", "OffsetF3", "Offset3F"),
}
NEEDED = ("subject", "clip", "onset", "offset")
RELEASES = ("SMIC_all_raw", "SMIC_all_cropped", "SMIC-HS-E", "SMIC-VIS-E", "SMIC-NIR-E")
VERSIONS = versions.KNOWN[NAME]


def _variant(part: str, cropped: bool = False) -> Variant:
    name = f"{part.lower()}_cropped" if cropped else part.lower()
    suffix = ", the owners' own crops" if cropped else ""
    return Variant(name=name, description=f"SMIC-{part}{suffix}.", part=part, cropped=cropped)


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset in three classes; the corpus has neither apex frames nor action units."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [
        *(_variant(part) for part in FPS),
        *(_variant(part, cropped=True) for part in FPS),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for SMIC at the University of Oulu, http://www.cse.oulu.fi/SMICDatabase. Give as manual_dir a folder that "
        "holds SMIC_all_raw or SMIC_all_cropped (with HS, VIS, NIR below), or the long clips of SMIC-E with their "
        "annotation sheet (SMIC-HS-E_annotation.xlsx)."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if it has neither short clips nor a sheet of long ones."""
        return scan(root, self.variant)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root`: short clips if there are any, else long ones."""
    contents = tree.walk(root)
    known = {name: counts for name, counts in VERSIONS.items() if name == variant.part}
    if clips := _short(contents, variant.part):
        about = {"layout": "short clips, classes by folder"}
        if known:
            about["version"] = versions.version((clip.emotion for clip in clips), known)
        return archive.gather_folders(
            NAME, clips, contents, variant, official=RELEASES, remarks=contents.remarks, about=about
        )
    tables = [path for path in contents.tables if not _of_another_part(path.name, variant.part)]
    try:
        reading, remarks = annotation.read(
            contents._replace(tables=tables),
            NEEDED, lambda row, where: _long(row, where, variant.part), dataset=NAME, columns=LONG, known=known,
            prefer=lambda sheet: (variant.part in sheet.path.name.upper(), "2019" in sheet.path.name),
        )  # fmt: skip
    except CorpusError as error:
        raise CorpusError(f"{_no_short(contents, variant.part)}; and {error}") from error
    clips = [clip for group in reading.clips for clip in group]
    findings = annotation.findings(reading, remarks, known)
    findings["about"] = {"layout": "long clips", **findings["about"]}

    def places(clip: Said) -> list[Place]:
        found = contents.find(*clip.folder, levels=1)
        return [place for place in found if not _of_another_part(place.release, variant.part)]

    return archive.gather_folders(NAME, clips, contents, variant, official=RELEASES, places=places, **findings)


def _short(found: Tree, part: str) -> list[Said]:
    """Return the clips of folders such as .../HS/s1/micro/negative/s1_ne_01, described by their names alone."""
    clips = {}
    for folder in sorted(found.images):
        if _CLIP.fullmatch(folder.parent.name):  # the frames lie one folder deeper
            folder = folder.parent
        match = _CLIP.fullmatch(folder.name)
        names = folder.relative_to(found.root.absolute().parent).parts if found.root.name else folder.parts
        folded = [name.casefold() for name in names]
        if match is None or "micro" not in folded or part.casefold() not in folded:
            continue
        # The recorded and the cropped folder of a clip end in the same names and count once.
        tail = names[folded.index(part.casefold()) :]
        clips.setdefault(
            plain("/".join(tail)),
            Said(
                subject=f"s{int(match['subject']):02d}",
                clip=folder.name,
                emotion=EMOTIONS[match["tag"].casefold()],
                fps=FPS[part],
                where=str(folder),
                folder=tail,
            ),
        )
    return list(clips.values())


def _no_short(found: Tree, part: str) -> str:
    """Return in words why there are no short clips: what lies where they would."""
    short = [folder for folder in found.images if _CLIP.fullmatch(folder.name)]
    if not short:
        unread = found.unread()
        return f"no short clips (.../{part}/s1/micro/negative/s1_ne_01) below {found.root}" + (
            f"; there is {unread}" if unread else ""
        )
    for above in list(found.root.absolute().parents)[:4]:
        if above.name.casefold() == part.casefold():
            return f"{found.root} lies inside of {part}; did you mean --manual_dir={above}?"
    parts = {name.upper() for folder in short for name in folder.parts} & set(FPS)
    has = f"there is {', '.join(sorted(parts))}" if parts else f"put s1, s2 ... into a folder named {part}"
    missing = part if not parts else f"{part} with short clips"
    if any("micro" not in map(str.casefold, folder.parts) for folder in short):
        missing = f"micro above {short[0].relative_to(found.root)}"
    return f"{found.root} holds {len(short)} folders such as {short[0].name}, but no folder {missing}: {has}"


def _of_another_part(name: str, part: str) -> bool:
    """Return whether the name of a sheet or a folder names another part only."""
    words = re.split(r"[^A-Z]+", name.upper())
    return part not in words and any(other in words for other in FPS)


def _long(row: Row, where: str, part: str) -> list[Said]:
    """Return the micro-expressions of one row. Raises ValueError for a row that cannot be used."""
    clip = annotation.without_suffix(*annotation.required(row, "clip"))
    match = _CLIP.fullmatch(clip)
    if match is None:
        raise ValueError(f"{clip!r} is not named as a clip of SMIC, such as s1_ne_01")
    marks = annotation.marks(row, [name for name in LONG if name.startswith(("onset", "offset"))])
    clips = []
    for suffix in ("", "2", "3"):
        onset, offset = marks.get(f"onset{suffix}"), marks.get(f"offset{suffix}")
        # Sheets have zeros for missing values.
        if not onset and not offset:
            continue
        if not onset or not offset:
            raise ValueError(f"{clip}: no {'offset' if onset else 'onset'}{suffix} given")
        clips.append(
            Said(
                subject=f"s{int(match['subject']):02d}",
                clip=f"{clip}_{suffix}" if suffix else clip,
                emotion=_emotion(row, match),
                fps=FPS[part],
                where=where,
                folder=(clip,),
                onset=onset,
                offset=offset,
            )
        )
    if not clips:
        raise ValueError(f"no onset and offset given for {clip}")
    return clips


def _emotion(row: Row, match: re.Match[str]) -> str:
    written = row.cells.get("emotion", "").casefold()
    for tag, name in EMOTIONS.items():
        if written.startswith(tag):
            return name
    return EMOTIONS[match["tag"].casefold()]
