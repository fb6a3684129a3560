"""The builder of the composite against archives laid out as the public one, whole and damaged."""

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from stag_datasets import corpus
from stag_datasets.composite_flow.composite_flow_dataset_builder import scan
from tests import makers

# Clips of each class and subjects of each part of the composite (MEGC2019).
COMPOSITE = {"smic": ((70, 51, 43), 16), "casme2": ((88, 32, 25), 24), "samm": ((92, 26, 15), 28)}


def build(tmp_path, archive):
    return corpus.build("composite_flow", data_dir=tmp_path / "data", manual_dir=archive)


def test_records_are_what_the_archive_holds(tmp_path):
    archive = makers.write_composite(tmp_path / "archive")
    source = tfds.builder_from_directory(str(build(tmp_path, archive))).as_data_source(split=corpus.SPLIT)
    records = {record["id"].decode(): record for record in source}
    assert len(records) == 35
    record = records["casme2/sub02/EP03_01"]
    assert record["subject"] == b"casme2_sub02" and record["dataset"] == b"casme2"
    assert record["emotion"] == b"negative"  # (1 + 2) % 3 == 0
    assert record["au_annotated"] is False
    image = cv2.imread(str(archive / makers.IMAGES / "sub02_EP03_01 .png"))[..., ::-1]
    np.testing.assert_array_equal(record["flow"], image)


def test_the_complete_composite_loads(tmp_path):
    """442 clips of 68 subjects: the counts of the public sheet, with images made up."""
    rows, image = [], makers.flow_image(0, np.random.default_rng(0))
    folder = tmp_path / "archive" / makers.IMAGES
    folder.mkdir(parents=True)
    for dataset, (counts, subjects) in COMPOSITE.items():
        labels = np.repeat(range(3), counts)
        for index, label in enumerate(labels):
            subject = f"{dataset[:3]}{index % subjects:02d}"
            rows.append((dataset, subject, f"c{index}", label))
            cv2.imwrite(str(folder / f"{subject}_c{index} .png"), image)
    makers.write_sheet(tmp_path / "archive", rows)
    found = scan(tmp_path / "archive")
    clips = [entry.said for entry in found.entries]
    assert found.problems == [] and len(clips) == 442
    assert len({(clip.dataset, clip.subject) for clip in clips}) == 68
    emotions = [clip.emotion for clip in clips]
    assert [emotions.count(name) for name in ("negative", "positive", "surprise")] == [250, 109, 83]
    assert build(tmp_path, tmp_path / "archive").is_dir()


def _remove_image(archive):
    (archive / makers.IMAGES / "s01_EP02_01 .png").unlink()


def _truncate_image(archive):
    path = archive / makers.IMAGES / "s01_EP02_01 .png"
    path.write_bytes(path.read_bytes()[:40])


def _empty_image(archive):
    (archive / makers.IMAGES / "s01_EP02_01 .png").write_bytes(b"")


def _grey_image(archive):
    cv2.imwrite(str(archive / makers.IMAGES / "s01_EP02_01 .png"), np.zeros((28, 28), np.uint8))


def _edit(archive, old, new):
    path = archive / makers.SHEET
    path.write_text(path.read_text().replace(old, new, 1))


BROKEN = {
    "image missing": (_remove_image, r"names s01_EP02_01\.png, not found"),
    "image truncated": (_truncate_image, r"s01_EP02_01 \.png cannot be read as an image"),
    "image empty": (_empty_image, r"s01_EP02_01 \.png cannot be read as an image"),
    "image grey": (_grey_image, r"s01_EP02_01 \.png is not an 8-bit image of three channels"),
    "subject without a clip": (lambda a: _edit(a, "smic,s01,EP02_01", "smic,s01,"), r"row 3: no clip given"),
    "no subject": (lambda a: _edit(a, "smic,s01,EP02_01", "smic,,EP02_01"), r"row 3: no subject"),
    "unknown label": (lambda a: _edit(a, "smic,s01,EP02_01,1", "smic,s01,EP02_01,7"), r"row 3: label '7'"),
    "listed twice": (
        lambda a: _edit(a, "smic,s01,EP02_01,1", "smic,s01,EP01_01,1"),
        r"smic/s01/EP01_01: listed twice, .* row 2 and .* row 3",
    ),
    "column renamed": (
        lambda a: _edit(a, "filename_o", "file"),
        r"no sheet with the columns dataset, sub, filename_o, label .* has no column filename_o",
    ),
    "no sheet": (
        lambda a: (a / makers.SHEET).unlink(),
        r"no sheet with the columns dataset, sub, filename_o, label .*no table at all",
    ),
    "not text": (lambda a: (a / makers.SHEET).write_bytes(b"\xff\xfe\x00dataset"), r"no sheet with the columns"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_archive_is_one_clear_line_and_leaves_nothing(tmp_path, name):
    breaks, message = BROKEN[name]
    archive = makers.write_composite(tmp_path / "archive")
    breaks(archive)
    with pytest.raises(corpus.CorpusError, match=message) as caught:
        build(tmp_path, archive)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").rglob("*.array_record*"))
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_manual_dir_missing_empty_or_no_folder(tmp_path):
    with pytest.raises(corpus.CorpusError, match="composite_flow is not shipped"):
        build(tmp_path, "")
    with pytest.raises(corpus.CorpusError, match="nowhere is not a folder"):
        build(tmp_path, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(corpus.CorpusError, match="empty is empty"):
        build(tmp_path, tmp_path / "empty")


def test_a_built_corpus_is_not_taken_for_another(tmp_path):
    archive = makers.write_composite(tmp_path / "archive", subjects=3)
    folder = build(tmp_path, archive)
    assert build(tmp_path, archive) == folder and build(tmp_path, "") == folder
    moved = archive.rename(tmp_path / "moved")
    assert build(tmp_path, moved) == folder
    larger = makers.write_composite(tmp_path / "larger", subjects=4)
    with pytest.raises(corpus.CorpusError, match=r"was built from other files than .*larger holds"):
        build(tmp_path, larger)


def test_unknown_corpus_names_the_known():
    with pytest.raises(corpus.CorpusError, match=r"no corpus named 'casme9'.*composite_flow, .*synth_me"):
        corpus.builder("casme9", data_dir="unused")
