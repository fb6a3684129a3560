"""The composite out of three archives: what is in it, what is not, and what is said where counts differ."""

import numpy as np
import pytest

from stag_datasets import building, corpus
from stag_datasets.megc2019 import megc2019_dataset_builder as megc2019
from tests import archives

FRAMES = 3


def spread(counts, subjects):
    """(emotion, index of the subject) of as many clips as `counts` says, every subject with one at least."""
    emotions = [name for name, count in counts.items() for _ in range(count)]
    return list(zip(emotions, np.arange(len(emotions)) % subjects, strict=True))


def write(root, surprise=25):
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


def test_the_composite_is_442_clips_of_68_subjects(tmp_path):
    found = megc2019.scan(write(tmp_path), building.DEFAULT)
    assert found.problems == []
    said = [entry.said for entry in found.entries]
    assert len(said) == 442 and len({(each.dataset, each.subject) for each in said}) == 68
    emotions = [each.emotion for each in said]
    assert [emotions.count(name) for name in ("negative", "positive", "surprise")] == [250, 109, 83]
    # Named as in the list of the composite.
    subjects = {name: {each.subject for each in said if each.dataset == name} for name in ("samm", "smic")}
    assert {"6", "33"} <= subjects["samm"] and {"s01", "s16"} <= subjects["smic"]
    assert all(each.clip.startswith(f"{each.subject}_") for each in said if each.dataset == "smic")
    names = {(each.dataset, each.subject, each.clip) for each in said}
    assert not names & megc2019.LEFT_OUT
    assert not {("casme2", "sub10"), ("casme2", "sub18"), ("samm", "099")} & {name[:2] for name in names}


def test_another_count_is_an_error_that_says_where(tmp_path):
    root = write(tmp_path / "archive", surprise=24)
    message = r"casme2: the composite has negative 88 of 88, positive 32 of 32, surprise 24 of 25, 24 of 24 subjects"
    with pytest.raises(corpus.CorpusError, match=message):
        corpus.build("megc2019", data_dir=tmp_path / "data", manual_dir=root)


def test_each_corpus_needs_its_folder(tmp_path):
    (write(tmp_path) / "samm").rename(tmp_path / "SAMM")
    assert megc2019.scan(tmp_path, building.DEFAULT).problems == []
    (tmp_path / "SAMM").rename(tmp_path / "other")
    with pytest.raises(corpus.CorpusError, match="has no folder samm: there is casme2/, other/, smic/"):
        megc2019.scan(tmp_path, building.DEFAULT)
