"""CASME II, as it is shipped and damaged; what it is tested on here the other builders share."""

import dataclasses

import numpy as np
import pytest

from stag_datasets import building, corpus, versions
from stag_datasets.casme2 import casme2_dataset_builder as casme2
from stag_jax.corpora import records
from tests import archives


def by_clip(found):
    return {entry.said.clip: entry for entry in found.entries}


def test_an_archive_as_it_is_shipped(tmp_path):
    found = casme2.scan(archives.write_casme2(tmp_path), building.DEFAULT)
    clips = by_clip(found)
    assert found.problems == []
    first = clips["EP02_01f"]
    assert (first.said.subject, first.said.emotion, first.said.objective) == ("sub01", "happiness", "I")
    assert first.said.action_units == "12" and first.said.fps == 200
    assert first.numbers == tuple(range(46, 59)) and [path.name for path in first.files][-1] == "img58.jpg"
    assert (first.onset, first.apex, first.offset) == (0, -1, 12)  # apex 59 lies behind the offset
    # img98 comes before img100, whatever their names say
    assert clips["EP12_01f"].numbers == tuple(range(98, 105)) and clips["EP12_01f"].apex == -1
    assert clips["EP03_02"].apex == 6


def test_known_errata_are_put_right_and_said(tmp_path):
    root = archives.write_casme2(tmp_path)
    amended = by_clip(casme2.scan(root, building.DEFAULT))["EP06_01"]
    assert amended.numbers == tuple(range(86, 92)) and amended.said.repairs == ("offset 190 -> 91",)
    assert casme2.scan(root, building.DEFAULT).repairs == ["casme2/sub07/EP06_01: offset 190 -> 91"]
    left = casme2.scan(root, building.AS_ANNOTATED)
    assert left.repairs == [] and len(by_clip(left)["EP06_01"].numbers) == 13
    assert any("frame 99 and 91 more missing" in remark for remark in left.remarks)


def test_errata_of_another_recording_are_left_alone(tmp_path):
    row = ("07", "EP06_01", None, 120, 126, 131, None, "1+2", "surprise", 2)
    found = casme2.scan(archives.write_casme2(tmp_path, [row]), building.DEFAULT)
    assert found.repairs == [] and len(found.entries[0].numbers) == 12


def test_a_mark_far_away_costs_nothing(tmp_path):
    rows = [(*archives.CASME2_ROWS[1][:5], 10**15, *archives.CASME2_ROWS[1][6:])]
    archives.write_casme2(tmp_path, archives.CASME2_ROWS[1:2])
    archives.write_xlsx(tmp_path / "CASME2-coding-20190701.xlsx", [archives.CASME2_HEADER, *rows])
    (tmp_path / "CASME2_RAW_selected" / "sub01" / "EP03_02" / "img93.jpg").unlink()
    found = casme2.scan(tmp_path, dataclasses.replace(building.DEFAULT, longest_s=1e15))
    assert len(found.entries[0].numbers) == 11 and len(found.remarks) == 2
    assert f"frame 93 and {10**15 - 101} more missing" in found.remarks[0]
    assert "too long for a micro-expression" in casme2.scan(tmp_path, building.DEFAULT).problems[0]


def test_clips_are_found_with_and_without_their_f(tmp_path):
    archives.write_casme2(tmp_path)
    folder = tmp_path / "CASME2_RAW_selected" / "sub01"
    (folder / "EP02_01f").rename(folder / "EP02_01")
    (folder / "EP03_02").rename(folder / "ep03_02F")
    assert len(casme2.scan(tmp_path, building.DEFAULT).entries) == 5


@pytest.mark.parametrize(
    ("variant", "release"), [(building.DEFAULT, "CASME2_RAW_selected"), (building.CROPPED, "Cropped")]
)
def test_of_several_releases_the_one_asked_for_is_taken(tmp_path, variant, release):
    archives.write_casme2(tmp_path)
    for subject, clip, _, onset, *_ in archives.CASME2_ROWS:
        archives.write_frames(tmp_path / "Cropped" / f"sub{subject}" / clip, range(onset, onset + 13), "reg_img{}.jpg")
        archives.write_frames(tmp_path / "CASME2-RAW" / f"sub{subject}" / clip, range(1, 200))
    found = casme2.scan(tmp_path, variant)
    assert {path.relative_to(tmp_path).parts[0] for entry in found.entries for path in entry.files} == {release}


def test_the_version_of_the_sheet_is_told_by_its_counts():
    def emotions(counts):
        return [name.title() for name, count in counts.items() for _ in range(count)]

    for name, counts in casme2.VERSIONS.items():
        assert versions.version(emotions(counts), casme2.VERSIONS) == name
    changed = {**casme2.VERSIONS["20140508"], "fear": 1}
    assert versions.version(emotions(changed), casme2.VERSIONS) == "unknown (nearest 20140508: fear 1 instead of 2)"
    # Thirty clips of one emotion more are nearer than one clip of each of two emotions.
    changed = {**casme2.VERSIONS["20140508"], "others": 129}
    assert "(nearest 20140508: others 129 instead of 99)" in versions.version(emotions(changed), casme2.VERSIONS)
    between = {**casme2.VERSIONS["20140508"], "surprise": 26, "sadness": 5}
    assert versions.version(emotions(between), casme2.VERSIONS).endswith(
        "surprise 26 instead of 28; as near: 20140508)"
    )


def test_a_record_holds_the_frames_as_they_are(tmp_path):
    root = archives.write_casme2(tmp_path / "archive")
    folder = corpus.build("casme2", data_dir=tmp_path / "data", manual_dir=root)
    stored = {record["id"].decode(): record for record in records.read_clips(folder)}
    record = stored["casme2/sub01/EP03_02"]
    assert record["subject"] == record["group"] == b"casme2_sub01" and record["part"] == b""
    assert record["source"].endswith(b"sheet Sheet1 row 3") and record["objective"] == b"IV"
    np.testing.assert_array_equal(record["numbers"], range(90, 102))
    clip = records.to_clip(record)
    assert clip.frames.shape == (12, 5, 7, 3) and clip.apex == 6 and clip.action_units == "4+L7"
    assert np.abs(clip.frames.astype(int) - 128).max() <= 2


SHEET = "CASME2-coding-20190701.xlsx"
ROW = ("03", "EP09_01", None, 9, 11, 14, None, "1", "fear", 1)


def clip(root):
    return root / "CASME2_RAW_selected" / "sub01" / "EP02_01f"


def write_sheet(root, *more, header=archives.CASME2_HEADER):
    archives.write_xlsx(root / SHEET, [header, *archives.CASME2_ROWS, *more])


def put(name, data):
    return lambda root: (clip(root) / name).write_bytes(data)


DAMAGES = {
    "no sheet": (lambda root: (root / SHEET).unlink(), "no sheet with the columns Subject, Filename"),
    "unreadable": (lambda root: (root / SHEET).write_bytes(b"PK\x03\x04 x"), f"{SHEET} cannot be read as a table"),
    "renamed title": (
        lambda root: write_sheet(root, header=["Peak" if t == "ApexFrame" else t for t in archives.CASME2_HEADER]),
        f"no sheet with the columns .*{SHEET}, sheet Sheet1 has no column ApexFrame",
    ),
    "listed twice": (lambda root: write_sheet(root, archives.CASME2_ROWS[0]), "casme2/sub01/EP02_01f: listed twice"),
    "no number": (lambda root: write_sheet(root, (*ROW[:3], "x1", *ROW[4:])), "row 7: onset: 'x1' is no whole number"),
    "no emotion": (lambda root: write_sheet(root, (*ROW[:8], None, 1)), "row 7: no emotion given"),
    "no folder": (lambda root: write_sheet(root, ROW), "casme2/sub03/EP09_01: no folder sub03/EP09_01"),
    "empty folder": (lambda root: [path.unlink() for path in clip(root).iterdir()], "no folder sub01/EP02_01f"),
    "empty file": (put("img50.jpg", b""), "casme2/sub01/EP02_01f: .*img50.jpg is empty"),
    "cut off": (put("img50.jpg", archives.PICTURES[".jpg"][:-4]), "img50.jpg is cut off"),
    "no picture": (put("img50.jpg", b"no picture"), "img50.jpg is no picture"),
    "no number in name": (put("img.jpg", b""), "img.jpg has no number"),
    "same number": (put("img0050.jpg", b""), "have the same number"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_line_and_leaves_nothing(tmp_path, name):
    damage, message = DAMAGES[name]
    root = archives.write_casme2(tmp_path / "archive")
    damage(root)
    with pytest.raises(corpus.CorpusError, match=message) as caught:
        corpus.build("casme2", data_dir=tmp_path / "data", manual_dir=root)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("data/**/*.array_record*"))


def test_a_stopped_build_goes_on(tmp_path, monkeypatch):
    root = archives.write_casme2(tmp_path / "archive")
    whole = list(records.read_clips(corpus.build("casme2", data_dir=tmp_path / "whole", manual_dir=root)))
    monkeypatch.setattr(building, "SHARD_BYTES", 1)  # a shard a clip
    made, record = [], building.to_record

    def stops_at(count):
        def one(entry, frames):
            if len(made) == count:
                raise KeyboardInterrupt
            made.append(entry.said.clip)
            return record(entry, frames)

        return one

    monkeypatch.setattr(building, "to_record", stops_at(3))
    with pytest.raises(KeyboardInterrupt):
        corpus.build("casme2", data_dir=tmp_path / "data", manual_dir=root)
    made.clear()
    monkeypatch.setattr(building, "to_record", stops_at(-1))
    folder = corpus.build("casme2", data_dir=tmp_path / "data", manual_dir=root)
    assert len(made) == 2 and len(list(folder.glob("*.array_record*"))) == 5
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    for one, other in zip(whole, records.read_clips(folder), strict=True):
        assert one["id"] == other["id"] and one["source"] == other["source"]
        np.testing.assert_array_equal(one["frames"], other["frames"])


def test_damaged_clips_can_be_left_out(tmp_path):
    root = archives.write_casme2(tmp_path / "archive")
    (clip(root) / "img50.jpg").write_bytes(b"")
    write_sheet(root, ROW)
    folder = corpus.build("casme2", data_dir=tmp_path / "data", manual_dir=root, skip_damaged=True)
    assert len(records.read_clips(folder)) == 4
