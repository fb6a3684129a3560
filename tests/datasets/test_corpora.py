"""The other corpora, each with the quirks that its files have. What they share is tested on CASME II."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stag_datasets import building, corpus
from stag_datasets.casme3 import casme3_dataset_builder as casme3
from stag_datasets.dfme import dfme_dataset_builder as dfme
from stag_datasets.fourd_me import fourd_me_dataset_builder as fourd_me
from stag_datasets.mmew import mmew_dataset_builder as mmew
from stag_datasets.samm import samm_dataset_builder as samm
from stag_datasets.smic import smic_dataset_builder as smic
from stag_jax.corpora import records
from stag_jax.face import action_units
from tests import archives

ROOT = Path(__file__).parents[2]


def clips(found):
    assert found.problems == []
    return {f"{entry.said.subject}/{entry.said.clip}": entry for entry in found.entries}


def variant(builder, name):
    return next(each for each in builder.Builder.BUILDER_CONFIGS if each.name == name)


def test_samm_has_lines_before_its_header_and_odd_frame_names(tmp_path):
    found = samm.scan(archives.write_samm(tmp_path), building.DEFAULT)
    each = clips(found)
    assert list(each) == ["006/006_1_2", "009/009_6_2", "028/028_4_1"]
    assert each["006/006_1_2"].numbers == tuple(range(562, 572)) and each["006/006_1_2"].apex == 6
    assert each["028/028_4_1"].said.repairs == ("apex 1143 -> 1105",) and each["028/028_4_1"].apex == 4
    assert each["009/009_6_2"].said.objective == "I"
    as_written = clips(samm.scan(tmp_path, building.AS_ANNOTATED))["028/028_4_1"]
    assert as_written.apex == -1


@pytest.mark.parametrize("lines", [0, 1, 13])
def test_the_header_of_samm_is_found_wherever_it_stands(tmp_path, lines):
    archives.write_samm(tmp_path, preamble=archives.SAMM_PREAMBLE[:lines])
    found = samm.scan(tmp_path, building.DEFAULT)
    assert len(clips(found)) == 3
    assert found.entries[0].said.where.endswith(f"row {lines + 2}")


def test_smic_is_read_from_its_folders(tmp_path):
    archives.write_smic(tmp_path, parts=("HS", "VIS"))
    raw = clips(smic.scan(tmp_path, variant(smic, "hs")))
    assert list(raw) == ["s01/s1_ne_01", "s01/s1_po_05", "s20/s20_sur_03", "s03/s3_ne_10"]
    entry = raw["s20/s20_sur_03"]
    # From 99990 to 100000 the number of digits changes.
    assert entry.numbers == tuple(range(99990, 100001)) and entry.said.fps == 100 and entry.said.action_units is None
    assert (entry.onset, entry.apex, entry.offset) == (-1, -1, -1)
    assert "SMIC_all_raw" in str(entry.files[0])
    assert {e.said.emotion for e in raw.values()} == {"negative", "positive", "surprise"}
    crops = clips(smic.scan(tmp_path, variant(smic, "hs_cropped")))
    assert list(crops) == list(raw) and all("cropped" in str(e.files[0]) for e in crops.values())
    assert clips(smic.scan(tmp_path, variant(smic, "vis")))["s01/s1_po_05"].said.fps == 25
    with pytest.raises(corpus.CorpusError, match="no sheet"):
        smic.scan(tmp_path, variant(smic, "nir"))


def test_smic_of_one_part_alone(tmp_path):
    archives.write_smic(tmp_path)
    assert len(clips(smic.scan(tmp_path / "SMIC_all_raw" / "HS", variant(smic, "hs")))) == 4


def test_long_clips_of_smic_hold_up_to_three(tmp_path):
    header = (
        "Subject",
        "Filename",
        "x",
        "OnsetF",
        "OffsetF",
        "Onset2",
        "Offset2",
        "Onset3",
        "Offset3",
        "y",
        "FirstF",
        "LastF",
    )
    rows = [
        ("s20", "s20_ne_01", "", 110, 120, 140, 147, 0, 0, "", 100, 160),
        ("s02", "s2_sur_02", "", 110, 120, "", "", "", "", "", 100, 160),
        ("Note: HS means high speed", "", "", "", "", "", "", "", "", "", "", ""),
    ]
    archives.write_xlsx(tmp_path / "SMIC-HS-E_annotation.xlsx", [(*header, "Emotion"), *((*row, "") for row in rows)])
    for subject, clip in (("s20", "s20_ne_01"), ("s02", "s02_sur_02")):  # padded, other than in the sheet
        archives.write_frames(tmp_path / "SMIC-HS-E" / subject / clip, range(100, 161), "image{}.bmp")
    found = clips(smic.scan(tmp_path, variant(smic, "hs")))
    assert list(found) == ["s20/s20_ne_01", "s20/s20_ne_01_2", "s02/s2_sur_02"]
    assert found["s20/s20_ne_01_2"].numbers == tuple(range(140, 148))


def test_casme3_needs_the_onset_in_its_names(tmp_path):
    found = casme3.scan(archives.write_casme3(tmp_path), variant(casme3, "part_a"))
    names = [f"{entry.said.subject}/{entry.said.clip}" for entry in found.entries]
    assert names == ["spNO.1/a_355", "spNO.1/a_10", "spNO.214/J_3"]
    assert [entry.numbers[0] for entry in found.entries] == [355, 10, 3]
    assert all("color" in str(entry.files[0]) for entry in found.entries)
    assert found.entries[1].said.objective == "IV"
    # Its onset is a known error; its frames are not there.
    assert any("spNO.216/d_3647: frames 2647 to 2694 are asked for" in each for each in found.problems)
    as_written = casme3.scan(tmp_path, variant(casme3, "part_a_as_annotated"))
    assert any("spNO.216/d_3647: onset 3647 comes after offset 2694" in each for each in as_written.problems)
    assert any("spNO.40/e_12: onset 12 comes after offset 0" in each for each in found.problems)
    # All lines count towards what version of the sheet it is.
    assert "others 2 instead of 161" in found.about["version"] and "happy 1 instead" in found.about["version"]


def test_casme3_part_c_has_no_apex(tmp_path):
    archives.write_casme3(tmp_path)
    found = clips(casme3.scan(archives.write_casme3_c(tmp_path), variant(casme3, "part_c")))
    assert list(found) == ["spNO.1/2_11", "spNO.1/2_31"]
    assert found["spNO.1/2_11"].apex == -1 and found["spNO.1/2_31"].said.emotion == "positive"


def test_mmew_is_found_in_whatever_folder_of_emotions(tmp_path):
    found = clips(mmew.scan(archives.write_mmew(tmp_path), building.DEFAULT))
    assert list(found) == ["S01/S01-01-001", "S13/S13-07-001"]
    assert found["S13/S13-07-001"].said.emotion == "others"
    assert found["S13/S13-07-001"].files[0].parent.parent.name == "repression"


def test_dfme_keeps_its_parts_and_each_clip_its_frame_rate(tmp_path):
    found = clips(dfme.scan(archives.write_dfme(tmp_path)))
    each = {entry.said.clip: entry.said for entry in found.values()}
    assert {clip: (said.part, said.fps) for clip, said in each.items()} == {
        "sub0003_01": ("train", 500.0),
        "sub0004_07": ("testA", 300.0),
        "sub0009_02": ("testB", 200.0),
    }
    assert found["sub0004/sub0004_07"].numbers[0] == 0 and found["sub0004/sub0004_07"].apex == 3


def test_the_part_of_dfme_is_told_by_what_the_sheet_holds(tmp_path):
    counts = dfme.VERSIONS["testB"]
    emotions = [name for name, count in counts.items() for _ in range(count)]
    rows = [("sub0001", f"sub0001_{index}", 1, 2, 3, name, 0, 200, "4") for index, name in enumerate(emotions)]
    archives.write_xlsx(tmp_path / "renamed.xlsx", [archives.DFME_HEADER, *rows])
    found = dfme.scan(tmp_path)
    assert {said.part for said in found.missing} == {"testB"} and len(found.missing) == 299
    archives.write_xlsx(tmp_path / "renamed.xlsx", [archives.DFME_HEADER, *rows[:7]])
    with pytest.raises(corpus.CorpusError, match=r"renamed\.xlsx: neither its counts nor its name tell"):
        dfme.scan(tmp_path)


def test_dfme_without_labels_of_its_tests(tmp_path):
    found = clips(dfme.scan(archives.write_dfme(tmp_path, labelled=("train",))))
    unlabelled = found["sub0009/sub0009_02"].said
    assert unlabelled.emotion == dfme.UNLABELLED and unlabelled.action_units is None
    assert found["sub0003/sub0003_01"].said.emotion == "anger"


def test_dfme_in_its_original_folders(tmp_path):
    for part, clip in (
        ("USTC_MEv4_partA_sub0001_sub0015", "sub0003-03a-01-anger-01-anger"),
        ("USTC_MEv4_partD_sub0301_sub0671_200fps", "sub0301-02b-11-fear-02-surprise"),
    ):
        archives.write_frames(tmp_path / part / "micro" / clip.split("-")[-1] / clip, range(7), "{:05d}.jpg")
    found = clips(dfme.scan(tmp_path))
    assert [(e.said.subject, e.said.fps, e.said.emotion) for e in found.values()] == [
        ("sub0003", 500.0, "anger"),
        ("sub0301", 200.0, "surprise"),
    ]


def test_4dme_carries_several_emotions_and_may_be_numbered_anew(tmp_path):
    found = clips(fourd_me.scan(archives.write_fourd_me(tmp_path), building.DEFAULT))
    assert {name: entry.said.emotion for name, entry in found.items()} == {
        "S01/001_01_1": "positive+surprise",
        "S02/002_01_3": "negative",
    }
    assert found["S01/001_01_1"].numbers == tuple(range(3, 12)) and found["S01/001_01_1"].apex == 3
    assert found["S02/002_01_3"].numbers == tuple(range(1, 12)) and found["S02/002_01_3"].onset == -1


WRITE = {
    "samm": (archives.write_samm, 3),
    "smic/hs": (archives.write_smic, 4),
    "mmew": (archives.write_mmew, 2),
    "dfme": (archives.write_dfme, 3),
    "fourd_me": (archives.write_fourd_me, 2),
    "casme3/part_c": (archives.write_casme3_c, 2),
}


@pytest.mark.parametrize("name", WRITE)
def test_every_corpus_builds_and_its_records_are_read(tmp_path, name):
    write, count = WRITE[name]
    folder = corpus.build(name, data_dir=tmp_path / "data", manual_dir=write(tmp_path / "archive"))
    stored = list(records.read_clips(folder))
    assert len(stored) == count
    for record in stored:
        clip = records.to_clip(record)
        assert clip.frames.shape[1:] == (5, 7, 3) and clip.frames.dtype == np.uint8
        assert clip.identity.id.startswith(f"{name.split('/')[0]}/") and clip.identity.subject.startswith(
            name.split("/")[0]
        )
        action_units.labels(clip.action_units, (1, 2, 4, 12), clip=clip.identity.id)


@pytest.mark.skipif(not importlib.util.find_spec("apache_beam"), reason="Apache Beam is not installed")
def test_beam_builds_the_same_records(tmp_path):
    """On the direct runner, several shards; in a process of its own, for Beam warns of much."""
    script = (
        "import sys; from stag_datasets import building, corpus; building.SHARD_BYTES = 1;"
        "corpus.build('dfme', data_dir=sys.argv[1], manual_dir=sys.argv[2], beam_runner='DirectRunner')"
    )
    root = archives.write_dfme(tmp_path / "archive")
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "beam"), str(root)], check=True, cwd=ROOT, timeout=300)
    plain = corpus.build("dfme", data_dir=tmp_path / "plain", manual_dir=root)
    made = tmp_path / "beam" / plain.relative_to(tmp_path / "plain")
    assert len(list(made.glob("*.array_record*"))) == 3 and len(list(plain.glob("*.array_record*"))) == 1
    one, two = (sorted(records.read_clips(folder), key=lambda record: record["id"]) for folder in (plain, made))
    for a, b in zip(one, two, strict=True):
        assert a["id"] == b["id"] and a["source"] == b["source"]
        np.testing.assert_array_equal(a["frames"], b["frames"])


def test_every_builder_says_where_to_ask_and_whom_to_cite():
    for path in building.Path(building.__file__).parent.glob("*/*_dataset_builder.py"):
        for name in ("README.md", "CITATIONS.bib", "TAGS.txt"):
            assert (path.parent / name).read_text(encoding="utf-8").strip(), path.parent / name
