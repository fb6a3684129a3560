"""The three archives of which the MEGC2019 composite is made, with as many clips as they have."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stag_datasets.megc2019 import megc2019_dataset_builder as megc2019
from tests import archives

FRAMES = 3


def spread(counts: Mapping[str, int], subjects: int) -> list[tuple[str, int]]:
    """(emotion, index of the subject) of as many clips as `counts` says, every subject with one at least."""
    emotions = [name for name, count in counts.items() for _ in range(count)]
    return list(zip(emotions, np.arange(len(emotions)) % subjects, strict=True))


def write(root: Path, surprise: int = 25) -> Path:
    """Sheets of CASME II (2014) and SAMM, folders of SMIC, with clips that belong to the composite and others."""
    counts = {"disgust": 61, "repression": 27, "happiness": 32, "surprise": surprise}
    people = [n for n in range(1, 27) if n not in (10, 18)]
    rows = [
        (f"{people[who]:02d}", f"EP{50 + index}", None, 1, 2, FRAMES, None, "4", emotion, 7)
        for index, (emotion, who) in enumerate(spread(counts, 24))
    ]
    for _, subject, clip in sorted(megc2019.LEFT_OUT):
        emotion = "sadness" if subject == "sub24" else "disgust"
        apex = "/" if clip == "EP12_01f" else 1
        rows.append((subject[3:], clip, None, 1, apex, FRAMES, None, "4", emotion, 7))
    rows += [("10", "EP01_01", None, 1, 2, FRAMES, None, "4", "fear", 7)]
    rows += [("18", f"EP0{n}_01", None, 1, 2, FRAMES, None, "4", "others", 7) for n in range(1, 4)]
    archives.write_casme2(root / "casme2", rows)

    counts = {"Anger": 57, "Contempt": 12, "Disgust": 9, "Fear": 8, "Sadness": 6, "Happiness": 26, "Surprise": 15}
    rows = [
        (f"{who + 6:03d}", f"{who + 6:03d}_{index}", 1, 1, 2, FRAMES, FRAMES, "Micro", "4", emotion, 7, None)
        for index, (emotion, who) in enumerate(spread(counts, 28))
    ]
    rows.append(("099", "099_1", 1, 1, 2, FRAMES, FRAMES, "Micro", "4", "Other", 7, None))
    archives.write_samm(root / "samm", rows)

    for index, (tag, who) in enumerate(spread({"ne": 70, "po": 51, "sur": 43}, 16)):
        folder = root / "smic" / "SMIC_all_raw" / "HS" / f"s{who + 1}" / "micro" / archives.TAGS[tag]
        archives.write_frames(folder / f"s{who + 1}_{tag}_{index:02d}", range(FRAMES), "image{:06d}.bmp")
    return root
