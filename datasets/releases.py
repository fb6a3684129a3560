"""Choose the folder of frames of each clip where an archive holds several releases: recorded, cropped, a user's own."""

import re
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from stag_datasets import levels
from stag_datasets.errors import CorpusError
from stag_datasets.tree import Place, Tree, plain

SHOWN = 8
# Words of folders that hold processed frames; "faces" alone, not as part of a word.
_CROPPED = re.compile(r"crop|align|regist|warp|(?<![a-z])faces?(?![a-z])")
_CROPPED_FILE = "reg_"  # how the owners of CASME II, CASME and SMIC name the frames of their crops
_OTHER = re.compile(r"macro|(?<![a-z])non_?micro|(?<![a-z])depth(?![a-z])")


def choose(
    found: Sequence[list[Place]], tree: Tree, variant: Any, official: Sequence[str], about: MutableMapping[str, str]
) -> list[Place | None]:
    """Return the folder of each clip among those that were found; None if it has none. Says in `about` which.

    A release that is asked for by name is taken; else those of the kind asked for, recorded or cropped, the owners'
    own before others. Kinds are told by names below the root of the tree.

    Raises:
      CorpusError: no frames of the kind or name asked for, or several releases with frames of the same clips.
    """
    counts = Counter(place.release for places in found for place in places)
    ranks = {release: _rank(release, official) for release in counts}
    kinds: dict[str, bool] = {}
    for places in found:
        for place in places:
            kinds.setdefault(place.release, _cropped(place, tree))
    chosen: list[Place | None] = []
    conflicts: Counter[str] = Counter()
    for places in found:
        usable = [place for place in places if not _OTHER.search(place.release.casefold())] or places
        if variant.frames:
            usable = [place for place in usable if _named(place.release, variant.frames)]
        else:
            usable = [place for place in usable if kinds[place.release] == variant.cropped]
        best = min((ranks[place.release] for place in usable), default=0)
        usable = [place for place in usable if ranks[place.release] == best]
        if len({place.release for place in usable}) < len(usable):
            names = ", ".join(str(place.folder.relative_to(tree.root)) for place in usable)
            raise CorpusError(f"several folders are named after the same clip: {names}; leave one")
        if len(usable) > 1:
            conflicts.update(place.release for place in usable)
        chosen.append(usable[0] if usable else None)
    if conflicts:
        raise CorpusError(f"several folders hold frames of the same clips: {_listed(conflicts)}; say --frames=NAME")
    taken = Counter(place.release for place in chosen if place)
    if counts and not taken:
        raise CorpusError(_none_of_kind(counts, variant, tree))
    if taken:
        about["frames"] = _listed(taken)
        if rest := counts - taken:
            about["frames passed over"] = _listed(Counter({name: counts[name] for name in rest if name not in taken}))
            if not about["frames passed over"]:
                del about["frames passed over"]
    return chosen


def no_frames(clips: Sequence[Any], path: str, tree: Tree) -> str:
    """Return the one line for an archive without the frames of any of its clips: what there is, and what to do.

    `path` names the folder of the first clip.
    """
    first = clips[0]
    text = (
        f"no frames of any of the {len(clips)} clips of {first.dataset}: no folder {path} below {tree.root} "
        f"({first.where})"
    )
    if unread := tree.unread():
        return f"{text}; there is {unread}"
    hint = levels.nearby(tree.root, lambda folder: _holds(folder, first.folder))
    if tree.images:
        names = Counter(
            folder.relative_to(tree.root).parts[0] if folder != tree.root else "." for folder in tree.images
        )
        return f"{text}; there are pictures in {', '.join(list(names)[:SHOWN])}{hint}"
    return f"{text}; there are no pictures at all{hint}"


def _holds(folder: Any, tail: tuple[str | int, ...]) -> bool:
    """Return whether the folders named are in `folder`, or in one of its folders."""
    names = [str(name) for name in tail if isinstance(name, str)]
    for base in (folder, *levels.folders(folder)):
        inner = [base] if isinstance(tail[0], str) else levels.folders(base)
        if any(each.joinpath(*names).is_dir() for each in inner):
            return True
    return False


def _rank(release: str, official: Sequence[str]) -> int:
    parts = {plain(part) for part in release.split("/")}
    return next((index for index, name in enumerate(official) if plain(name) in parts), len(official))


def _cropped(place: Place, tree: Tree) -> bool:
    words = place.release.casefold()
    return bool(_CROPPED.search(words)) or tree.images[place.folder][0].casefold().startswith(_CROPPED_FILE)


def _named(release: str, name: str) -> bool:
    wanted = plain(name.strip("/"))
    return plain(release) == wanted or plain(release).startswith(f"{wanted}/") or wanted in plain(release).split("/")


def _none_of_kind(counts: Mapping[str, int], variant: Any, tree: Tree) -> str:
    if variant.frames:
        return f"no frames in a folder named {variant.frames} below {tree.root}; there is {_listed(counts)}"
    kind, other = ("cropped", "recorded") if variant.cropped else ("recorded", "cropped or aligned")
    example = min(counts, key=lambda release: (-counts[release], release))
    return (
        f"no {kind} frames below {tree.root}: what is there is {other} by its names, {_listed(counts)}; "
        f"--frames={example} takes it all the same"
    )


def _listed(counts: Mapping[str, int]) -> str:
    names = [f"{name} ({count} clips)" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
