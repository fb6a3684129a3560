"""Match the clips of a sheet with their frames on disk, and collect all problems and irregularities."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from stag_datasets import tree as tree_lib
from stag_datasets.corpus import CorpusError
from stag_datasets.tree import Tree

AHEAD = 4  # clips that are read in advance; limits memory


class MissingError(CorpusError):
    """The frames of a clip are missing."""


class Said(NamedTuple):
    """A clip as annotated. Onset, apex, offset are frame numbers as in the names of the frames."""

    subject: str  # as the corpus writes it, always in the same form
    clip: str
    emotion: str
    fps: float
    where: str  # sheet and row, or folder, for messages
    folder: tuple[str, ...]  # the last folder names of the path to its frames
    action_units: str | None = None  # None where the corpus has none
    onset: int | None = None
    apex: int | None = None
    offset: int | None = None
    objective: str = ""  # objective class, I to VII
    part: str = ""  # of the corpus, if its owners divide it (train, testA ...)
    group: str = ""  # clips that no split may separate, if larger than the subject
    repairs: tuple[str, ...] = ()  # corrections of what the sheet says
    dataset: str = ""  # set by `gather`


class Entry(NamedTuple):
    """A clip found on disk. Onset, apex, offset are indices into its frames, -1 if not known."""

    said: Said
    files: tuple[Path, ...]
    numbers: tuple[int, ...]
    onset: int
    apex: int
    offset: int
    video: bool = False  # the single file is a film; indices count its frames, and `numbers` is empty


class Archive(NamedTuple):
    """Everything found below one manual_dir."""

    dataset: str
    entries: list[Entry]
    problems: list[str]  # each makes one clip or more unusable
    remarks: list[str]  # irregularities of clips that stay usable
    repairs: list[str]  # known errata that were corrected
    about: dict[str, str]  # which sheet, which version of it ...
    missing: list[Said]  # clips without frames; each is also one of the problems


# Returns the clip with its frames, adds irregularities to the list, raises CorpusError if there are no frames.
Finder = Callable[[Said, list[str]], Entry]


def gather(
    dataset: str, said: Iterable[Said], find: Finder, *, problems: Iterable[str] = (), about: Mapping[str, str]
) -> Archive:
    """Return the described clips with their frames; `problems` are those found before."""
    result = Archive(dataset, [], list(problems), [], [], dict(about), [])
    first_listed: dict[tuple[str, str], str] = {}
    for described in said:
        described = described._replace(dataset=dataset)
        clip_id = name(described)
        if (described.subject, described.clip) in first_listed:
            result.problems.append(
                f"{clip_id}: listed twice, {first_listed[described.subject, described.clip]} and {described.where}"
            )
            continue
        first_listed[described.subject, described.clip] = described.where
        result.repairs.extend(f"{clip_id}: {repair}" for repair in described.repairs)
        remarks: list[str] = []
        try:
            result.entries.append(find(described, remarks))
        except MissingError as error:
            result.missing.append(described)
            result.problems.append(f"{clip_id}: {error}")
        except CorpusError as error:
            result.problems.append(f"{clip_id}: {error}")
        result.remarks.extend(f"{clip_id}: {remark}" for remark in remarks)
    if not result.entries and not result.problems:
        result.problems.append(f"no clip of {dataset} is listed")
    result.about["clips"] = str(len(result.entries))
    return result


def gather_folders(
    dataset: str,
    said: Iterable[Said],
    tree: Tree,
    *,
    cropped: bool = False,
    problems: Iterable[str] = (),
    about: Mapping[str, str],
) -> Archive:
    """Do the same for clips with one folder each in the tree; of several, take the recorded or the `cropped` one."""
    prefer = tree_lib.cropped_first if cropped else tree_lib.raw_first

    def find(said: Said, remarks: list[str]) -> Entry:
        folders = sorted(tree.find(*said.folder), key=prefer)
        if not folders:
            raise MissingError(f"no folder {'/'.join(said.folder)} with pictures below {tree.root} ({said.where})")
        return cut(said, folders[0], tree.images[folders[0]], remarks)

    return gather(dataset, said, find, problems=[*tree.problems, *problems], about=about)


def cut(said: Said, folder: Path, images: Iterable[Path], remarks: list[str]) -> Entry:
    """Return the clip from onset to offset from the pictures of a folder, as a `Finder` does."""
    if said.onset is not None and said.offset is not None and said.onset > said.offset:
        raise CorpusError(f"onset {said.onset} comes after offset {said.offset} ({said.where})")
    frames = tree_lib.numbered(images)
    first, last = _span(said, frames, folder, remarks)
    numbers = tuple(number for number in frames if first <= number <= last)
    if missing := last - first + 1 - len(numbers):
        # The first gap between numbers. The sheet's own numbers may be arbitrarily large, so do not count up to them.
        gap = next((first + index for index, n in enumerate(numbers) if n != first + index), numbers[-1] + 1)
        more = f" and {missing - 1} more" if missing > 1 else ""
        remarks.append(f"frame {gap}{more} missing in {folder}")
    shift = first - said.onset if said.onset is not None else 0
    return Entry(
        said,
        tuple(frames[number] for number in numbers),
        numbers,
        onset=0 if said.onset is not None else -1,
        apex=_apex(said, numbers, shift, remarks),
        offset=len(numbers) - 1 if said.offset is not None else -1,
    )


def name(said: Said) -> str:
    """Return the id of a clip."""
    return f"{said.dataset}/{said.subject}/{said.clip}"


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


def _frames(entry: Entry) -> list[bytes] | CorpusError:
    frames, sizes = [], {}
    try:
        if entry.video:
            return [_film(entry.files[0])]
        for path in entry.files:
            data, size = tree_lib.picture(path)
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


def _span(said: Said, frames: Mapping[int, Path], folder: Path, remarks: list[str]) -> tuple[int, int]:
    """Return the numbers of the first and last frame of the clip: as annotated, else of all frames."""
    present = list(frames)
    first = present[0] if said.onset is None else said.onset
    last = present[-1] if said.offset is None else said.offset
    if any(first <= number <= last for number in present):
        return first, last
    if len(present) == last - first + 1:
        remarks.append(f"frames {present[0]} to {present[-1]} of {folder} are taken for {first} to {last}, as many")
        return present[0], present[-1]
    raise MissingError(
        f"frames {first} to {last} are asked for ({said.where}), {folder} has {present[0]} to {present[-1]}"
    )


def _apex(said: Said, numbers: tuple[int, ...], shift: int, remarks: list[str]) -> int:
    if said.apex is None:
        return -1
    apex = said.apex + shift
    if not numbers[0] <= apex <= numbers[-1]:
        remarks.append(f"apex {said.apex} lies outside of the clip and counts as missing ({said.where})")
        return -1
    return min(range(len(numbers)), key=lambda index: abs(numbers[index] - apex))
