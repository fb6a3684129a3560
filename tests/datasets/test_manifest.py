"""A corpus from one table: folders of pictures, films, and everything left out."""

import av
import numpy as np
import pytest

from stag_datasets import corpus
from stag_jax.corpora import records
from stag_jax.types import UserError
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
    assert frames.action_units == "4+L7" and (frames.identity.part, frames.identity.group) == ("train", "manifest_family1")
    np.testing.assert_array_equal(frames.numbers, [8, 9, 10, 11, 12, 14])  # 13 is missing
    assert (frames.onset, frames.apex, frames.offset) == (0, 2, 5)
    film = found["manifest/p02/smile"]
    assert film.fps == 25 and film.action_units is None and film.identity.group == "manifest_p02"
    assert (film.onset, film.apex, film.offset) == (0, 2, 7)
    np.testing.assert_allclose(film.frames.mean(axis=(1, 2, 3)), 20 * np.arange(2, 10), atol=4)
    whole = found["manifest/p02/whole"]
    assert whole.fps == 50 and len(whole.frames) == 11 and whole.identity.emotion == "unknown" and whole.action_units == "0"


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


@pytest.mark.parametrize(
    ("marks", "message"), [(("", "99"), "offset is frame 99 of a film that has 11"), (("11", ""), "onset is frame 11")]
)
def test_marks_beyond_the_end_of_a_film(tmp_path, marks, message):
    root = write(tmp_path / "mine", ("p", "a.mp4", *marks), header=("subject", "path", "onset", "offset"))
    write_film(root / "a.mp4")
    with pytest.raises(UserError, match=f"manifest/p/a: {message}"):
        clips(tmp_path, root)


def test_a_damaged_film_is_named_by_its_clip(tmp_path):
    root = write(tmp_path / "mine", ("p", "a.mp4"), header=("subject", "path"))
    (root / "a.mp4").write_bytes(b"no film at all")
    with pytest.raises(UserError, match="manifest/p/a: "):
        clips(tmp_path, root)
