"""From what a sheet says to what lies in the archive: clips with their frames, and all that is odd about them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from stag_datasets import tree as tree_lib
from stag_datasets.corpus import CorpusError
from stag_datasets.tree import Tree

AHEAD = 4  # clips that are read before they are asked for; bounds memory


class MissingError(CorpusError):
    """There are no frames of a clip."""


class Said(NamedTuple):
    """A clip as its annotators describe it. Onset, apex, offset are numbers of frames as in the frames' names."""

    subject: str  # as the corpus writes it, always in one way
    clip: str
    emotion: str
    fps: float
    where: str  # sheet and row, or folder: what a message about it names
    folder: tuple[str, ...]  # the last names of the path to its frames
    action_units: str | None = None  # None where the corpus has none
    onset: int | None = None
    apex: int | None = None
    offset: int | None = None
    objective: str = ""  # objective class, I to VII
    part: str = ""  # of the corpus, where its owners divide it (train, testA ...)
    group: str = ""  # clips that must not be separated, where that is more than the subject
    repairs: tuple[str, ...] = ()  # what was changed of the sheet's own words
    dataset: str = ""  # set by `gather`


class Entry(NamedTuple):
    """A clip that was found. Onset, apex, offset are indices into its frames, -1 where not known."""

    said: Said
    files: tuple[Path, ...]
    numbers: tuple[int, ...]
    onset: int
    apex: int
    offset: int
    video: bool = False  # the one file is a film; then the indices are those of its frames, and it has no numbers


class Archive(NamedTuple):
    """All that was found below one manual_dir."""

    dataset: str
    entries: list[Entry]
    problems: list[str]  # each costs a clip, or more
    remarks: list[str]  # oddities that a clip survives
    repairs: list[str]  # known errata that were applied
    about: dict[str, str]  # which sheet, which version of it ...
    missing: list[Said]  # clips whose frames are not there, each one of the problems


# Gives the frames of a clip, adds what is odd about them to the list, raises CorpusError where there are none.
Finder = Callable[[Said, list[str]], Entry]


def gather(
    dataset: str, said: Iterable[Said], find: Finder, *, problems: Iterable[str] = (), about: Mapping[str, str]
) -> Archive:
    """The clips that are described, each with its frames; `problems` is what was wrong before."""
    made = Archive(dataset, [], list(problems), [], [], dict(about), [])
    seen: dict[tuple[str, str], str] = {}
    for each in said:
        each = each._replace(dataset=dataset)
        clip = name(each)
        if (each.subject, each.clip) in seen:
            made.problems.append(f"{clip}: listed twice, {seen[each.subject, each.clip]} and {each.where}")
            continue
        seen[each.subject, each.clip] = each.where
        made.repairs.extend(f"{clip}: {repair}" for repair in each.repairs)
        remarks: list[str] = []
        try:
            made.entries.append(find(each, remarks))
        except MissingError as error:
            made.missing.append(each)
            made.problems.append(f"{clip}: {error}")
        except CorpusError as error:
            made.problems.append(f"{clip}: {error}")
        made.remarks.extend(f"{clip}: {remark}" for remark in remarks)
    if not made.entries and not made.problems:
        made.problems.append(f"no clip of {dataset} is listed")
    made.about["clips"] = str(len(made.entries))
    return made


def gather_folders(
    dataset: str,
    said: Iterable[Said],
    tree: Tree,
    *,
    cropped: bool = False,
    problems: Iterable[str] = (),
    about: Mapping[str, str],
) -> Archive:
    """The same of clips that each have a folder somewhere in the tree; of several, as recorded or `cropped`."""
    prefer = tree_lib.cropped_first if cropped else tree_lib.raw_first

    def find(said: Said, remarks: list[str]) -> Entry:
        folders = sorted(tree.find(*said.folder), key=prefer)
        if not folders:
            raise MissingError(f"no folder {'/'.join(said.folder)} with pictures below {tree.root} ({said.where})")
        return cut(said, folders[0], tree.images[folders[0]], remarks)

    return gather(dataset, said, find, problems=[*tree.problems, *problems], about=about)


def cut(said: Said, folder: Path, images: Iterable[Path], remarks: list[str]) -> Entry:
    """The clip from onset to offset out of the pictures of a folder, as a `Finder` does."""
    if said.onset is not None and said.offset is not None and said.onset > said.offset:
        raise CorpusError(f"onset {said.onset} comes after offset {said.offset} ({said.where})")
    frames = tree_lib.numbered(images)
    first, last = _span(said, frames, folder, remarks)
    numbers = tuple(number for number in frames if first <= number <= last)
    if missing := last - first + 1 - len(numbers):
        # The first place where numbers do not follow each other; a sheet may ask for any number, so none is counted to.
        gap = next((first + at for at, number in enumerate(numbers) if number != first + at), numbers[-1] + 1)
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
    """The id of a clip."""
    return f"{said.dataset}/{said.subject}/{said.clip}"


def read_all(archive: Archive, workers: int) -> Iterator[tuple[Entry, list[bytes] | CorpusError]]:
    """The encoded frames of each clip, in order, or what is wrong with them; at most a few clips wait in memory."""
    with ThreadPoolExecutor(workers) as pool:
        waiting = []
        for entry in archive.entries:
            waiting.append((entry, pool.submit(_frames, entry)))
            if len(waiting) >= workers + AHEAD:
                first, future = waiting.pop(0)
                yield first, future.result()
        for entry, future in waiting:
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
    """Numbers of the first and last frame of the clip: those annotated, or all there are."""
    there = list(frames)
    first = there[0] if said.onset is None else said.onset
    last = there[-1] if said.offset is None else said.offset
    if any(first <= number <= last for number in there):
        return first, last
    if len(there) == last - first + 1:
        remarks.append(f"frames {there[0]} to {there[-1]} of {folder} are taken for {first} to {last}, as many")
        return there[0], there[-1]
    raise MissingError(f"frames {first} to {last} are asked for ({said.where}), {folder} has {there[0]} to {there[-1]}")


def _apex(said: Said, numbers: tuple[int, ...], shift: int, remarks: list[str]) -> int:
    if said.apex is None:
        return -1
    apex = said.apex + shift
    if not numbers[0] <= apex <= numbers[-1]:
        remarks.append(f"apex {said.apex} lies outside of the clip and counts as missing ({said.where})")
        return -1
    return min(range(len(numbers)), key=lambda index: abs(numbers[index] - apex))
