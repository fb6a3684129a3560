"""Match the clips of a sheet with their frames on disk, and collect all problems and irregularities."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from stag_datasets import numbering, pictures, releases
from stag_datasets.errors import CorpusError
from stag_datasets.numbering import Frames
from stag_datasets.tree import Place, Tree

UNLABELLED = "unknown"  # emotion of clips whose annotation names none
AHEAD = 4  # clips that are read in advance; limits memory
LONG_S = 1.5  # a micro-expression that lasts longer is remarked upon
TOO_LONG_S = 5.0  # and one that lasts longer than this is refused, unless told otherwise


class MissingError(CorpusError):
    """The frames of a clip are missing."""


class Said(NamedTuple):
    """A clip as annotated. Onset, apex, offset are frame numbers as in the names of the frames."""

    subject: str  # as the corpus writes it, always in the same form
    clip: str
    emotion: str
    fps: float
    where: str  # sheet and row, or folder, for messages
    folder: tuple[str | int, ...]  # the last folder names of the path to its frames; an int: a name with that number
    action_units: str | None = None  # None where the corpus has none
    onset: int | None = None
    apex: int | None = None
    offset: int | None = None
    objective: str = ""  # objective class, I to VII
    part: str = ""  # of the corpus, if its owners divide it (train, testA ...)
    group: str = ""  # clips that no split may separate, if larger than the subject
    repairs: tuple[str, ...] = ()  # corrections of what the sheet says
    written: Mapping[str, int | None] | None = None  # what the sheet has in the corrected columns
    row_known: bool = False  # the erratum names values of the row, and the row has them
    marked: bool = False  # by a sheet with onset and offset, so that missing ones are remarked upon
    dataset: str = ""  # set by `gather`


class Entry(NamedTuple):
    """A clip found on disk. Onset, apex, offset are indices into its frames, -1 if not known."""

    said: Said
    folder: Path
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    onset: int
    apex: int
    offset: int
    video: bool = False  # the single file is a film; indices count its frames, and `numbers` is empty

    @property
    def files(self) -> list[Path]:
        """The files of its frames, or its film."""
        return [self.folder / name for name in self.names]


class Archive(NamedTuple):
    """Everything found below one manual_dir."""

    dataset: str
    entries: list[Entry]
    problems: list[str]  # each makes one clip or more unusable
    remarks: list[str]  # irregularities of clips that stay usable
    repairs: list[str]  # known errata that were corrected
    about: dict[str, str]  # which sheet, which version of it ...
    missing: list[Said]  # clips without frames; each is also one of the problems
    sheets: list[Path]  # the annotation that was read


def gather_folders(
    dataset: str,
    clips: Iterable[Said],
    tree: Tree,
    variant: Any,
    *,
    official: Sequence[str] = (),
    levels: int = 0,
    places: Callable[[Said], list[Place]] | None = None,
    all_frames: bool = False,
    sheets: Iterable[Path] = (),
    problems: Iterable[str] = (),
    remarks: Iterable[str] = (),
    about: Mapping[str, str],
) -> Archive:
    """Return the described clips, each with the frames of its folder in the tree.

    Args:
      variant: a `building.Variant`: whether crops are wanted, which release, and how long a clip may be.
      official: names of the owners' releases of frames, which are preferred to others, in order.
      levels: folders between the name of a release and the folders that clips name.
      places: the folders of a clip, where their names are not those in `Said.folder`.
      all_frames: a folder with other frames than annotated holds the clip alone, so all of them are its frames.
      problems: those found before.
      remarks: those found before.

    Raises:
      CorpusError: no frames of the kind asked for, or several folders that hold them.
    """
    result = Archive(dataset, [], list(problems), list(remarks), [], dict(about), [], list(sheets))
    unique = _unique(dataset, clips, result)
    found = [places(clip) if places else tree.find(*clip.folder, levels=levels) for clip in unique]
    chosen = releases.choose(found, tree, variant, official, result.about)
    if unique and not any(chosen):
        result.missing.extend(unique)
        result.problems.append(releases.no_frames(unique, folder_text(unique[0]), tree))
        return result
    whole: dict[str, list[tuple[Said, Frames]]] = {}
    for clip, choice, options in zip(unique, chosen, found, strict=True):
        if choice is None:
            result.missing.append(clip)
            result.problems.append(f"{name(clip)}: {_no_folder(clip, options, tree)}")
            continue
        try:
            frames = numbering.read(choice.folder, tree)
        except CorpusError as error:
            result.problems.append(f"{name(clip)}: {error}")
            continue
        whole.setdefault(choice.release, []).append((_with_valid_errata(clip, frames, result.remarks), frames))
    if result.missing and (unread := tree.unread()):
        result.remarks.append(f"not read: {unread}")
    for release, clips_of_release in whole.items():
        _cut_all(release, clips_of_release, result, variant.longest_s, all_frames=all_frames)
    return finish(result)


def gather(
    dataset: str,
    clips: Iterable[Said],
    find: Callable[[Said, list[str]], Entry | Frames],
    result: Archive,
    variant: Any,
) -> Archive:
    """Return the described clips, each with the film or the frames that `find` returns.

    `find` adds irregularities to the list, and raises CorpusError if there are none.
    """
    folders: list[tuple[Said, Frames]] = []
    for clip in _unique(dataset, clips, result):
        remarks: list[str] = []
        try:
            found = find(clip, remarks)
            if isinstance(found, Frames):
                folders.append((clip, found))
            else:
                result.entries.append(found)
        except CorpusError as error:
            result.problems.append(f"{name(clip)}: {error}")
        result.remarks.extend(f"{name(clip)}: {remark}" for remark in remarks)
    _cut_all("", folders, result, variant.longest_s)
    return finish(result)


def finish(result: Archive) -> Archive:
    """Add the numbers of clips and apexes to what is told about the archive."""
    if not result.entries and not result.problems:
        result.problems.append(f"no clip of {result.dataset} is listed")
    result.about["clips"] = str(len(result.entries))
    result.about["apex"] = f"{sum(entry.apex >= 0 for entry in result.entries)} of {len(result.entries)} known"
    return result


def name(said: Said) -> str:
    """Return the id of a clip."""
    return f"{said.dataset}/{said.subject}/{said.clip}"


def folder_text(said: Said) -> str:
    """Return the folder of a clip for messages."""
    return "/".join(said.subject if isinstance(part, int) else part for part in said.folder)


def read_all(archive: Archive, workers: int) -> Iterator[tuple[Entry, list[bytes] | CorpusError]]:
    """Yield the encoded frames of each clip in order, or the error of reading them; few clips wait in memory."""
    with ThreadPoolExecutor(workers) as pool:
        pending = []
        for entry in archive.entries:
            pending.append((entry, pool.submit(_frames, entry)))
            if len(pending) >= workers + AHEAD:
                first, future = pending.pop(0)
                yield first, future.result()
        for entry, future in pending:
            yield entry, future.result()


def _unique(dataset: str, clips: Iterable[Said], result: Archive) -> list[Said]:
    """Return the clips, each once; one that is listed twice is a problem."""
    first_listed: dict[tuple[str, str], Said] = {}
    for clip in clips:
        clip = clip._replace(dataset=dataset)
        first = first_listed.setdefault((clip.subject, clip.clip), clip)
        if first is not clip:
            result.problems.append(f"{name(clip)}: listed twice, {first.where} and {clip.where}")
    return list(first_listed.values())


def _no_folder(clip: Said, options: list[Place], tree: Tree) -> str:
    path = folder_text(clip)
    if options:
        releases_text = ", ".join(sorted({place.release for place in options}))
        return f"no folder {path} in the frames that are taken, only in {releases_text} ({clip.where})"
    return f"no folder {path} with pictures below {tree.root} ({clip.where})"


def _with_valid_errata(clip: Said, frames: Frames, remarks: list[str]) -> Said:
    """Return the clip without its corrections, where only what is written fits the frames."""
    if clip.written is None or numbering.fits(clip, frames):
        return clip
    written = clip._replace(**clip.written, repairs=(), written=None)
    if clip.row_known and not numbering.fits(written, frames):
        return clip
    remarks.append(f"{name(clip)}: known erratum {', '.join(clip.repairs)} not applied: its frames are not there")
    return written


def _cut_all(
    release: str,
    clips: Sequence[tuple[Said, Frames]],
    result: Archive,
    longest_s: float,
    *,
    all_frames: bool = False,
) -> None:
    """Cut the clips of a release from onset to offset, whose numbering is decided for all of them together."""
    renumbered = numbering.renumbered(clips)
    if renumbered and release:
        result.about["numbering"] = f"{release}: frames are counted anew in each folder, and begin with the onset"
    for clip, frames in clips:
        remarks: list[str] = []
        try:
            entry = _cut(clip, frames, remarks, renumbered=renumbered, all_frames=all_frames)
            marked = numbering.asked(entry.said)
            count = marked or entry.numbers[-1] - entry.numbers[0] + 1
            # A user's own recording without marks is what it is.
            require_short(clip, count, clip.fps, longest_s if marked or release else math.inf, remarks)
        except MissingError as error:
            result.missing.append(clip)
            result.problems.append(f"{name(clip)}: {error}")
        except CorpusError as error:
            result.problems.append(f"{name(clip)}: {error}")
        else:
            result.entries.append(entry)
            result.repairs.extend(f"{name(clip)}: {repair}" for repair in clip.repairs)
        result.remarks.extend(f"{name(clip)}: {remark}" for remark in remarks)


def _cut(clip: Said, frames: Frames, remarks: list[str], *, renumbered: bool, all_frames: bool) -> Entry:
    """Return the clip from onset to offset from the pictures of a folder.

    Raises:
      CorpusError: marks out of order, or frames that are numbered otherwise than those of other clips.
      MissingError: none of the frames asked for.
    """
    if clip.onset is not None and clip.offset is not None and clip.onset > clip.offset:
        raise CorpusError(f"onset {clip.onset} comes after offset {clip.offset} ({clip.where})")
    if clip.marked:
        empty = [mark for mark in ("onset", "offset") if getattr(clip, mark) is None]
        if empty:
            remarks.append(f"no {' and no '.join(empty)} given: the clip goes to the end of its frames ({clip.where})")
    count = numbering.asked(clip)
    if all_frames and not numbering.overlaps(clip, frames) and len(frames.numbers) != count:
        remarks.append(f"its folder has other frames than annotated, so all {len(frames.numbers)} are taken")
        clip = clip._replace(onset=None, apex=None, offset=None)
    kind = numbering.kind(clip, frames)
    if kind == (numbering.RECORDED if renumbered else numbering.RENUMBERED):
        here, elsewhere = ("as recorded", "anew") if renumbered else ("anew", "as recorded")
        raise CorpusError(
            f"its frames {frames.numbers[0]} to {frames.numbers[-1]} are counted {here}, those of most other clips "
            f"{elsewhere}; mixed releases cannot be told apart ({clip.where})"
        )
    first_number, last_number = frames.numbers[0], frames.numbers[-1]
    shift = 0
    moved = renumbered or (count is not None and not numbering.overlaps(clip, frames) and len(frames.numbers) == count)
    if moved and clip.onset is not None:
        shift = first_number - clip.onset
        if not renumbered:
            remarks.append(f"frames {first_number} to {last_number} are taken for {clip.onset} to {clip.offset}")
        elif count is not None and len(frames.numbers) != count:
            remarks.append(f"{len(frames.numbers)} frames for the {count} from onset to offset")
    first = first_number if clip.onset is None else clip.onset + shift
    last = last_number if clip.offset is None else clip.offset + shift
    chosen = [index for index, number in enumerate(frames.numbers) if first <= number <= last]
    if not chosen:
        raise MissingError(
            f"frames {first} to {last} are asked for ({clip.where}), but {frames.folder} has {first_number} to "
            f"{last_number}"
        )
    numbers = tuple(frames.numbers[index] for index in chosen)
    if (missing := last - first + 1 - len(numbers)) and not renumbered:
        # The first gap between numbers. The sheet's own numbers may be arbitrarily large, so do not count up to them.
        gap = next((first + index for index, n in enumerate(numbers) if n != first + index), numbers[-1] + 1)
        more = f" and {missing - 1} more" if missing > 1 else ""
        remarks.append(f"frame {gap}{more} missing in {frames.folder}")
    return Entry(
        clip,
        frames.folder,
        tuple(frames.names[index] for index in chosen),
        numbers,
        onset=0 if clip.onset is not None else -1,
        apex=_apex(clip, numbers, shift, remarks),
        offset=len(numbers) - 1 if clip.offset is not None else -1,
    )


def require_short(clip: Said, count: int, fps: float, longest_s: float, remarks: list[str]) -> None:
    """Remark upon an expression of so many frames that lasts long. Raises CorpusError if it is too long to be one."""
    seconds = count / fps
    if seconds > longest_s:
        raise CorpusError(
            f"{count} frames at {fps:g} a second are {seconds:.1f} s, too long for a micro-expression: a slip in "
            f"the sheet? --longest_s={seconds + 1:.0f} takes it ({clip.where})"
        )
    if seconds > LONG_S:
        remarks.append(f"lasts {seconds:.1f} s, long for a micro-expression ({clip.where})")


def _apex(clip: Said, numbers: tuple[int, ...], shift: int, remarks: list[str]) -> int:
    if clip.apex is None:
        return -1
    apex = clip.apex + shift
    if not numbers[0] <= apex <= numbers[-1]:
        remarks.append(f"apex {clip.apex} lies outside of the clip and counts as missing ({clip.where})")
        return -1
    return min(range(len(numbers)), key=lambda index: abs(numbers[index] - apex))


def _frames(entry: Entry) -> list[bytes] | CorpusError:
    frames, sizes = [], {}
    try:
        if entry.video:
            return [_film(entry.files[0])]
        for path in entry.files:
            data, size = pictures.picture(path)
            frames.append(data)
            sizes.setdefault(size, path)
    except CorpusError as error:
        return error
    if len(sizes) > 1:
        (first, _), (second, path) = list(sizes.items())[:2]
        return CorpusError(f"{path} is of {second[0]}x{second[1]} pixels, frames before it of {first[0]}x{first[1]}")
    return frames


def _film(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
