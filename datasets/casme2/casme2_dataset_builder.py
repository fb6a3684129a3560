"""CASME II: 200 frames a second, 26 subjects, 255 clips."""

from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree, versions
from stag_datasets.annotation import Erratum
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.sheets import Row

NAME, FPS = "casme2", 200.0
NEEDED = ("subject", "clip", "onset", "apex", "offset", "emotion")
COLUMNS = annotation.titled()
VERSIONS = versions.KNOWN[NAME]
ERRATA = {("sub07", "EP06_01"): Erratum({}, {"offset": 91})}
RELEASES = ("CASME2_RAW_selected", "CASME2-RAW", "CASME2_RAW", "Cropped", "Cropped-updated")


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
        return scan(root, self.variant)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root` as `variant` says."""
    contents = tree.walk(root)
    reading, remarks = annotation.read(contents, NEEDED, _said, dataset=NAME, columns=COLUMNS, known=VERSIONS)
    clips = annotation.amend(reading.clips, ERRATA if variant.errata else {})
    # Some releases of the frames have an f at the end of a clip's name, others do not.
    clips = [clip if contents.find(*clip.folder) else _other_name(clip, contents) for clip in clips]
    return archive.gather_folders(
        NAME, clips, contents, variant, official=RELEASES, **annotation.findings(reading, remarks, VERSIONS)
    )


def _said(row: Row, where: str) -> Said:
    return annotation.clip(row, where, fps=FPS, subject="sub{:02d}")


def _other_name(said: Said, found: tree.Tree) -> Said:
    subject, clip = said.folder
    other = (subject, clip.removesuffix("f") if clip.endswith("f") else f"{clip}f")
    return said._replace(folder=other) if found.find(*other) else said
