"""What `prepare.py --check` says of an archive before anything is built from it."""

from collections import Counter

from tqdm import tqdm

from stag_datasets import archive, corpus, processes
from stag_datasets.archive import Archive, Entry
from stag_jax.face import action_units
from stag_jax.protocol import labels
from stag_jax.types import UserError


def check(name: str, manual_dir: str) -> list[str]:
    """Prints what an archive holds and returns what is wrong with it, one line each; every file is read.

    Known errata that are put right are printed and not wrong.

    Raises:
      CorpusError: not even a list of clips can be had.
    """
    found = corpus.scan(name, manual_dir=manual_dir)
    entries = found.entries
    for key, value in found.about.items():
        print(f"{key}: {value}")
    print(f"subjects: {len({entry.said.subject for entry in entries})}")
    print(f"frames: {sum(len(entry.files) for entry in entries)}")
    print(f"frames a second: {_counted(f'{entry.said.fps:g}' for entry in entries)}")
    print(f"emotions: {_counted(entry.said.emotion for entry in entries)}")
    print(f"action units: {sum(entry.said.action_units is not None for entry in entries)} clips annotated")
    for repair in found.repairs:
        print(f"repaired: {repair}")
    return [
        *found.problems,
        *found.remarks,
        *_unknown_versions(found),
        *_unreadable_units(entries),
        *_classes(found),
        *_unreadable_frames(found),
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
    """Prints the classes under every scheme that knows the corpus, and returns where they are not as they must be."""
    wrong = []
    for dataset in sorted({entry.said.dataset for entry in found.entries}):
        version = found.about.get(f"{dataset} version", found.about.get("version", ""))
        own = [entry.said for entry in found.entries if entry.said.dataset == dataset]
        for scheme in [name for name, corpora in labels.SCHEMES.items() if dataset in corpora]:
            made = [
                labels.label(scheme, dataset=dataset, emotion=said.emotion, objective=said.objective) for said in own
            ]
            line = labels.miscounted(scheme, dataset=dataset, version=version, found=made)
            known = (scheme, dataset, version) in labels.EXPECTED
            share = sum(name is not None for name in made) / len(made)
            if not share or (not known and share < 0.5):
                continue  # a scheme for other sheets, or one that this sheet has no column for
            verdict = "NOT as it must be" if line else "as it must be" if known else "nothing to compare with"
            print(f"{dataset} {scheme}: {_counted(name for name in made if name)} ({verdict})")
            wrong += [line] if line else []
    return wrong


def _unreadable_frames(found: Archive) -> list[str]:
    wrong = []
    read = archive.read_all(found, processes.cores())
    for entry, frames in tqdm(read, total=len(found.entries), desc="reading", unit="clip"):
        if isinstance(frames, corpus.CorpusError):
            wrong.append(f"{archive.name(entry.said)}: {frames}")
    return wrong
