"""Your own corpus, from one CSV."""

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from stag_datasets import annotation, archive, building, corpus, sheets, tree
from stag_datasets.archive import Archive, Entry, Said
from stag_datasets.corpus import CorpusError
from stag_datasets.sheets import Row

NAME = "manifest"
COLUMNS = {
    "subject": ("subject",),
    "path": ("path",),
    "clip": ("clip",),
    "emotion": ("emotion",),
    "fps": ("fps",),
    "onset": ("onset",),
    "apex": ("apex",),
    "offset": ("offset",),
    "units": ("action_units", "aus", "au"),
    "objective": ("objective",),
    "group": ("group",),
    "part": ("part",),
}
NEEDED = ("subject", "path")
UNLABELLED = "unknown"


class Builder(building.ArchiveBuilder):
    """Clips from folders of frames or from films, with what the CSV says of them."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Give as manual_dir the folder that holds your CSV, with the columns subject and path at least; "
        "datasets/manifest/README.md says what else it may hold."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        film = {"video": tfds.features.Text(), "suffix": tfds.features.Text()}
        features = tfds.features.FeaturesDict({**corpus.frame_features(), **film})
        return self.dataset_info_from_configs(features=features, metadata=tfds.core.MetadataDict())

    def scan(self, root: Path) -> Archive:
        """Scan the corpus below `root`. Raises CorpusError if no CSV can be read."""
        return scan(root)

    @staticmethod
    def record(entry: Entry, frames: list[bytes]) -> dict[str, Any]:
        """Return the record of a clip; a film is stored as its unchanged file."""
        if entry.video:
            return {**building.to_record(entry, []), "video": frames[0], "suffix": entry.files[0].suffix}
        return {**building.to_record(entry, frames), "video": "", "suffix": ""}


def scan(root: Path) -> Archive:
    """Scan the clips listed by the table in `root`. Paths are absolute, or relative to `root`."""
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() in sheets.EXCEL + sheets.TEXT)
    sheet = annotation.sheet(tree.Tree(root, tables, {}, {}, []), NEEDED, columns=COLUMNS)
    clips, problems = annotation.describe(sheet, _said)

    def find(said: Said, remarks: list[str]) -> Entry:
        path = root / said.folder[0]
        if path.is_dir():
            pictures = [file for file in path.iterdir() if file.suffix.lower() in tree.IMAGES]
            if not pictures:
                raise CorpusError(f"{path} holds no picture ({said.where})")
            if said.fps <= 0:
                raise CorpusError(f"no fps given, which a folder of frames needs ({said.where})")
            return archive.cut(said, path, pictures, remarks)
        if not path.is_file():
            raise CorpusError(f"{path} does not exist ({said.where})")
        marks = (-1 if mark is None else mark for mark in (said.onset, said.apex, said.offset))
        return Entry(said, (path,), (), *marks, video=True)

    return archive.gather(NAME, clips, find, problems=problems, about={"sheet": str(sheet.path)})


def _said(row: Row, where: str) -> Said:
    subject, path = annotation.required(row, "subject", "path")
    fps = row.cells.get("fps", "")
    return Said(
        subject=subject,
        clip=row.cells.get("clip") or Path(path).stem,
        emotion=row.cells.get("emotion") or UNLABELLED,
        fps=float(fps) if fps else 0.0,
        where=where,
        folder=(path,),
        # An empty cell means not annotated; 0 means that no unit was seen.
        action_units=row.cells.get("units") or None,
        objective=annotation.roman(row.cells.get("objective", "")),
        part=row.cells.get("part", ""),
        group=row.cells.get("group", ""),
        **annotation.marks(row),
    )
