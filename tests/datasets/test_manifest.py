"""A corpus from one table: folders of pictures, films, and everything left out."""

import re
import wave

import av
import numpy as np
import pytest

from stag_datasets import archive, corpus
from stag_datasets.manifest import manifest_dataset_builder as manifest
from stag_jax.corpora import records
from tests import archives

HEADER = ("subject", "path", "clip", "emotion", "fps", "onset", "apex", "offset", "action_units", "group", "part")


def write_film(path, frames=11, fps=25):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for index in range(frames):
            grey = np.full((32, 48, 3), 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())


def write(root, *rows, header=HEADER):
    archives.write_csv(root / "mine.csv", [header, *rows])
    return root


def clips(tmp_path, root):
    folder = corpus.build("manifest", data_dir=tmp_path / "data", manual_dir=root)
    return {clip.identity.id: clip for clip in map(records.to_clip, records.read_clips(folder))}


def test_folders_and_films_side_by_side(tmp_path):
    root = tmp_path / "mine"
    archives.write_frames(root / "frames" / "b", [*range(7, 13), 14, 15])
    write_film(root / "films" / "a.mp4")
    write(
        root,
        ("p01", "frames/b", "", "negative", "100", "8", "10", "14", "4+L7", "family1", "train"),
        ("p02", "films/a.mp4", "smile", "positive", "", "2", "4", "9", "", "", ""),
        ("p02", str(root / "films" / "a.mp4"), "whole", "", "50", "", "", "", "0", "", ""),
    )
    found = clips(tmp_path, root)
    frames = found["manifest/p01/b"]
    assert frames.action_units == "4+L7"
    assert (frames.identity.part, frames.identity.group) == ("train", "manifest_family1")
    np.testing.assert_array_equal(frames.numbers, [8, 9, 10, 11, 12, 14])  # 13 is missing
    assert (frames.onset, frames.apex, frames.offset) == (0, 2, 5)
    film = found["manifest/p02/smile"]
    assert film.fps == 25 and film.action_units is None and film.identity.group == "manifest_p02"
    assert (film.onset, film.apex, film.offset) == (0, 2, 7)
    np.testing.assert_allclose(film.frames.mean(axis=(1, 2, 3)), 20 * np.arange(2, 10), atol=4)
    whole = found["manifest/p02/whole"]
    assert whole.fps == 50 and len(whole.frames) == 11
    assert whole.identity.emotion == "unknown" and whole.action_units == "0"


def test_grey_and_transparent_pictures_have_three_channels(tmp_path):
    import cv2

    for name, shape in (("grey", (5, 7)), ("clear", (5, 7, 4))):
        folder = tmp_path / "mine" / name
        folder.mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(folder / f"{number}.png"), np.full(shape, 77, np.uint8))
    root = write(tmp_path / "mine", ("a", "grey", 30), ("b", "clear", 30), header=("subject", "path", "fps"))
    for clip in clips(tmp_path, root).values():
        assert clip.frames.shape == (3, 5, 7, 3) and (clip.frames == 77).all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("p01", "nowhere", ""), "manifest/p01/nowhere: .*nowhere does not exist .*mine.csv row 2"),
        (("", "frames", "30"), "mine.csv row 2: no subject given"),
        (("p01", "frames", ""), "no fps given, which a folder of frames needs"),
        (("p01", "empty", "30"), "empty holds no picture"),
        (("p01", "frames", "many"), "mine.csv row 2: "),
        (("p01", "deep", "30"), "is no 8-bit picture"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, row, message):
    import cv2

    root = write(tmp_path / "mine", row, header=("Subject", "Path", "FPS"))
    archives.write_frames(root / "frames", range(3))
    (root / "empty").mkdir()
    (root / "deep").mkdir()
    cv2.imwrite(str(root / "deep" / "1.png"), np.zeros((5, 7, 3), np.uint16))
    with pytest.raises(corpus.CorpusError, match=message):
        clips(tmp_path, root)


FILM = ("subject", "path", "onset", "apex", "offset", "fps")
BAD_FILMS = {
    "offset behind the end": (("a.mp4", "", "", "99", ""), "offset is frame 99 of a film that has 11"),
    "onset behind the end": (("a.mp4", "11", "", "", ""), "onset is frame 11 of a film that has 11"),
    "onset after offset": (("a.mp4", "8", "", "5", ""), "onset 8 comes after offset 5"),
    "negative": (("a.mp4", "-3", "", "5", ""), "row 2: onset: -3 is negative"),
    "fps nan": (("a.mp4", "", "", "", "nan"), "row 2: fps 'nan' is no frame rate"),
    "fps inf": (("a.mp4", "", "", "", "inf"), "row 2: fps 'inf' is no frame rate"),
    "fps zero": (("a.mp4", "", "", "", "0"), "row 2: fps '0' is no frame rate"),
    "empty": (("empty.mp4", "", "", "", ""), "manifest/p/empty: .*empty.mp4 is empty"),
    "text": (("text.mp4", "", "", "", ""), "manifest/p/text: .*text.mp4 cannot be read as a film"),
    "half": (("half.mp4", "", "", "", ""), "manifest/p/half: .*half.mp4 is no film, or cut off"),
    "most of it": (("most.avi", "", "", "", ""), r"manifest/p/most: .*most.avi is cut off: it has \d of 11 frames"),
    "sound": (
        ("sound.wav", "", "", "", ""),
        "manifest/p/sound: .*sound.wav is no film, or cut off: it has no pictures",
    ),
    "nowhere": (("C:\\\\films\\\\b.mp4", "", "", "", ""), "manifest/p/b: .* is a path of Windows, and nothing"),
    "too long": (("a.mp4", "0", "", "10", "1"), "11 frames at 1 a second are 11.0 s, too long"),
}


@pytest.mark.parametrize("name", BAD_FILMS)
def test_a_film_is_held_against_its_row_before_anything_is_built(tmp_path, name):
    row, message = BAD_FILMS[name]
    root = write(tmp_path / "mine", ("p", *row), ("q", "a.mp4", "", "", "", ""), header=FILM)
    write_film(root / "a.mp4")
    (root / "empty.mp4").write_bytes(b"")
    (root / "text.mp4").write_text("no film at all")
    (root / "half.mp4").write_bytes((root / "a.mp4").read_bytes()[: (root / "a.mp4").stat().st_size // 2])
    write_film(root / "most.avi")
    (root / "most.avi").write_bytes((root / "most.avi").read_bytes()[:6500])
    with wave.open(str(root / "sound.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000), file.writeframes(bytes(1600))
    with pytest.raises(corpus.CorpusError, match=message) as caught:
        clips(tmp_path, root)
    assert "\n" not in str(caught.value)
    assert len(manifest.scan(root).entries) == 1


def test_an_apex_outside_of_its_clip_counts_as_missing(tmp_path):
    root = write(tmp_path / "mine", ("p", "a.mp4", "3", "9", "7", ""), header=FILM)
    write_film(root / "a.mp4")
    found = manifest.scan(root)
    assert found.entries[0].apex == -1 and "apex 9 lies outside" in found.remarks[-1]


def test_paths_of_windows_are_read_as_paths(tmp_path):
    rows = [("p", "films\\a.mp4", "x"), ("q", "C:\\Users\\me\\mine\\films\\b.mp4", "y"), ("r", "films/c.mp4", "x")]
    root = write(tmp_path / "mine", *rows, header=("subject", "path", "emotion"))
    for name in "abc":
        write_film(root / "films" / f"{name}.mp4")
    found = manifest.scan(root)
    assert found.problems == [] and [archive.name(entry.said) for entry in found.entries] == [
        "manifest/p/a",
        "manifest/q/b",
        "manifest/r/c",
    ]
    assert [line for line in found.remarks if "is taken for" in line] == [
        f"manifest/q/b: {rows[1][1]} is taken for films/b.mp4"
    ]


def rows(count, **columns):
    """As many rows of one folder of frames; columns are functions of the index."""
    plain = {
        "subject": lambda n: f"p{n % 3}",
        "path": lambda n: "frames",
        "clip": str,
        "emotion": lambda n: "ab"[n % 2],
    }
    return [(*(make(n) for make in {**plain, **columns}.values()), "30") for n in range(count)]


ODD = {
    "one class": (rows(4, emotion=lambda n: "joy"), "all 4 clips are of one emotion, joy"),
    "many classes": (
        rows(500, emotion=lambda n: f"e{n}"),
        "there are 500 emotions .* is the right column named emotion",
    ),
    "numbers": (rows(4, subject=lambda n: str(n % 2)), "the 2 subjects are numbers"),
    "one for each clip": (rows(30, subject=str), "the 30 subjects are numbers, one for each clip"),
    "one subject": (rows(4, subject=lambda n: "p"), "all 4 clips are of one subject"),
    "two spellings": (rows(2, subject=lambda n: ("p1", "P01")[n]), "subjects P01, p1 count as different ones"),
    "two persons": (rows(4), "frames is a film of several subjects: p0, p1, p2"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_about_a_table_is_said_at_once(tmp_path, name):
    table, message = ODD[name]
    root = write(tmp_path, *table, header=("subject", "path", "clip", "emotion", "fps"))
    archives.write_frames(root / "frames", range(3))
    found = manifest.scan(root)
    assert found.problems == [] and any(re.search(message, line) for line in found.remarks), found.remarks


def test_a_recording_without_marks_may_be_long(tmp_path):
    table = [("p", "a.mp4", "", "", "", "1"), ("q", "frames", "", "", "", "1"), ("r", "frames", "0", "", "10", "1")]
    root = write(tmp_path, *table, header=FILM)
    write_film(root / "a.mp4")
    archives.write_frames(root / "frames", range(11))
    found = manifest.scan(root)
    assert len(found.entries) == 2 and len([line for line in found.remarks if "lasts 11.0 s" in line]) == 2
    assert len(found.problems) == 1 and "manifest/r/frames: 11 frames at 1 a second" in found.problems[0]


def test_names_of_any_kind(tmp_path):
    table = rows(4, subject=lambda n: ("anna", "b2", "C 3", "\u5f20")[n], clip=lambda n: f"1_{n}")
    root = write(tmp_path, *table, header=("subject", "path", "clip", "emotion", "fps"))
    archives.write_frames(root / "frames", range(3))
    assert manifest.scan(root).problems == []


def test_a_table_one_folder_up_or_down_is_named(tmp_path):
    root = write(tmp_path / "mine", ("p", "a.mp4"), header=("subject", "path"))
    write_film(root / "a.mp4")
    (root / "films").mkdir()
    for wrong in (tmp_path, root / "films"):
        with pytest.raises(corpus.CorpusError, match=f"did you mean --manual_dir={root}?"):
            manifest.scan(wrong)
