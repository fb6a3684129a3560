"""CASME II: 200 frames a second, 26 subjects, 255 clips."""

from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.sheets import Row, Sheet

NAME, FPS = "casme2", 200.0
NEEDED = ("subject", "clip", "onset", "apex", "offset", "emotion")
VERSIONS = {
    "20190701": {
        "others": 99, "disgust": 63, "happiness": 32, "surprise": 28, "repression": 27, "sadness": 4, "fear": 2,
    },
    "20140508": {
        "others": 99, "disgust": 63, "happiness": 32, "repression": 27, "surprise": 25, "sadness": 7, "fear": 2,
    },
}  # fmt: skip
ERRATA: annotation.Errata = {("sub07", "EP06_01"): {"offset": (None, 91)}}


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset, with action units, emotions and objective classes."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [building.DEFAULT, building.AS_ANNOTATED, building.CROPPED]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for CASME II at http://casme.psych.ac.cn/casme/e2. Put the coding sheet (CASME2-coding-20190701.xlsx or "
        "another of its versions) and the unpacked folder of frames (CASME2_RAW_selected, CASME2-RAW or Cropped) into "
        "one folder and give it as manual_dir."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if no sheet can be read."""
        return scan(root, self.builder_config)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root` as `variant` says."""
    contents = tree.walk(root)
    sheet = annotation.sheet(contents, NEEDED, best=_rank)
    clips, problems = annotation.describe(sheet, _said)
    if variant.errata:
        clips = [annotation.amend(clip, ERRATA) for clip in clips]
    # Some releases of the frames have an f at the end of a clip's name, others do not.
    clips = [clip if contents.find(*clip.folder) else _other_name(clip, contents) for clip in clips]
    about = {"sheet": str(sheet.path), "version": annotation.version(clips, VERSIONS)}
    return archive.gather_folders(NAME, clips, contents, cropped=variant.cropped, problems=problems, about=about)


def _rank(sheet: Sheet) -> tuple[bool, str]:
    """Return the rank of a sheet: known versions before unknown ones, newer before older."""
    version = annotation.version(annotation.describe(sheet, _said)[0], VERSIONS)
    return (version in VERSIONS, version if version in VERSIONS else "")


def _said(row: Row, where: str) -> Said:
    return annotation.clip(row, where, fps=FPS, subject="sub{:02d}")


def _other_name(said: Said, found: tree.Tree) -> Said:
    subject, clip = said.folder
    other = (subject, clip.removesuffix("f") if clip.endswith("f") else f"{clip}f")
    return said._replace(folder=other) if found.find(*other) else said
