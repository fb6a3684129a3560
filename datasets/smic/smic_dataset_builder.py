"""SMIC: high speed (100 frames a second, 16 subjects, 164 clips), visual and near infrared (25, 8 subjects each)."""

import re
from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.sheets import Row
from stag_datasets.tree import Tree

NAME = "smic"
FPS = {"HS": 100.0, "VIS": 25.0, "NIR": 25.0}
EMOTIONS = {"ne": "negative", "po": "positive", "sur": "surprise"}
_CLIP = re.compile(r"s(?P<subject>\d+)_(?P<tag>ne|po|sur)_\d+", re.IGNORECASE)
# The sheet of the long clips; one recording holds up to three micro-expressions.
LONG = {
    **annotation.COLUMNS,
    "onset2": ("Onset2", "OnsetF2", "Onset2F"),
    "offset2": ("Offset2", "OffsetF2", "Offset2F"),
    "onset3": ("Onset3", "OnsetF3", "Onset3F"),
    "offset3": ("Offset3", "OffsetF3", "Offset3F"),
}
VERSIONS = {"HS": {"negative": 70, "positive": 51, "surprise": 43}}


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
        return scan(root, self.builder_config)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root`: short clips if there are any, else long ones."""
    contents = tree.walk(root)
    clips, problems, about = _short(contents, variant.part), [], {"layout": "short clips, classes by folder"}
    if not clips:
        sheet = annotation.sheet(
            contents,
            ("subject", "clip", "onset", "offset"),
            columns=LONG,
            best=lambda sheet: (variant.part in sheet.path.name.upper(), "2019" in sheet.path.name),
        )
        groups, problems = annotation.describe(sheet, lambda row, where: _long(row, where, variant.part))
        clips = [_padded(clip, contents) for group in groups for clip in group]
        about = {"layout": "long clips", "sheet": str(sheet.path)}
    if variant.part in VERSIONS:
        version = annotation.version(clips, {variant.part: VERSIONS[variant.part]})
        about["version"] = version
    return archive.gather_folders(NAME, clips, contents, cropped=variant.cropped, problems=problems, about=about)


def _short(found: Tree, part: str) -> list[Said]:
    """Return the clips of folders such as .../HS/s1/micro/negative/s1_ne_01, described by their names alone."""
    clips = {}
    for folder in sorted(found.images):
        match = _CLIP.fullmatch(folder.name)
        names = folder.relative_to(found.root.parent).parts
        folded = [name.casefold() for name in names]
        if match is None or "micro" not in folded or part.casefold() not in folded:
            continue
        # The recorded and the cropped folder of a clip end in the same names and count once.
        tail = names[folded.index(part.casefold()) :]
        clips[tail] = Said(
            subject=f"s{int(match['subject']):02d}",
            clip=folder.name,
            emotion=EMOTIONS[match["tag"].casefold()],
            fps=FPS[part],
            where=str(folder),
            folder=tail,
        )
    return list(clips.values())


def _long(row: Row, where: str, part: str) -> list[Said] | None:
    """Return the micro-expressions of one row; None for the free text below the table."""
    clip = row.cells["clip"]
    match = _CLIP.fullmatch(clip)
    if match is None:
        return None
    marks = annotation.marks(row, [name for name in LONG if name.startswith(("onset", "offset"))])
    clips = []
    for suffix in ("", "2", "3"):
        onset, offset = marks.get(f"onset{suffix}"), marks.get(f"offset{suffix}")
        # Sheets have zeros for missing values.
        if not onset or not offset:
            continue
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


def _padded(said: Said, found: Tree) -> Said:
    """Return the clip with the folder name that the archive has: subject numbers may be padded (s02_ne_01) or not."""
    (clip,) = said.folder
    rest = clip.partition("_")[2]
    for other in (clip, f"{said.subject}_{rest}", f"s{int(said.subject[1:])}_{rest}"):
        if found.find(other):
            return said._replace(folder=(other,))
    return said


def _emotion(row: Row, match: re.Match[str]) -> str:
    written = row.cells.get("emotion", "").casefold()
    for tag, name in EMOTIONS.items():
        if written.startswith(tag):
            return name
    return EMOTIONS[match["tag"].casefold()]
