"""DFME: 7526 clips of 656 subjects at 500, 300 and 200 frames a second; its CCAC2024 release has three parts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, sheets, tree, versions
from stag_datasets.annotation import Reading
from stag_datasets.archive import UNLABELLED, Archive, Said
from stag_datasets.building import Variant
from stag_datasets.errors import CorpusError
from stag_datasets.sheets import Row, Sheet
from stag_datasets.tree import Tree, plain

NAME = "dfme"
NEEDED = ("subject", "clip", "onset", "apex", "offset", "fps")
COLUMNS = {**annotation.titled(units="AU", emotion="Emotion"), "fps": ("Fps", "Frame rate")}
PARTS = ("train", "testA", "testB")
EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
VERSIONS = versions.KNOWN[NAME]
# The original naming: frames a second by part of the corpus, and the emotion in the name of the clip.
_CLIP = re.compile(r"sub(?P<subject>\d+)-.*-(?P<emotion>[a-z]+)", re.IGNORECASE)
_PART = re.compile(r"part_?[abcd](?![a-z])")
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
        return scan(root, self.variant)


def scan(root: Path, variant: Variant = building.DEFAULT) -> Archive:
    """Scan the archive below `root`: by its sheets if there are any, else by the names of the original folders."""
    contents = tree.walk(root)
    originals = list(_original(contents))
    if originals and not sheets.find(contents.tables, COLUMNS, NEEDED).sheets:
        about = {"layout": "original folders"}
        return archive.gather_folders(
            NAME, originals, contents, variant, levels=1, remarks=contents.remarks, about=about
        )
    try:
        readings, remarks = annotation.candidates(
            contents, NEEDED, _said, dataset=NAME, columns=COLUMNS, known=VERSIONS
        )
    except CorpusError as error:
        raise CorpusError(f"no folder micro/<emotion>/<clip> of the original release, and {error}") from error
    best: dict[str, Reading] = {}
    for reading in sorted(readings, key=_rank, reverse=True):
        part = reading.version or _part(reading.sheet)
        if part in best:
            remarks.append(
                f"sheet passed over: {reading.sheet} ({len(reading.clips)} clips), of {part} like {best[part].sheet}"
            )
        else:
            best[part] = reading
    about, clips = {"layout": "CCAC2024"}, []
    for part, reading in sorted(best.items()):
        labelled = any(clip.emotion != UNLABELLED for clip in reading.clips)
        version = versions.version(reading.emotions, VERSIONS) if labelled else "without labels"
        about[f"sheet of {part}"] = f"{reading.sheet.path} ({version})"
        clips += [clip._replace(part=part) for clip in reading.clips]
    return archive.gather_folders(
        NAME, clips, contents, variant, about=about,
        sheets=[reading.sheet.path for reading in best.values()],
        problems=[line for reading in best.values() for line in reading.problems],
        remarks=[*remarks, *(line for reading in best.values() for line in reading.remarks)],
    )  # fmt: skip


def _rank(reading: Reading) -> tuple[bool, int, int]:
    """Return the rank of a sheet among those of its part: known ones, then most labels, then most clips."""
    labelled = sum(clip.emotion != UNLABELLED for clip in reading.clips)
    return bool(reading.version), labelled, len(reading.clips)


def _part(sheet: Sheet) -> str:
    """Return the part of the corpus that a sheet belongs to, by its file name."""
    name = sheets.fold(sheet.path.stem)
    for part in PARTS:
        if part.casefold() in name:
            return part
    raise CorpusError(f"{sheet.path}: neither its counts nor its name tell whether it is of {', '.join(PARTS)}")


def _said(row: Row, where: str) -> Said:
    subject, clip = annotation.required(row, "subject", "clip")
    clip = annotation.without_suffix(clip)
    return Said(
        subject=f"sub{annotation.number(subject):04d}",
        clip=clip,
        emotion=annotation.emotion(row) if row.cells.get("emotion") else UNLABELLED,
        fps=annotation.rate(row.cells["fps"]),
        where=where,
        folder=(clip,),
        action_units=row.cells.get("units"),
        marked=True,
        **annotation.marks(row),
    )


def _original(found: Tree) -> Iterator[Said]:
    """Yield the clips of folders such as .../partA.../micro/<emotion>/<clip>; a cropped folder is the same clip."""
    clips: set[str] = set()
    for folder in sorted(found.images):
        match = _CLIP.fullmatch(folder.name)
        parts = [part.casefold() for part in folder.relative_to(found.root).parts]
        if match is None or not any(part.startswith("micro") for part in parts) or plain(folder.name) in clips:
            continue
        # The frame rate stands in the name of a folder that names its part, not in just any above it.
        marked = [part for part in parts if _PART.search(part)]
        fps = next((fps for mark, fps in _PART_FPS for part in marked if mark in part), None)
        if fps is None:
            raise CorpusError(
                f"{folder}: which part of DFME it lies in, and so its frame rate, cannot be told; keep the folders "
                "USTC_MEv4_partA_... and give the one that holds them as --manual_dir"
            )
        clips.add(plain(folder.name))
        yield Said(
            subject=f"sub{int(match['subject']):04d}",
            clip=folder.name,
            emotion=match["emotion"].casefold(),
            fps=fps,
            where=str(folder),
            folder=(folder.name,),
        )
