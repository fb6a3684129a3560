"""A corpus acted out from its sheet: read back by its own builder, with the motion where the annotation puts it."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from stag_datasets import archive, building, corpus
from stag_datasets.archive import Said
from stag_datasets.casme2 import casme2_dataset_builder as casme2
from stag_datasets.casme3 import casme3_dataset_builder as casme3
from stag_datasets.synth_me.render import render_clip
from stag_datasets.synth_me.script import Recipe
from stag_datasets.twin import acting, layouts, stage
from tests import archives

ROOT = Path(__file__).parents[2]
ROWS = (
    ("01", "EP02_01f", None, 46, 54, 62, None, "R1+L1+2", "surprise", 2),
    ("01", "EP03_02", None, 90, 93, 97, None, "L12+24", "happiness", 1),
    ("03", "EP01_11f", None, 8, 12, 17, None, "24", "others", 7),
)


def said(**changes):
    base = {"subject": "sub01", "clip": "EP02_01f", "emotion": "surprise", "fps": 200.0, "where": "", "folder": ()}
    return Said(**{**base, "dataset": "casme2", "onset": 46, "apex": 54, "offset": 62} | changes)


def test_units_sides_and_timing_are_those_of_the_sheet():
    spec = acting.clip_spec(said(), [(1, "R"), (1, "L"), (12, "L"), (24, "")], Recipe(), 0, 0)
    assert [(action.unit, action.side) for action in spec.actions] == [(1, ""), (12, "L")]
    assert {(pulse.unit, pulse.side) for pulse in spec.pulses} == {(1, "L"), (1, "R"), (12, "L")}
    assert (spec.frames, spec.fps, spec.onset, spec.offset) == (17, 200.0, 0, 16)
    clip = render_clip(spec, nuisance=False)
    assert abs(clip.apex - 8) <= 3
    lip = clip.expression[clip.apex]
    assert np.linalg.norm(lip[54]) > 4 * np.linalg.norm(lip[48])  # the subject's left corner, to the right of the image


def test_a_clip_is_the_same_however_many_are_made():
    one, two = (acting.clip_spec(said(), [(4, "")], Recipe(), 3, 5) for _ in range(2))
    assert one.pulses == two.pulses and one.peak == two.peak
    other = acting.clip_spec(said(), [(4, "")], Recipe(seed=9), 3, 5)
    assert other.pulses != one.pulses


def test_what_cannot_be_shown_leaves_the_face_still():
    spec = acting.clip_spec(said(), [(24, "")], Recipe(), 0, 0)
    assert spec.actions == ()
    assert np.abs(render_clip(spec, nuisance=False).expression).max() < 0.01


@pytest.mark.parametrize("emotion", ["negative", "positive", "surprise", "Happiness"])
def test_without_labels_the_emotion_says_what_is_acted(emotion):
    spec = acting.clip_spec(said(emotion=emotion, apex=None), None, Recipe(), 0, 0)
    assert spec.actions and spec.pulses


@pytest.mark.parametrize("marks", [(5, 5, 5), (5, 6, 7), (0, 0, 400), (3, None, None), (None, None, None)])
def test_any_timing_can_be_acted(marks):
    onset, apex, offset = marks
    spec = acting.clip_spec(said(onset=onset, apex=apex, offset=offset), [(4, "")], Recipe(), 0, 0)
    assert spec.frames >= acting.SHORTEST and all(0 < pulse.apex < spec.frames - 1 for pulse in spec.pulses)


def test_the_twin_is_read_by_the_corpus_own_builder(tmp_path):
    archives.write_xlsx(tmp_path / "CASME2-coding-20190701.xlsx", [archives.CASME2_HEADER, *ROWS])
    flags = ["--dataset=casme2", f"--sheet={tmp_path / 'CASME2-coding-20190701.xlsx'}", f"--out={tmp_path / 'twin'}"]
    command = [sys.executable, str(ROOT / "experiments" / "twin.py"), *flags, "--size=96"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 clips of 2 subjects" in done.stdout
    assert "2 clips have action units besides 1, 2, 4" in done.stdout and "; 1 of all show none" in done.stdout
    found = casme2.scan(tmp_path / "twin", building.DEFAULT)
    assert found.problems == [] and found.remarks == []
    first = found.entries[0]
    assert first.numbers == tuple(range(46, 63)) and first.apex == 8
    assert cv2.imread(str(first.files[0])).shape == (96, 96, 3)
    # Stopped and started again it renders what is missing, and the same.
    before = first.files[3].read_bytes()
    stamp = found.entries[1].files[0].stat().st_mtime_ns
    for path in first.files:
        path.unlink()
    assert subprocess.run(command, capture_output=True, timeout=300).returncode == 0
    assert first.files[3].read_bytes() == before and found.entries[1].files[0].stat().st_mtime_ns == stamp
    assert not list((tmp_path / "twin").rglob(".*"))


def test_several_clips_of_one_recording(tmp_path):
    archives.write_xlsx(tmp_path / "label.xlsx", [archives.CASME3_HEADER, *archives.CASME3_ROWS[:2]])
    found = corpus.scan("casme3/part_a", manual_dir=tmp_path)
    assert len(found.missing) == 2
    plan = stage.orders(found.missing, {archive.name(each): [(4, "")] for each in found.missing})
    assert sorted(stage.act(plan, tmp_path, Recipe(size=96))) == sorted(archive.name(each) for each in found.missing)
    again = casme3.scan(tmp_path, casme3.Builder.BUILDER_CONFIGS[0])
    assert again.problems == [] and [len(entry.numbers) for entry in again.entries] == [6, 10]


@pytest.mark.parametrize("dataset", layouts.LAYOUTS)
def test_every_frame_of_a_twin_has_a_place_of_its_own(dataset):
    one = said(dataset=dataset, folder=("sub01", "a", "color"), part="train")
    paths = {layouts.frame_path(dataset, one, number) for number in range(8, 13)}
    assert len(paths) == 5 and len({path.parent for path in paths}) == 1


def test_only_known_layouts():
    with pytest.raises(corpus.CorpusError, match="no twin of mine can be made; there are casme, casme2"):
        stage.orders([said(dataset="mine")], {"mine/sub01/EP02_01f": None})
