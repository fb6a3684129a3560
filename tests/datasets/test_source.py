"""A built corpus is held against what it was built from, and against nothing else."""

import os
import shutil
import time

import pytest

from stag_datasets import corpus, source
from tests import archives, makers


@pytest.fixture(params=[*archives.ARCHIVES, "composite_flow", "manifest"])
def name(request):
    return request.param


def write(name, root):
    if name == "composite_flow":
        return makers.write_composite(root)
    if name == "manifest":
        for clip in ("a", "b"):
            archives.write_frames(root / "frames" / clip, range(5))
        rows = [("subject", "path", "fps", "emotion"), ("p", "frames/a", 30, "x"), ("q", "frames/b", 30, "y")]
        archives.write_csv(root / "mine.csv", rows)
        return root
    return archives.ARCHIVES[name].write(root)


def build(name, tmp_path, root):
    return corpus.build(archives.dataset(name), data_dir=tmp_path / "data", manual_dir=root)


def used(name, root):
    """Folders with frames of clips, and one file that is used."""
    scanned = corpus.scan(archives.dataset(name), manual_dir=root)
    return sorted({entry.folder for entry in scanned.entries}), scanned.entries[0].files[0], scanned.sheets


def test_stray_files_lock_nobody_out(name, tmp_path, monkeypatch):
    root = write(name, tmp_path / "a")
    folder = build(name, tmp_path, root)
    for limit in (source.FILES_MAX, 0):
        monkeypatch.setattr(source, "FILES_MAX", limit)
        for place in (root, *used(name, root)[0]):
            for stray in (".DS_Store", "Thumbs.db", "~$x.xlsx", "desktop.ini", "._img1.jpg"):
                (place / stray).write_bytes(b"stray")
        assert build(name, tmp_path, root) == folder
        shutil.rmtree(tmp_path / "data")
        assert build(name, tmp_path, root) == folder


def test_what_was_used_may_not_change(name, tmp_path):
    root = write(name, tmp_path / "a")
    build(name, tmp_path, root)
    _, file, sheets = used(name, root)
    for path in [file, *sheets[:1]]:
        data = path.read_bytes()
        path.write_bytes(data + b" " if path.suffix != ".csv" else data.swapcase())
        with pytest.raises(corpus.CorpusError, match=r"was built from other files than .* as it was") as caught:
            build(name, tmp_path, root)
        assert path.name in str(caught.value) or path.parent.name in str(caught.value)
        path.write_bytes(data)
        build(name, tmp_path, root)
        path.rename(path.with_name("gone"))
        with pytest.raises(corpus.CorpusError, match="was built from other files"):
            build(name, tmp_path, root)
        path.with_name("gone").rename(path)


@pytest.mark.parametrize("limit", [source.FILES_MAX, 0])
def test_a_moved_or_copied_archive_is_the_same(name, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(source, "FILES_MAX", limit)
    root = write(name, tmp_path / "a")
    folder = build(name, tmp_path, root)
    copied = tmp_path / "copied"
    shutil.copytree(root, copied, copy_function=shutil.copyfile)
    for path in copied.rglob("*"):
        os.utime(path, (time.time() + 9, time.time() + 9))
    assert build(name, tmp_path, copied) == folder
    reads = []
    monkeypatch.setattr(source, "_folder", lambda *args: reads.append(args))
    assert build(name, tmp_path, copied) == folder and not reads  # the times of the copy are known now


def test_the_corpus_may_lie_in_its_own_source(name, tmp_path):
    root = write(name, tmp_path / "a")
    clean = corpus.scan(archives.dataset(name), manual_dir=root)
    folder = corpus.build(archives.dataset(name), data_dir=root, manual_dir=root)
    # What prepare.py leaves there.
    (root / "features").mkdir()
    archives.write_frames(root / "reports" / "x", range(3), "sheet_{}.jpg")
    for sheet in clean.sheets:
        shutil.copy(sheet, root / "reports" / "x")
    assert corpus.build(archives.dataset(name), data_dir=root, manual_dir=root) == folder
    again = corpus.scan(archives.dataset(name), manual_dir=root)
    assert again.entries == clean.entries and again.remarks == clean.remarks and again.about == clean.about


def test_very_many_files_are_compared_by_their_folders_alone(tmp_path, monkeypatch):
    root = archives.write_casme2(tmp_path / "a")
    monkeypatch.setattr(source, "FILES_MAX", 0)
    folder = build("casme2", tmp_path, root)
    stats, stat = [], os.stat
    monkeypatch.setattr(source.os, "stat", lambda *args, **options: stats.append(args) or stat(*args, **options))
    assert source.changed(folder, root) == "" and len(stats) == 6  # five clips and the sheet
    (root / "CASME2_RAW_selected" / "sub01" / "EP03_02" / "img95.jpg").unlink()
    assert source.changed(folder, root) == "CASME2_RAW_selected/sub01/EP03_02"


def test_a_corpus_of_other_frames_than_asked_for_is_not_taken(tmp_path):
    root = archives.write_casme2(tmp_path / "a")
    build("casme2", tmp_path, root)
    with pytest.raises(corpus.CorpusError, match=r"built from the frames CASME2_RAW_selected \(5 clips\); remove it"):
        corpus.build("casme2", data_dir=tmp_path / "data", manual_dir=root, frames="Cropped")
