"""Put into lines what was found in an archive, each cause once."""

import re
from collections.abc import Iterable, Iterator

from stag_datasets.archive import Archive
from stag_datasets.errors import printable

ALONE = 3  # as many lines of one cause are printed as they are
NAMED = 12  # clips that are named in one line


def grouped(lines: Iterable[str]) -> list[str]:
    """Return the lines, those of one cause as one: the first, with the number and the names of the others."""
    causes: dict[str, list[str]] = {}
    for line in map(printable, lines):
        causes.setdefault(_cause(line), []).append(line)
    short = []
    for group in causes.values():
        if len(group) <= ALONE:
            short += group
            continue
        names = [line.partition(": ")[0] for line in group[1:]]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        short.append(f"{group[0]}; the same {len(group)} times, also {', '.join(names[:NAMED])}{more}")
    return short


def lines(found: Archive) -> Iterator[str]:
    """Yield what an archive holds: the sheets and frames that are taken, its clips, repairs, and remarks."""
    for key, value in found.about.items():
        yield printable(f"{key}: {value}")
    yield f"subjects: {len({(entry.said.dataset, entry.said.subject) for entry in found.entries})}"
    yield from (f"repaired: {line}" for line in grouped(found.repairs))
    yield from (f"remark: {line}" for line in grouped(found.remarks))


def _cause(line: str) -> str:
    """Return a line without the clip before its colon, and without names, paths and numbers."""
    head, _, tail = line.partition(": ")
    text = tail if tail and " " not in head.replace(" row ", "") else line
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\([^()]*\)", "#", text)
    return " ".join("#" if re.search(r"[\d/\\.]", word) else word for word in text.split())
