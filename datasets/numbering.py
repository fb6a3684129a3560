"""Tell whether frames carry the numbers of the recording, or are counted anew in each clip's folder.

Crops that users extract again are often counted from 0 or 1. A folder of frames 1 to 61 for onset 20 and offset 80 then
looks as if it held frames 20 to 61. One clip may be read both ways, so the numbering is decided for a release as a
whole.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stag_datasets import tree as tree_lib
from stag_datasets.tree import Tree

RECORDED, RENUMBERED, EITHER = "recorded", "renumbered", "either"
STARTS = (0, 1)  # numbers with which counting anew begins
SLACK = 1  # frames by which an extraction may miss the count from onset to offset


class Frames(NamedTuple):
    """The pictures of a folder in the order of their numbers."""

    folder: Path
    numbers: tuple[int, ...]
    names: tuple[str, ...]


def read(folder: Path, tree: Tree) -> Frames:
    """Return the frames of a folder. Raises CorpusError as `tree.numbered` does."""
    return of(folder, tree.images[folder])


def of(folder: Path, names: Sequence[str]) -> Frames:
    """Return the named pictures of a folder as frames. Raises CorpusError as `tree.numbered` does."""
    frames = tree_lib.numbered(folder, names)
    return Frames(folder, tuple(frames), tuple(frames.values()))


def asked(clip: Any) -> int | None:
    """Return how many frames there are from onset to offset; None if a mark is missing or they are out of order."""
    if clip.onset is None or clip.offset is None or clip.onset > clip.offset:
        return None
    return clip.offset - clip.onset + 1


def overlaps(clip: Any, frames: Frames) -> bool:
    """Return whether a frame has a number from onset to offset; True if a mark is missing."""
    if clip.onset is None or clip.offset is None:
        return True
    return any(clip.onset <= number <= clip.offset for number in frames.numbers)


def fits(clip: Any, frames: Frames) -> bool:
    """Return whether onset and offset are numbers of frames, or there are as many frames as they ask for."""
    count = asked(clip)
    if count is None:
        return False
    return {clip.onset, clip.offset} <= set(frames.numbers) or (_from_start(frames) and len(frames.numbers) == count)


def kind(clip: Any, frames: Frames) -> str:
    """Return how the frames of a clip must be counted: `RECORDED`, `RENUMBERED`, or `EITHER` if both are possible."""
    count = asked(clip)
    if count is None:
        return EITHER
    if frames.numbers[0] == clip.onset:
        return EITHER if clip.onset in STARTS else RECORDED
    looks_renumbered = _from_start(frames) and abs(len(frames.numbers) - count) <= SLACK
    looks_recorded = {clip.onset, clip.offset} <= set(frames.numbers)
    if looks_renumbered == looks_recorded:
        return EITHER
    return RENUMBERED if looks_renumbered else RECORDED


def renumbered(clips: Sequence[tuple[Any, Frames]]) -> bool:
    """Return whether most clips of a release that can be counted in one way only are counted anew."""
    kinds = [kind(clip, frames) for clip, frames in clips]
    return kinds.count(RENUMBERED) > kinds.count(RECORDED)


def _from_start(frames: Frames) -> bool:
    first, last = frames.numbers[0], frames.numbers[-1]
    return first in STARTS and last - first + 1 == len(frames.numbers)
