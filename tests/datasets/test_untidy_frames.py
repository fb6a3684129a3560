"""Frames as licensees have them: elsewhere, renamed, copied, counted anew, still packed. Over all builders."""

import os
import shutil

import numpy as np
import pytest

from stag_datasets import corpus, summary
from stag_jax.corpora import records
from tests import archives

MARKED = [name for name, kind in archives.ARCHIVES.items() if kind.marks]
WITH_SUBJECTS = [name for name, kind in archives.ARCHIVES.items() if kind.subject]
# A folder holds one clip and no other frames, so that it can be counted anew.
ONE_CLIP = ["casme", "casme2", "samm", "dfme"]


def outline(found):
    """What matters of each clip, whatever its files are called."""
    return {
        f"{entry.said.subject}/{entry.said.clip}": (len(entry.names), entry.onset, entry.apex, entry.offset)
        for entry in found.entries
    }


@pytest.fixture(params=archives.ARCHIVES)
def name(request):
    return request.param


def releases(name, root):
    return sorted(root.glob(archives.ARCHIVES[name].release))


def clip_folders(name, root):
    return sorted({path.parent for each in releases(name, root) for path in each.rglob("*") if path.is_file()})


def test_every_clip_is_found_in_a_clean_archive(name, tmp_path):
    found = archives.scan(name, tmp_path / "a")
    assert found.problems == [] and len(found.entries) == archives.ARCHIVES[name].clips
    frames = found.about["frames"]
    assert all(each.name in frames for each in releases(name, tmp_path / "a"))
    assert sum(int(part.split()[0]) for part in frames.split("(")[1:]) == len(found.entries)
    assert found.about["apex"] == f"{sum(e.apex >= 0 for e in found.entries)} of {len(found.entries)} known"
    assert ("frames passed over" in found.about) == (name == "smic/hs")  # which has crops beside the recordings


def test_names_above_the_archive_change_nothing(name, tmp_path):
    clean = archives.scan(name, tmp_path / "a")
    root = tmp_path / "crops" / "aligned_200fps_partc_and_more" / "macro" / "part_B" / "Cropped faces"
    moved = archives.scan(name, root)
    assert outline(moved) == outline(clean) and moved.problems == [] and moved.about["frames"] == clean.about["frames"]
    assert [e.said.fps for e in moved.entries] == [e.said.fps for e in clean.entries]


def test_a_users_own_crops_are_not_taken_for_recordings(name, tmp_path):
    clean = archives.scan(name, tmp_path / "a")
    for each in releases(name, tmp_path / "a"):
        shutil.copytree(each, tmp_path / "a" / "aligned" / each.name)
    if name == "casme3/part_c":  # the film of a subject has no name, so only one may be there
        with pytest.raises(corpus.CorpusError, match="has several folders of frames, aligned/part_C"):
            archives.scan(name, tmp_path / "a")
        return
    found = archives.scan(name, tmp_path / "a")
    assert outline(found) == outline(clean) and found.about["frames"] == clean.about["frames"]
    assert "aligned" in found.about["frames passed over"]
    chosen = archives.scan(name, tmp_path / "a", frames="aligned")
    assert outline(chosen) == outline(clean) and all("aligned" in str(entry.folder) for entry in chosen.entries)


def test_a_copy_of_the_frames_must_be_chosen_by_name(name, tmp_path):
    clean = archives.scan(name, tmp_path / "a")
    for each in releases(name, tmp_path / "a"):
        shutil.copytree(each, tmp_path / "a" / "again" / each.name)
    with pytest.raises(corpus.CorpusError, match=r"several folders .*again/.*(--frames=NAME|leave one)") as caught:
        archives.scan(name, tmp_path / "a")
    assert "\n" not in str(caught.value)
    if name != "casme3/part_c":
        chosen = archives.scan(name, tmp_path / "a", frames="again")
        assert outline(chosen) == outline(clean) and all("again" in str(entry.folder) for entry in chosen.entries)
        with pytest.raises(corpus.CorpusError, match="no frames in a folder named elsewhere"):
            archives.scan(name, tmp_path / "a", frames="elsewhere")


@pytest.mark.parametrize("name", WITH_SUBJECTS)
def test_two_folders_of_one_subject_are_named(name, tmp_path):
    archives.ARCHIVES[name].write(tmp_path)
    kind = archives.ARCHIVES[name]
    folder = sorted(tmp_path.glob(f"{kind.release}/{kind.subject}"))[0]
    number = int("".join(filter(str.isdigit, folder.name)))
    shutil.copytree(folder, folder.with_name(f"s000{number}"))
    with pytest.raises(corpus.CorpusError, match=f"several folders .*s000{number}/.*; .*leave one"):
        archives.scan(name, tmp_path)


def test_without_recorded_frames_the_others_are_named_and_not_taken(name, tmp_path):
    archives.scan(name, tmp_path / "a")
    (tmp_path / "a" / "my_crops").mkdir()
    for each in releases(name, tmp_path / "a"):
        each.rename(tmp_path / "a" / "my_crops" / each.name)
    shutil.rmtree(tmp_path / "a" / "SMIC_all_cropped", ignore_errors=True)
    with pytest.raises(corpus.CorpusError, match=r"no recorded frames below .*my_crops.* clips\); --frames=my_crops"):
        archives.scan(name, tmp_path / "a")


@pytest.mark.parametrize("name", ["casme/cropped", "casme2/cropped", "samm/cropped", "fourd_me/cropped"])
def test_a_variant_that_is_not_there_is_an_error(name, tmp_path):
    archives.ARCHIVES[name.partition("/")[0]].write(tmp_path)
    with pytest.raises(corpus.CorpusError, match=r"no cropped frames below .*: what is there is recorded by its names"):
        corpus.scan(name, manual_dir=tmp_path)


def test_registered_frames_are_told_by_their_names_too(tmp_path):
    archives.write_casme2(tmp_path)
    for path in (tmp_path / "CASME2_RAW_selected").rglob("*.jpg"):
        path.rename(path.with_name(f"reg_{path.name}"))
    (tmp_path / "CASME2_RAW_selected").rename(tmp_path / "frames")
    with pytest.raises(corpus.CorpusError, match=r"no recorded frames .* frames \(5 clips\)"):
        corpus.scan("casme2", manual_dir=tmp_path)
    assert len(corpus.scan("casme2/cropped", manual_dir=tmp_path).entries) == 5


def renumber(folder, first):
    frames = sorted(folder.iterdir(), key=lambda path: int("".join(filter(str.isdigit, path.stem))[-6:]))
    for index, path in enumerate(frames):
        path.rename(path.with_name(f"new_{index + first:03d}{path.suffix}"))


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ONE_CLIP)
def test_frames_counted_anew_are_told_for_the_release_as_a_whole(name, tmp_path, first):
    """The sheet's numbers are moved so that half of each clip seems to be there under them."""
    archives.ARCHIVES[name].write(tmp_path)

    def early(rows, header, columns):
        for row in rows[header + 1 :]:
            shift = int(row[columns["onset"]]) - 6
            for mark in ("onset", "apex", "offset"):
                if str(row[columns[mark]]).isdigit():
                    row[columns[mark]] = int(row[columns[mark]]) - shift
            if name == "casme2":
                row[columns["offset"]] = min(row[columns["offset"]], 6 + 12)

    as_recorded = archives.scan(name, tmp_path)
    archives.edit(tmp_path, name, early)
    for folder in clip_folders(name, tmp_path):
        renumber(folder, first)
    found = archives.scan(name, tmp_path)
    assert "counted anew" in found.about["numbering"] and found.problems == []
    assert {k: v[0] for k, v in outline(found).items() if "EP06_01" not in k} == {
        k: v[0] for k, v in outline(as_recorded).items() if "EP06_01" not in k
    }
    assert all(entry.numbers[0] == first and entry.onset == 0 for entry in found.entries)


@pytest.mark.parametrize("name", [*ONE_CLIP, "smic/hs long", "fourd_me"])
def test_a_mixed_release_is_an_error(name, tmp_path):
    archives.ARCHIVES[name].write(tmp_path)
    folders = clip_folders(name, tmp_path)
    if name == "dfme":  # each of its parts is a release of its own, with one clip
        (tmp_path / "DFME_testB" / "sub0009_02").rename(tmp_path / "DFME_train" / "sub0009_02")
        folders = [tmp_path / "DFME_train" / "sub0009_02"]
    if name in ("smic/hs long", "fourd_me"):  # only the marked frames of the first clip, counted anew
        first, last = {"smic/hs long": (110, 120), "fourd_me": (3, 11)}[name]
        for path in folders[0].iterdir():
            if not first <= int("".join(filter(str.isdigit, path.stem))) <= last:
                path.unlink()
    renumber(folders[0], 1)
    found = archives.scan(name, tmp_path)
    if name == "fourd_me":  # the other clip has other frames than annotated, so nothing tells how it is counted
        assert found.problems == [] and "counted anew" in found.about["numbering"]
    else:
        assert any("mixed releases cannot be told apart" in line for line in found.problems)


def test_frames_one_too_many_or_too_few_are_said_once(tmp_path):
    archives.write_casme2(tmp_path, [row for row in archives.CASME2_ROWS if row[1] != "EP06_01"])
    for folder in clip_folders("casme2", tmp_path):
        renumber(folder, 1)
        max(folder.iterdir()).unlink()
    found = corpus.scan("casme2", manual_dir=tmp_path)
    assert found.problems == [] and len(found.entries) == 4
    (line,) = [line for line in summary.grouped(found.remarks) if "from onset to offset" in line]
    assert "12 frames for the 13 from onset to offset; the same 4 times, also casme2/sub01/EP03_02" in line


@pytest.mark.parametrize("style", ["{}", "0{}", "000{}", "sub{}", "Sub_0{}", "S {}"])
@pytest.mark.parametrize("name", WITH_SUBJECTS)
def test_folders_of_subjects_are_compared_by_number(name, tmp_path, style):
    if name == "casme3/part_c" and style == "S {}":
        style = "s{}"
    clean = archives.scan(name, tmp_path / "a")
    kind = archives.ARCHIVES[name]
    for folder in sorted((tmp_path / "a").glob(f"{kind.release}/{kind.subject}")):
        number = int("".join(filter(str.isdigit, folder.name)))
        folder.rename(folder.with_name(style.format(number)))
    if name.startswith("smic/hs") and "long" not in name:
        shutil.rmtree(tmp_path / "a" / "SMIC_all_cropped")
    found = archives.scan(name, tmp_path / "a")
    assert found.problems == [] and outline(found) == outline(clean)


@pytest.mark.parametrize("name", MARKED)
def test_subject_cells_may_be_numbers_of_any_kind(name, tmp_path):
    clean = archives.scan(name, tmp_path / "a")

    def floats(rows, header, columns):
        for row in rows[header + 1 :]:
            digits = "".join(filter(str.isdigit, str(row[columns["subject"]])))
            if digits:
                row[columns["subject"]] = f"{int(digits)}.0"

    archives.edit(tmp_path / "a", name, floats)
    found = archives.scan(name, tmp_path / "a")
    assert found.problems == [] and len(found.entries) == len(clean.entries)
    if name != "fourd_me":  # whose subjects are texts
        assert outline(found) == outline(clean)


def test_case_and_one_more_folder_change_nothing(name, tmp_path):
    clean = archives.scan(name, tmp_path / "a")
    for folder in clip_folders(name, tmp_path / "a"):
        inner = folder / folder.name
        inner.mkdir()
        for path in list(folder.iterdir()):
            if path.is_file():
                path.rename(inner / path.name)
    nested = archives.scan(name, tmp_path / "a")
    assert nested.problems == [] and outline(nested) == outline(clean)
    root = tmp_path / "b"
    archives.ARCHIVES[name].write(root)
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            path.rename(path.with_name(path.name.upper()))
    upper = archives.scan(name, root)
    assert upper.problems == []
    assert {key.upper(): value for key, value in outline(upper).items()} == {
        key.upper(): value for key, value in outline(clean).items()
    }


NOT_READ = {
    "frames.zip": "unpack",
    "frames.part1.rar": "unpack",
    "frames.7z": "unpack",
    "EP02.avi": "the builder reads pictures",
    "img1.tif": "convert to .png",
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_an_archive_without_pictures_says_once_what_there_is(name, tmp_path, kind):
    archives.ARCHIVES[name].write(tmp_path / "a")
    for folder in clip_folders(name, tmp_path / "a"):
        for path in folder.iterdir():
            path.unlink()
        if "." in kind and kind.endswith(("avi", "tif")):
            (folder / kind).write_bytes(b"x")
    shutil.rmtree(tmp_path / "a" / "SMIC_all_cropped", ignore_errors=True)
    (tmp_path / "a" / kind).write_bytes(b"x")
    for skip in (False, True):
        with pytest.raises(corpus.CorpusError) as caught:
            corpus.build(archives.dataset(name), data_dir=tmp_path / "d", manual_dir=tmp_path / "a", skip_damaged=skip)
        assert kind in str(caught.value) and NOT_READ[kind] in str(caught.value) and "\n" not in str(caught.value)
        assert not list((tmp_path / "d").rglob("dataset_info.json"))


def test_an_empty_corpus_is_never_built(name, tmp_path):
    archives.ARCHIVES[name].write(tmp_path / "a")
    for folder in clip_folders(name, tmp_path / "a"):
        for path in folder.iterdir():
            path.write_bytes(b"")
    with pytest.raises(corpus.CorpusError, match="no clip is left, since none can be used"):
        corpus.build(archives.dataset(name), data_dir=tmp_path / "d", manual_dir=tmp_path / "a", skip_damaged=True)
    assert not list((tmp_path / "d").rglob("dataset_info.json"))


def test_copies_that_a_file_manager_made_are_left_out(name, tmp_path):
    clean = archives.scan(name, tmp_path / "a")
    for folder in clip_folders(name, tmp_path / "a"):
        for path in list(folder.iterdir())[:2]:
            shutil.copy(path, path.with_name(f"{path.stem} (1){path.suffix}"))
    found = archives.scan(name, tmp_path / "a")
    assert outline(found) == outline(clean) and any(
        "2 copies of pictures are left out" in line for line in found.remarks
    )


@pytest.mark.parametrize("name", MARKED)
def test_an_empty_mark_is_remarked_upon(name, tmp_path):
    archives.ARCHIVES[name].write(tmp_path)

    def empty(rows, header, columns):
        rows[header + 1][columns["offset"]] = None

    archives.edit(tmp_path, name, empty)
    found = archives.scan(name, tmp_path)
    lines = [*found.remarks, *found.problems]
    assert any("no offset" in line and "given" in line for line in lines), lines


def test_a_wrong_level_is_recognised(name, tmp_path):
    root = tmp_path / "a"
    kind = archives.ARCHIVES[name]
    kind.write(root)
    inside = releases(name, root)[0]
    if not kind.sheet:
        inside = inside / "HS" / "s1" / "micro"
    with pytest.raises(corpus.CorpusError, match="did you mean --manual_dir=") as caught:
        archives.scan(name, inside)
    assert str(root) in str(caught.value)


def test_smic_says_which_folder_is_missing(tmp_path):
    archives.write_smic(tmp_path)
    for release in tmp_path.iterdir():
        (release / "HS").rename(release / "high speed")
    with pytest.raises(corpus.CorpusError, match=r"no folder HS: put s1, s2 \.\.\. into a folder named HS"):
        corpus.scan("smic/hs", manual_dir=tmp_path)


def test_frames_of_a_sheet_that_lies_elsewhere_are_looked_for_nearby(tmp_path):
    archives.write_samm(tmp_path)
    (tmp_path / "sheets").mkdir()
    (tmp_path / "SAMM_Micro_FACS_Codes_v2.xlsx").rename(tmp_path / "sheets" / "v2.xlsx")
    found = corpus.scan("samm", manual_dir=tmp_path / "sheets")
    assert found.problems == [
        f"no frames of any of the 3 clips of samm: no folder 006/006_1_2 below {tmp_path / 'sheets'} (v2.xlsx, sheet "
        f"MICRO_ONLY row 15); there are no pictures at all; did you mean --manual_dir={tmp_path}?"
    ]
    assert np.all([clip.dataset == "samm" for clip in found.missing])


def test_names_in_another_encoding_can_be_printed(name, tmp_path):
    """An archive packed in China and unpacked elsewhere has names that are no UTF-8."""
    root = tmp_path / os.fsdecode("\u5fae\u8868\u60c5".encode("gb18030"))
    archives.ARCHIVES[name].write(root / "a")
    (root / "b").mkdir()
    (root / os.fsdecode("\u8868".encode("gb18030") + b".xlsx")).write_bytes(b"")
    folder = corpus.build(archives.dataset(name), data_dir=tmp_path / "d", manual_dir=root)
    assert len(records.read_clips(folder)) == archives.ARCHIVES[name].clips
    assert corpus.build(archives.dataset(name), data_dir=tmp_path / "d", manual_dir=root) == folder
    "\n".join(summary.lines(archives.scan(name, root))).encode()
    shutil.rmtree(root / "a")
    (root / os.fsdecode("\u5fae".encode("gb18030"))).mkdir()
    with pytest.raises(corpus.CorpusError):
        archives.scan(name, root)
