"""Check an archive before anything is built from it, for `prepare.py --check`."""

from collections import Counter

from tqdm import tqdm

from stag_datasets import archive, corpus, processes, summary
from stag_datasets.archive import Archive, Entry
from stag_jax.face import action_units
from stag_jax.protocol import labels
from stag_jax.types import UserError

FRAMES_MAX = 200_000  # of archives with more, only the first, middle and last frame of each clip are read


def run(names: str, manual_dir: str, *, frames: str = "", longest_s: float | None = None) -> int:
    """Print what the archives of a corpus, or of several, hold: remarks, then faults; return 1 if there are faults.

    Every frame is read, or three of each clip where there are very many.

    Raises:
      CorpusError: no list of clips can be read.
    """
    wrong, remarks = [], 0
    for scanned in corpus.scan_all(names, manual_dir=manual_dir, frames=frames, longest_s=longest_s):
        print(f"corpus: {scanned.dataset}")
        wrong += _check(scanned)
        remarks += len(scanned.remarks)
    for line in summary.grouped(wrong):
        print(f"wrong: {line}")
    if remarks:
        print(f"remarks: {remarks}, which stop nothing")
    print(f"{len(wrong)} things are wrong" if wrong else "nothing is wrong")
    return int(bool(wrong))


def _check(scanned: Archive) -> list[str]:
    entries = scanned.entries
    scanned.remarks.extend(_unreadable_units(entries))
    for line in summary.lines(scanned):
        print(line)
    print(f"pictures: {sum(len(entry.names) for entry in entries)}")
    print(f"frames a second: {_counted(f'{entry.said.fps:g}' if entry.said.fps else 'not given' for entry in entries)}")
    print(f"emotions: {_counted(entry.said.emotion for entry in entries)}")
    print(f"action units: {sum(entry.said.action_units is not None for entry in entries)} clips annotated")
    classes = [] if _is_composite(scanned) else _classes(scanned)
    return [*scanned.problems, *_unknown_versions(scanned), *classes, *_unreadable_frames(scanned)]


def _counted(values) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(values).items()))


def _is_composite(found: Archive) -> bool:
    """Return whether the clips are of several corpora, so that counts of the sheets of single ones do not apply."""
    return any(entry.said.dataset != found.dataset for entry in found.entries)


def _unknown_versions(found: Archive) -> list[str]:
    if _is_composite(found):
        return []
    return [f"{key}: {value}" for key, value in found.about.items() if "unknown (nearest" in value]


def _unreadable_units(entries: list[Entry]) -> list[str]:
    remarks = []
    for entry in entries:
        if entry.said.action_units is None:
            continue
        try:
            action_units.parse(entry.said.action_units, clip=archive.name(entry.said))
        except UserError as error:
            remarks.append(f"{error}: the clip counts as not annotated ({entry.said.where})")
    return remarks


def _classes(found: Archive) -> list[str]:
    """Print the class counts of every scheme that covers the corpus; return a line for each unexpected count."""
    wrong = []
    dataset, version = found.dataset, found.about.get("version", "")
    clips = [entry.said for entry in found.entries]
    for scheme in [name for name, corpora in labels.SCHEMES.items() if dataset in corpora and clips]:
        class_names = [
            labels.label(scheme, dataset=dataset, emotion=clip.emotion, objective=clip.objective) for clip in clips
        ]
        fault = labels.miscounted(scheme, dataset=dataset, version=version, found=class_names)
        has_expected = (scheme, dataset, version) in labels.EXPECTED
        labelled = sum(name is not None for name in class_names) / len(class_names)
        if not labelled or (not has_expected and labelled < 0.5):
            continue  # the scheme is for other sheets, or needs a column that this sheet lacks
        verdict = "NOT as it must be" if fault else "as it must be" if has_expected else "nothing to compare with"
        print(f"{dataset} {scheme}: {_counted(name for name in class_names if name)} ({verdict})")
        wrong += [fault] if fault else []
    return wrong


def _unreadable_frames(found: Archive) -> list[str]:
    wrong = []
    count = sum(len(entry.names) for entry in found.entries)
    if count > FRAMES_MAX:
        print(f"read: the first, middle and last frame of each clip, not all {count}; the build reads all")
        found = found._replace(entries=[_thinned(entry) for entry in found.entries])
    results = archive.read_all(found, processes.cores())
    for entry, frames in tqdm(results, total=len(found.entries), desc="reading", unit="clip"):
        if isinstance(frames, corpus.CorpusError):
            wrong.append(f"{archive.name(entry.said)}: {frames}")
    return wrong


def _thinned(entry: Entry) -> Entry:
    names = entry.names
    return entry._replace(names=tuple(dict.fromkeys((names[0], names[len(names) // 2], names[-1]))))
