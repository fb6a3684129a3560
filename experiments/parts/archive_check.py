"""Check an archive before anything is built from it, for `prepare.py --check`."""

from collections import Counter

from tqdm import tqdm

from stag_datasets import archive, corpus, processes
from stag_datasets.archive import Archive, Entry
from stag_jax.face import action_units
from stag_jax.protocol import labels
from stag_jax.types import UserError


def check(name: str, manual_dir: str) -> list[str]:
    """Print what an archive holds and return its faults, one line each; every file is read.

    Known errata that are corrected are printed but are not faults.

    Raises:
      CorpusError: no list of clips can be read.
    """
    scanned = corpus.scan(name, manual_dir=manual_dir)
    entries = scanned.entries
    for key, value in scanned.about.items():
        print(f"{key}: {value}")
    print(f"subjects: {len({entry.said.subject for entry in entries})}")
    print(f"frames: {sum(len(entry.files) for entry in entries)}")
    print(f"frames a second: {_counted(f'{entry.said.fps:g}' for entry in entries)}")
    print(f"emotions: {_counted(entry.said.emotion for entry in entries)}")
    print(f"action units: {sum(entry.said.action_units is not None for entry in entries)} clips annotated")
    for repair in scanned.repairs:
        print(f"repaired: {repair}")
    return [
        *scanned.problems,
        *scanned.remarks,
        *_unknown_versions(scanned),
        *_unreadable_units(entries),
        *_classes(scanned),
        *_unreadable_frames(scanned),
    ]


def _counted(values) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(values).items()))


def _unknown_versions(found: Archive) -> list[str]:
    return [f"{key}: {value}" for key, value in found.about.items() if "unknown (nearest" in value]


def _unreadable_units(entries: list[Entry]) -> list[str]:
    wrong = []
    for entry in entries:
        try:
            action_units.labels(entry.said.action_units, (), clip=archive.name(entry.said))
        except UserError as error:
            wrong.append(f"{error} ({entry.said.where})")
    return wrong


def _classes(found: Archive) -> list[str]:
    """Print the class counts of every scheme that covers the corpus; return a line for each unexpected count."""
    wrong = []
    for dataset in sorted({entry.said.dataset for entry in found.entries}):
        version = found.about.get(f"{dataset} version", found.about.get("version", ""))
        clips = [entry.said for entry in found.entries if entry.said.dataset == dataset]
        for scheme in [name for name, corpora in labels.SCHEMES.items() if dataset in corpora]:
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
    results = archive.read_all(found, processes.cores())
    for entry, frames in tqdm(results, total=len(found.entries), desc="reading", unit="clip"):
        if isinstance(frames, corpus.CorpusError):
            wrong.append(f"{archive.name(entry.said)}: {frames}")
    return wrong
