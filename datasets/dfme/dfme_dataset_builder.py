"""DFME: 7526 clips of 656 subjects at 500, 300 and 200 frames a second; its CCAC2024 release has three parts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, sheets, tree
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.corpus import CorpusError
from stag_datasets.sheets import Row, Sheet
from stag_datasets.tree import Tree

NAME = "dfme"
NEEDED = ("subject", "clip", "onset", "apex", "offset", "fps")
COLUMNS = {**annotation.COLUMNS, "fps": ("Fps", "Frame rate")}
PARTS = ("train", "testA", "testB")
EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
VERSIONS = {
    part: dict(zip(EMOTIONS, counts, strict=True))
    for part, counts in {
        "train": (161, 100, 548, 265, 206, 278, 298),
        "testA": (39, 34, 129, 62, 63, 46, 101),
        "testB": (41, 37, 58, 38, 42, 35, 48),
    }.items()
}
UNLABELLED = "unknown"  # emotion of clips whose sheet has no labels
# The original naming: frames a second by part of the corpus, and the emotion in the name of the clip.
_CLIP = re.compile(r"sub(?P<subject>\d+)-.*-(?P<emotion>[a-z]+)", re.IGNORECASE)
_PART_FPS = (("200fps", 200.0), ("500fps", 500.0), ("parta", 500.0), ("partb", 300.0), ("partc", 200.0))


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset, with action units and emotions where the release has them."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [building.DEFAULT]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for DFME at https://mea-lab-421.github.io. Give as manual_dir a folder that holds the CCAC2024 release "
        "(DFME_train/sub0003_01/00109.png ..., with the sheets of train, testA, testB), or the original one "
        "(USTC_MEv4_partA_.../micro/<emotion>/<clip>)."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if it has neither sheets nor the original folders."""
        return scan(root)


def scan(root: Path) -> Archive:
    """Scan the archive below `root`: by its sheets if there are any, else by the names of the original folders."""
    contents = tree.walk(root)
    tables = sheets.find(contents.tables, COLUMNS, NEEDED)
    if not tables:
        clips = list(_original(contents))
        if not clips:
            raise CorpusError(f"neither a sheet of DFME nor a folder micro/<emotion>/<clip> below {root}")
        return archive.gather_folders(NAME, clips, contents, about={"layout": "original folders"})
    clips, problems, about = [], [], {"layout": "CCAC2024"}
    for sheet in tables:
        rows, unreadable = annotation.describe(sheet, _said)
        version = "without labels"
        if any(clip.emotion != UNLABELLED for clip in rows):
            version = annotation.version(rows, VERSIONS)
        # Its counts tell the part; without labels, or with unknown counts, its file name does.
        part = version if version in VERSIONS else _part(sheet)
        about[f"sheet of {part}"] = f"{sheet.path} ({version})"
        clips += [clip._replace(part=part) for clip in rows]
        problems += unreadable
    return archive.gather_folders(NAME, clips, contents, problems=problems, about=about)


def _part(sheet: Sheet) -> str:
    """Return the part of the corpus that a sheet belongs to, by its file name."""
    name = sheets.fold(sheet.path.stem)
    for part in PARTS:
        if part.casefold() in name:
            return part
    raise CorpusError(f"{sheet.path}: neither its counts nor its name tell whether it is of {', '.join(PARTS)}")


def _said(row: Row, where: str) -> Said:
    subject, clip = annotation.required(row, "subject", "clip")
    fps = sheets.integer(row.cells["fps"])
    if not fps:
        raise ValueError(f"{clip}: no frame rate given")
    return Said(
        subject=f"sub{annotation.number(subject):04d}",
        clip=clip,
        emotion=row.cells.get("emotion") or UNLABELLED,
        fps=float(fps),
        where=where,
        folder=(clip,),
        action_units=row.cells.get("units"),
        **annotation.marks(row),
    )


def _original(found: Tree) -> Iterator[Said]:
    for folder in sorted(found.images):
        match = _CLIP.fullmatch(folder.name)
        path = str(folder).casefold()
        if match is None or "micro" not in [part.casefold() for part in folder.parts]:
            continue
        fps = next((fps for mark, fps in _PART_FPS if mark in path), None)
        if fps is None:
            raise CorpusError(f"{folder}: which part of DFME it lies in, and so its frame rate, cannot be told")
        yield Said(
            subject=f"sub{int(match['subject']):04d}",
            clip=folder.name,
            emotion=match["emotion"].casefold(),
            fps=fps,
            where=str(folder),
            folder=folder.parts[-2:],
        )
