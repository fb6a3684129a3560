"""The MEGC2019 composite, built from the three corpora: 442 clips of 68 subjects in three classes."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import ClassVar

from stag_datasets import archive, building, corpus
from stag_datasets.archive import Archive, Entry
from stag_datasets.building import Variant
from stag_datasets.casme2 import casme2_dataset_builder as casme2
from stag_datasets.samm import samm_dataset_builder as samm
from stag_datasets.smic import smic_dataset_builder as smic

NAME = "megc2019"
# Emotion -> class of the composite. In CASME II fear and sadness are negative by its rules, but are not part of it.
CLASSES = {
    "casme2": {"disgust": "negative", "repression": "negative", "happiness": "positive", "surprise": "surprise"},
    "samm": {
        **dict.fromkeys(("anger", "contempt", "disgust", "fear", "sadness"), "negative"),
        "happiness": "positive",
        "surprise": "surprise",
    },
    "smic": {name: name for name in ("negative", "positive", "surprise")},
}
# Clips of CASME II: two whose apex cannot be used, and three that are surprise in the sheet of 2019 but sadness in that
# of 2014.
LEFT_OUT = {
    ("casme2", "sub04", "EP12_01f"),
    ("casme2", "sub05", "EP09_05f"),
    ("casme2", "sub24", "EP07_01"),
    ("casme2", "sub24", "EP07_04f"),
    ("casme2", "sub24", "EP10_03"),
}
EXPECTED = {
    "casme2": {"negative": 88, "positive": 32, "surprise": 25},
    "samm": {"negative": 92, "positive": 26, "surprise": 15},
    "smic": {"negative": 70, "positive": 51, "surprise": 43},
}
SUBJECTS = {"casme2": 24, "samm": 28, "smic": 16}


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset of CASME II, SAMM and SMIC-HS; `dataset` says which of the three a clip is from."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [building.DEFAULT, building.CROPPED]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Give as manual_dir a folder with one folder (or link) a corpus, named casme2, samm and smic in any case, each "
        "as its own builder wants it: see the READMEs beside it."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if one of the three has no folder or no readable sheet."""
        return scan(root, self.variant)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the three archives below `root` as one, keep the clips of the composite, and check their counts.

    What is wrong with clips that are not in the composite is remarked upon if the counts are right.
    """
    composite = Archive(NAME, [], [], [], [], {}, [], [])
    high_speed = dataclasses.replace(variant, part="HS")
    for name, scan_one, corpus_variant in (
        ("casme2", casme2.scan, variant),
        ("samm", samm.scan, variant),
        ("smic", smic.scan, high_speed),
    ):
        scanned = scan_one(corpus.folder_of(root, name), corpus_variant)
        kept = [entry for candidate in scanned.entries if (entry := _classed(name, candidate))]
        composite.entries.extend(kept)
        if miscounted := _miscounted(name, kept):
            composite.problems.extend([*scanned.problems, miscounted])
        else:
            composite.remarks.extend(scanned.problems)
        composite.remarks.extend(scanned.remarks)
        composite.repairs.extend(scanned.repairs)
        composite.sheets.extend(scanned.sheets)
        about = dict(scanned.about)
        # Classes are those of the composite, which the counts of a sheet of one corpus say nothing of.
        version = about.pop("version", "")
        if "sheet" in about and version:
            about["sheet"] += f" ({version})"
        composite.about.update({f"{name} {key}": value for key, value in about.items() if key not in ("clips", "apex")})
    return archive.finish(composite)


def _classed(name: str, entry: Entry) -> Entry | None:
    """Return the entry as the composite's list has it, with the class as its emotion; None for a clip not in it."""
    clip = entry.said
    emotion = CLASSES[name].get(clip.emotion.casefold())
    if emotion is None or (name, clip.subject, clip.clip) in LEFT_OUT:
        return None
    subject, clip_name = clip.subject, clip.clip
    if name == "samm":
        subject = str(int(subject))
    if name == "smic":
        clip_name = f"{subject}_{clip_name.partition('_')[2]}"
    return entry._replace(said=clip._replace(subject=subject, clip=clip_name, emotion=emotion, dataset=name))


def _miscounted(name: str, entries: list[Entry]) -> str:
    """Return in one line what differs from the composite; empty if nothing does."""
    class_counts = Counter(entry.said.emotion for entry in entries)
    subjects = len({entry.said.subject for entry in entries})
    if class_counts == Counter(EXPECTED[name]) and subjects == SUBJECTS[name]:
        return ""
    counts = ", ".join(f"{key} {class_counts[key]} of {value}" for key, value in EXPECTED[name].items())
    return f"{name}: the composite has {counts}, {subjects} of {SUBJECTS[name]} subjects"
