"""Your own corpus, from one CSV."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import tensorflow_datasets as tfds

from stag_datasets import annotation, archive, building, corpus, films, levels, numbering, tree
from stag_datasets.archive import UNLABELLED, Archive, Entry, Said
from stag_datasets.building import Variant
from stag_datasets.errors import CorpusError
from stag_datasets.numbering import Frames
from stag_datasets.sheets import Row
from stag_datasets.tree import Tree

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
MANY = 20  # emotions that a corpus hardly has


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
        return scan(root, self.variant)

    @staticmethod
    def record(entry: Entry, frames: list[bytes]) -> dict[str, Any]:
        """Return the record of a clip; a film is stored as its unchanged file."""
        if entry.video:
            return {**building.to_record(entry, []), "video": frames[0], "suffix": entry.files[0].suffix}
        return {**building.to_record(entry, frames), "video": "", "suffix": ""}


def scan(root: Path, variant: Variant = building.DEFAULT) -> Archive:
    """Scan the clips listed by the table in `root`. Paths are absolute, or relative to `root`."""
    contents = Tree(root, levels.tables(root), {}, {}, [], {}, Counter())
    reading, remarks = annotation.read(contents, NEEDED, _said, dataset=NAME, columns=COLUMNS)
    findings = annotation.findings(reading, [*remarks, *_oddities(reading.clips)])
    result = Archive(NAME, [], findings["problems"], findings["remarks"], [], findings["about"], [], findings["sheets"])
    looked: dict[Path, films.Film] = {}

    def find(said: Said, remarks: list[str]) -> Entry | Frames:
        path = _resolved(root, str(said.folder[0]), remarks)
        if path.is_dir():
            names = [file.name for file in path.iterdir() if file.suffix.lower() in tree.IMAGES and file.name[0] != "."]
            if not names:
                raise CorpusError(f"{path} holds no picture ({said.where})")
            if said.fps <= 0:
                raise CorpusError(f"no fps given, which a folder of frames needs ({said.where})")
            return numbering.of(path, names)
        if not path.is_file():
            raise CorpusError(f"{path} does not exist ({said.where})")
        if path not in looked:
            looked[path] = films.look(path)
        film = looked[path]
        if fps := said.fps or film.fps:
            count = numbering.asked(said)
            limit = variant.longest_s if count else math.inf  # a recording without marks is what it is
            archive.require_short(said, count or film.frames, fps, limit, remarks)
        return _film(said, path, film, remarks)

    result = archive.gather(NAME, reading.clips, find, result, variant)
    if looked:
        result.about["films"] = (
            f"{len(looked)}; their frames were counted and the first and last ones decoded, those between are read "
            "when features are made"
        )
    return result


def _film(said: Said, path: Path, film: films.Film, remarks: list[str]) -> Entry:
    """Return the clip of a film. Raises CorpusError if a mark or the frame rate does not fit it."""
    if not said.fps and not film.fps:
        raise CorpusError(f"{path} does not say its frame rate: give fps ({said.where})")
    marks = {"onset": said.onset, "apex": said.apex, "offset": said.offset}
    for mark, number in marks.items():
        if number is not None and number >= film.frames:
            raise CorpusError(f"{mark} is frame {number} of a film that has {film.frames}, from 0 ({said.where})")
    first = said.onset or 0
    last = film.frames - 1 if said.offset is None else said.offset
    if first > last:
        raise CorpusError(f"onset {first} comes after offset {last} ({said.where})")
    if (said.onset is None) != (said.offset is None):
        absent = "onset" if said.onset is None else "offset"
        remarks.append(f"no {absent} given: the clip goes to the end of its film ({said.where})")
    if said.apex is not None and not first <= said.apex <= last:
        remarks.append(f"apex {said.apex} lies outside of the clip and counts as missing ({said.where})")
        marks["apex"] = None
    indices = (-1 if mark is None else mark for mark in marks.values())
    return Entry(said, path.parent, (path.name,), (), *indices, video=True)


def _resolved(root: Path, written: str, remarks: list[str]) -> Path:
    """Return the path of a cell. Paths of Windows are looked for below `root` by their last names."""
    path = root / written
    if "\\" not in written or path.exists():
        return path
    parts = PureWindowsPath(written).parts
    if not PureWindowsPath(written).is_absolute():
        return root.joinpath(*parts)
    for first in range(1, len(parts)):
        if (path := root.joinpath(*parts[first:])).exists():
            remarks.append(f"{written} is taken for {path.relative_to(root)}")
            return path
    raise CorpusError(f"{written} is a path of Windows, and nothing of its name lies below {root}; write relative ones")


def _oddities(clips: list[Said]) -> Iterator[str]:
    """Yield what is odd about the table as a whole."""
    subjects_of_path, spellings = defaultdict(set), defaultdict(set)
    for clip in clips:
        subjects_of_path[clip.folder[0]].add(clip.subject)
        spellings[tree.plain(clip.subject)].add(clip.subject)
    for path, subjects in subjects_of_path.items():
        if len(subjects) > 1:
            yield f"{path} is a film of several subjects: {', '.join(sorted(subjects))}"
    for names in spellings.values():
        if len(names) > 1:
            yield f"subjects {', '.join(sorted(names))} count as different ones"
    emotions = Counter(clip.emotion for clip in clips)
    subjects = {clip.subject for clip in clips}
    if len(emotions) == 1:
        yield f"all {len(clips)} clips are of one emotion, {next(iter(emotions))}: no classes can be told apart"
    if len(emotions) > MANY:
        names = ", ".join(name for name, _ in emotions.most_common(5))
        yield f"there are {len(emotions)} emotions ({names} ...): is the right column named emotion?"
    if len(subjects) == 1:
        yield f"all {len(clips)} clips are of one subject: nobody can be held out"
    if all(subject.isdigit() for subject in subjects):
        alone = ", one for each clip: is the right column named subject?" if len(subjects) == len(clips) > MANY else ""
        yield f"the {len(subjects)} subjects are numbers{alone}"


def _said(row: Row, where: str) -> Said:
    subject, path = annotation.required(row, "subject", "path")
    fps = row.cells.get("fps", "")
    return Said(
        subject=re.sub(r"(?<=\d)\.0+$", "", subject),
        clip=row.cells.get("clip") or PureWindowsPath(path).stem,
        emotion=row.cells.get("emotion") or UNLABELLED,
        fps=annotation.rate(fps) if fps else 0.0,
        where=where,
        folder=(path,),
        # An empty cell means not annotated; 0 means that no unit was seen.
        action_units=row.cells.get("units") or None,
        objective=annotation.roman(row.cells.get("objective", "")),
        part=row.cells.get("part", ""),
        group=row.cells.get("group", ""),
        **annotation.marks(row),
    )
