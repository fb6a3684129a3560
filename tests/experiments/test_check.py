"""`prepare.py --check`, and what `prepare.py` asks for: as a user runs them."""

import subprocess
import sys

import pytest

from stag_datasets import archive, corpus
from stag_datasets.synth_me.script import Recipe
from stag_datasets.twin import stage
from tests import archives, commands, composites


@pytest.fixture(scope="module")
def prepare():
    with commands.Script("prepare") as script:
        yield script


def lines(done, kind):
    return [line for line in done.stdout.splitlines() if line.startswith(f"{kind}: ")]


def check(prepare, dataset, root, *flags):
    done = prepare.run(f"--dataset={dataset}", f"--manual_dir={root}", "--check", *flags, folder=root)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    assert not (root / "data").exists()
    last = done.stdout.splitlines()[-1]
    assert last == "nothing is wrong" if done.returncode == 0 else last.endswith("things are wrong")
    return done


def test_all_that_is_wrong_is_listed_and_nothing_is_built(prepare, tmp_path):
    root = archives.write_casme2(tmp_path)
    assert check(prepare, "casme2", root).returncode == 1  # the sheet is none of the known ones
    clip = root / "CASME2_RAW_selected" / "sub01" / "EP02_01f"
    (clip / "img50.jpg").unlink()
    (clip / "img51.jpg").write_bytes(b"")
    odd = ("02", "EP99", None, 1, 2, 3, None, "4+banana", "others", 7)
    archives.write_frames(root / "CASME2_RAW_selected" / "sub02" / "EP99", range(1, 4))
    header = [archives.CASME2_HEADER, *archives.CASME2_ROWS, odd, ("03", "EP98", None, 1, 2, 3, None, "1", "fear", 1)]
    archives.write_xlsx(root / "CASME2-coding-20190701.xlsx", header)
    found = check(prepare, "casme2", root)
    for text in ("casme2/sub03/EP98: no folder sub03/EP98", "img51.jpg is empty", "version: unknown (nearest"):
        assert any(text in line for line in lines(found, "wrong")), text
    for text in (
        "frame 50 missing in",
        "casme2/sub02/EP99: cannot read 'BANANA' in the action units '4+banana': the clip counts as not annotated "
        "(CASME2-coding-20190701.xlsx, sheet Sheet1 row 7)",
        "apex 59 lies outside of the clip",
    ):
        assert any(text in line for line in lines(found, "remark")), text
    assert "repaired: casme2/sub07/EP06_01: offset 190 -> 91" in found.stdout
    assert "frames: CASME2_RAW_selected (6 clips)" in found.stdout and "subjects: 4" in found.stdout


@pytest.mark.parametrize("units", ["none", "None", "nan", "N/A", "-", "?"])
def test_words_for_unknown_units_are_no_remark(prepare, tmp_path, units):
    row = (*archives.CASME2_ROWS[1][:7], units, *archives.CASME2_ROWS[1][8:])
    found = check(prepare, "casme2", archives.write_casme2(tmp_path, [row]))
    assert not lines(found, "remark")


@pytest.mark.parametrize("name", [name for name, kind in archives.ARCHIVES.items() if kind.sheet])
def test_units_that_cannot_be_read_are_named_by_their_cell(prepare, tmp_path, name):
    archives.ARCHIVES[name].write(tmp_path)

    def text(rows, header, columns):
        if "units" in columns:
            rows[header + 1][columns["units"]] = "4 and 7"

    archives.edit(tmp_path, name, text)
    found = check(prepare, archives.dataset(name), tmp_path)
    if name != "smic/hs long":  # which has no units
        (line, *_) = [line for line in lines(found, "remark") if "cannot read" in line]
        assert "in the action units '4 and 7': the clip counts as not annotated (" in line and " row " in line


def test_a_sound_archive_passes(prepare, tmp_path):
    root = archives.write_smic(tmp_path)
    folders = sorted((root / "SMIC_all_raw").glob("HS/*/micro/*/*"))
    rows = [("p", folder.relative_to(root), folder.name, 30) for folder in folders]
    archives.write_csv(root / "table.csv", [("subject", "path", "clip", "fps"), *rows])
    assert check(prepare, "manifest", root).returncode == 0


def test_the_composite_passes_by_its_own_counts(prepare, tmp_path):
    found = check(prepare, "megc2019", composites.write(tmp_path / "whole"))
    assert found.returncode == 0, lines(found, "wrong")
    assert "emotions: negative 250, positive 109, surprise 83" in found.stdout and "subjects: 68" in found.stdout
    found = check(prepare, "megc2019", composites.write(tmp_path / "short", surprise=24))
    assert found.returncode == 1
    assert any("the composite has negative 88 of 88, positive 32 of 32, surprise 24 of 25" in line
               for line in lines(found, "wrong"))  # fmt: skip


def test_joined_corpora_are_checked_one_by_one(prepare, tmp_path):
    archives.write_casme2(tmp_path / "CASME2")
    archives.write_samm(tmp_path / "Samm")
    found = check(prepare, "casme2+samm", tmp_path)
    assert lines(found, "corpus") == ["corpus: casme2", "corpus: samm"]
    assert "casme2 5class" in found.stdout and "samm 5class" in found.stdout
    done = prepare.run("--dataset=casme2+smic/hs", f"--manual_dir={tmp_path}", "--check", folder=tmp_path)
    assert done.returncode == 2 and "has no folder smic: there is CASME2/, Samm/" in done.errors[0]


def test_many_frames_are_not_all_read_and_that_is_said(prepare, tmp_path, monkeypatch):
    from stag_experiments.parts import archive_check

    root = archives.write_casme2(tmp_path, archives.CASME2_ROWS[1:2])
    found = corpus.scan("casme2", manual_dir=root)
    assert archive_check._unreadable_frames(found) == []
    (root / "CASME2_RAW_selected" / "sub01" / "EP03_02" / "img92.jpg").write_bytes(b"")
    assert len(archive_check._unreadable_frames(found)) == 1
    monkeypatch.setattr(archive_check, "FRAMES_MAX", 0)
    assert archive_check._unreadable_frames(found) == []


def test_without_a_config_no_classes_are_asked_for(tmp_path):
    """The corpus has none of the classes of the defaults, and features are made and counted all the same."""
    rows = [
        ("01", "EP02_01f", None, 46, 54, 62, None, "4", "disgust", 4),
        ("02", "EP03_02", None, 9, 13, 20, None, "12", "others", 7),
    ]
    archives.write_xlsx(tmp_path / "twin" / "sheet.xlsx", [archives.CASME2_HEADER, *rows])
    scanned = corpus.scan("casme2", manual_dir=tmp_path / "twin")
    orders = stage.orders(scanned.missing, {archive.name(clip): [(4, "")] for clip in scanned.missing})
    assert len(list(stage.act(orders, tmp_path / "twin", Recipe(size=96)))) == 2

    def run(root):
        command = [sys.executable, str(commands.ROOT / "experiments" / "prepare.py"), "--dataset=casme2"]
        return subprocess.run([*command, f"--manual_dir={root}"], cwd=tmp_path, capture_output=True, text=True)

    done = run(tmp_path / "twin")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "emotions   disgust 1, others 1" in done.stdout
    again = run(tmp_path / "twin")
    assert again.returncode == 0 and done.stdout.endswith(again.stdout)
    # The corpus, its features and its report now lie in the folder that holds the archive.
    assert run(tmp_path).returncode == 0
