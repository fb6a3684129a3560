"""flow.py as a user runs it: on folders of frames, again after it was stopped, and on what it cannot use."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from stag_configs import base
from stag_datasets import corpus
from stag_datasets.synth_me import render, script
from stag_jax import files, media
from stag_jax.config import from_config_dict, replace
from stag_jax.deploy import flow_files
from stag_jax.motion import fields, observe
from stag_jax.motion import optical_flow as flows
from stag_jax.types import UserError
from tests import films

ROOT = Path(__file__).parents[2]
CONFIG = replace(from_config_dict(base.get_config()), {"motion.average_ms": 0.0, "motion.flow": "dis"})
ONE = flow_files.Options(align=True, largest=True, size=28, crop="composite", fps=None)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Rendered clips of two people as folders of numbered pictures: s01/c01, s01/c02, s02/c01."""
    root, recipe = tmp_path_factory.mktemp("flow") / "clips", script.Recipe(subjects=2, clips=3, frames=(20, 24))
    for name, subject, index in (("s01/c01", 0, 0), ("s01/c02", 0, 1), ("s02/c01", 1, 0)):
        (root / name).mkdir(parents=True)
        spec = script.subject_clips(recipe, subject)[index]
        for number, frame in enumerate(render.render_clip(spec).frames, start=31):
            Image.fromarray(frame).save(root / name / f"img{number}.png")
    return root


def run(*flags):
    command = [sys.executable, str(ROOT / "experiments" / "flow.py"), *map(str, flags)]
    # With the suite's own flags for XLA, so that both sides compile to the same arithmetic.
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def sheet(out):
    with (out / flow_files.SHEET).open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_flow_of_frames_is_what_motion_computes(clips, tmp_path):
    """By the defaults but for the average over time, which features have and images of others have not."""
    done = run(f"--input={clips / 's01'}", f"--out={tmp_path}", "--fps=100", "--average_ms=10", "--backend=tvl1")
    assert done.returncode == 0 and done.stdout == f"2 clips: {tmp_path / 'flow.csv'}\n", done.stderr[-2000:]
    config = from_config_dict(base.get_config())
    for name in ("c01", "c02"):
        clip = media.read_clip(clips / "s01" / name, 100.0)
        seen = observe.observe(clip, config)
        with np.load(tmp_path / name / "flow.npz", allow_pickle=False) as data:
            place = np.searchsorted(data["index"], seen.index)
            np.testing.assert_allclose(data["flow"][place], seen.flow, atol=1e-6)
            np.testing.assert_allclose(data["strain"][place], flows.strain(seen.flow), atol=1e-6)
            np.testing.assert_allclose(data["magnitude"], seen.magnitude[1:], atol=1e-6)
            np.testing.assert_allclose(data["times_ms"], 10.0 * data["index"])
            names, limits, motion = data["names"].tolist(), data["limits"], data["flow"]
        # An image a frame, called as its picture is, of which the flow can be had back.
        pictures = sorted(path.stem for path in (tmp_path / name).glob("*.png"))
        assert names == pictures == [f"img{number}" for number in range(32, 31 + len(clip.frames))]
        picture = np.asarray(Image.open(tmp_path / name / f"{names[4]}.png"))
        assert picture.shape == (28, 28, 3) and picture.dtype == np.uint8
        again, _ = fields.decode(picture, limits[4])
        (top, bottom), (left, right) = fields.composite_part(128, 128)
        small = cv2.resize(motion[4][top:bottom, left:right], (28, 28), interpolation=cv2.INTER_AREA)
        assert np.abs(again - small).max() <= np.ptp(limits[4], axis=1).max() / 255


def test_every_array_column_and_flag_is_documented(clips, tmp_path):
    text = (ROOT / "docs" / "flow.md").read_text(encoding="utf-8")
    source = flow_files.find(clips, tmp_path)[0]
    flow_files.make(source, CONFIG, ONE, tmp_path)
    with np.load(tmp_path / "s01/s01_c01.npz", allow_pickle=False) as data:
        names = [*data.files, *flow_files.HEADER]
    assert [name for name in names if f"`{name}`" not in text] == []
    script = (ROOT / "experiments" / "flow.py").read_text(encoding="utf-8")
    flags = re.findall(r"(?:DEFINE_\w+|number_flag)\(\s*\"(\w+)\"", script)
    assert len(flags) == 12 and [name for name in flags if name != "align" and f"`--{name}`" not in text] == []


def test_images_train_as_the_composite_does(clips, tmp_path):
    """One image a clip and the sheet, labels filled in, are an archive of `composite_flow`."""
    sources = flow_files.find(clips, tmp_path)
    rows = [flow_files.make(source, CONFIG, ONE, tmp_path) for source in sources]
    flow_files.write_sheet(rows, tmp_path / flow_files.SHEET, "clips")
    with pytest.raises(corpus.CorpusError, match=r"flow.csv row 2: label '' of s01/c01 is none of 0, 1, 2"):
        corpus.build("composite_flow", data_dir=tmp_path / "data", manual_dir=tmp_path)
    table = sheet(tmp_path)
    for row, label in zip(table, "021", strict=True):
        row["label"] = label
    files.write_table(tmp_path / flow_files.SHEET, list(table[0]), [list(row.values()) for row in table])
    built = corpus.build("composite_flow", data_dir=tmp_path / "data", manual_dir=tmp_path)
    records = {
        record["id"].decode(): record
        for record in tfds.builder_from_directory(str(built)).as_data_source(split=corpus.SPLIT)
    }
    assert {name: record["emotion"] for name, record in records.items()} == {
        "clips/s01/c01": b"negative", "clips/s01/c02": b"surprise", "clips/s02/c01": b"positive",
    }  # fmt: skip
    for row in table:
        with np.load(tmp_path / row["arrays"], allow_pickle=False) as data:
            picture, limits = fields.encode(data["flow"][0], data["strain"][0], 28, "composite")
        flow = records[f"clips/{row['sub']}/{row['filename_o']}"]["flow"]
        np.testing.assert_array_equal(flow, picture)  # red, green, blue are u, v, strain
        cells = [float(row[f"{name}_{end}"]) for name in fields.CHANNELS for end in ("low", "high")]
        np.testing.assert_allclose(cells, limits.reshape(-1), atol=1e-6)
    # Labels are not lost when the command is given again.
    flow_files.write_sheet(rows, tmp_path / flow_files.SHEET, "clips")
    assert [row["label"] for row in sheet(tmp_path)] == ["0", "2", "1"]


def test_what_is_done_is_gone_on_with_and_other_settings_are_not(clips, tmp_path, monkeypatch):
    sources = flow_files.find(clips, tmp_path)
    for source in sources:
        flow_files.make(source, CONFIG, ONE, tmp_path)
    before = contents(tmp_path)
    assert sorted(before) == [
        f"{name}.{kind}" for name in ("s01/s01_c01", "s01/s01_c02", "s02/s02_c01") for kind in ("npz", "png")
    ]
    measure = fields.aligned
    monkeypatch.setattr(fields, "aligned", lambda *_, **__: pytest.fail("measured again"))
    again = [flow_files.make(source, CONFIG, ONE, tmp_path) for source in sources]
    assert [row["sub"] for row in again] == ["s01", "s01", "s02"] and contents(tmp_path) == before
    # A clip that is torn, and one whose image is gone, are made once more; so is all of it by other settings.
    measured = []

    def counted(clip, config, *, largest):
        measured.append("/".join(clip.identity.id.split("/")[-2:]))
        return measure(clip, config, largest=largest)

    monkeypatch.setattr(fields, "aligned", counted)
    (tmp_path / "s01/s01_c01.npz").write_bytes(before["s01/s01_c01.npz"][:-9])
    (tmp_path / "s02/s02_c01.png").unlink()
    for source in sources:
        flow_files.make(source, CONFIG, ONE, tmp_path)
    assert contents(tmp_path) == before and measured == ["s01/c01", "s02/c01"]
    flow_files.make(sources[0], replace(CONFIG, {"motion.stabilise": "none"}), ONE, tmp_path)
    assert len(measured) == 3 and contents(tmp_path)["s01/s01_c01.npz"] != before["s01/s01_c01.npz"]
    changed = tmp_path / "changed"
    (changed / "c01").mkdir(parents=True)
    for path in sorted((clips / "s01" / "c01").iterdir())[:-1]:
        (changed / "c01" / path.name).write_bytes(path.read_bytes())
    (source,) = flow_files.find(changed, tmp_path)
    flow_files.make(source, CONFIG, ONE, tmp_path)
    assert len(measured) == 4


def test_a_folder_appears_whole_or_not_at_all(clips, tmp_path, monkeypatch):
    every = ONE._replace(largest=False)
    source = flow_files.find(clips, tmp_path)[0]
    write, written = flow_files._write_image, []

    def full(path, picture):
        if len(written) == 5:
            raise OSError(28, "No space left on device")
        written.append(path)
        write(path, picture)

    monkeypatch.setattr(flow_files, "_write_image", full)
    with pytest.raises(UserError, match=r"flow\.npz cannot be written: No space left on device"):
        flow_files.make(source, CONFIG, every, tmp_path)
    assert contents(tmp_path) == {} and not list((tmp_path / "s01").iterdir())
    monkeypatch.undo()
    flow_files.make(source, CONFIG, every, tmp_path)
    (tmp_path / "s01/c01/img40.png").unlink()
    flow_files.make(source, CONFIG, every, tmp_path)  # what somebody took away is there again
    assert (tmp_path / "s01/c01/img40.png").exists() and len(list((tmp_path / "s01").iterdir())) == 1


def test_a_tree_is_walked_and_mirrored(tmp_path):
    """Films beside folders of pictures, folders within folders, links; not what is hidden or was written here."""
    root, out = tmp_path / "in", tmp_path / "in" / "out"
    for name in ("a/x", "a/y/z", ".hidden", "out/a"):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / name / "1.png")
    (root / "a" / "y" / "film.avi").write_bytes(b"")
    (root / "b").symlink_to(root / "a" / "y")
    (root / "loop").symlink_to(root)
    found = flow_files.find(root, out)
    assert [(source.subject, source.clip) for source in found] == [("a", "x"), ("a", "y_film"), ("a", "y_z")]
    (root / "a" / "y_z").mkdir()
    Image.new("RGB", (8, 8)).save(root / "a" / "y_z" / "1.png")
    with pytest.raises(UserError, match=r"a/y_z and .*a/y/z would both be written as a_y_z|y/z and .*y_z would both"):
        flow_files.find(root, out)
    with pytest.raises(UserError, match="holds neither films nor pictures"):
        flow_files.find(root / "out" / "a" / "..", root / "out")
    with pytest.raises(UserError, match="no such file or folder"):
        flow_files.find(tmp_path / "none", out)


def test_a_film_of_crops(tmp_path):
    """Not aligned: frames named by their numbers, times by the film."""
    film = films.write(tmp_path / "crop.avi", [films.picture(index) for index in range(6)])
    (source,) = flow_files.find(film, tmp_path)
    options = flow_files.Options(align=False, largest=False, size=11, crop="none", fps=None)
    row = flow_files.make(source, replace(CONFIG, {"motion.reference": "previous"}), options, tmp_path)
    with np.load(tmp_path / "crop" / "flow.npz", allow_pickle=False) as data:
        assert data["flow"].shape == (5, films.HEIGHT, films.WIDTH, 2) and data["since"].tolist() == [0, 1, 2, 3, 4]
        assert json.loads(str(data["settings"]))["face"] is None and data["fps"] == 50
    assert (row["reference"], row["stabilise"], row["align"], row["fps"]) == ("previous", "none", False, 50.0)
    assert sorted(path.name for path in (tmp_path / "crop").glob("*.png"))[0] == "frame_00001.png"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--out={tmp}/out",), "--input=FILM or --input=FOLDER is missing"),
        (("--input={tmp}",), "--out=DIR is missing"),
        (("--input={tmp}/empty", "--out={tmp}/out"), "holds neither films nor pictures"),
        (("--input={tmp}/grey", "--out={tmp}/out"), "grey frame 0: no face"),
        (("--input={tmp}/grey", "--out={tmp}/out", "--skip_unusable"), "none of its 1 clips can be used"),
        (("--input={tmp}/grey", "--out={tmp}/out", "--average_ms=10"), "grey does not say its frame rate"),
        (("--input={tmp}/grey", "--out={tmp}/out", "--backend=sift"), "--backend must be one of auto,"),
        (("--input={tmp}/grey", "--out={tmp}/out", "--reference=middle"), "--reference must be one of onset, previous"),
        (("--input={tmp}/grey", "--out={tmp}/out", "--average_ms=nan"), "--average_ms=nan: must be 0 or more"),
        (("--input={tmp}/grey", "--out={tmp}/out", "--noalign", "--stabilise=affine"), "--stabilise needs an aligned"),
        (("--input={tmp}/grey", "--out={tmp}/grey/1.png"), "1.png is not a folder"),
        (("--input={tmp}/grey", "--out={tmp}/out", "--size=0"), "--size=0"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(tmp_path, flags, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "grey").mkdir()
    for number in range(3):
        Image.new("RGB", (90, 90), (99, 99, 99)).save(tmp_path / "grey" / f"{number}.png")
    done = run(*(flag.format(tmp=tmp_path) for flag in flags))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and message in errors[0], done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.*"))
