"""A recording whose process was killed goes on where it was, to the same outputs; another one is never gone on with."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from stag_configs import base
from stag_datasets import corpus
from stag_datasets.synth_me import long
from stag_jax.config import from_config_dict, replace
from stag_jax.deploy import film as films
from stag_jax.deploy import overlay, record, scan, snapshot, source, stream, timeline, unfinished
from stag_jax.deploy.results import Answer, Recogniser
from stag_jax.types import UserError

ROOT = Path(__file__).parents[2]
COUNT, AWAY = 131, range(4, 10)  # frames of the film, and those without a face
EVERY = 37
SETTINGS = stream.StreamSettings(hop_ms=70.0)


class Killed(BaseException):
    """What stands for SIGKILL in one process: nothing catches it."""


def forward(clips):
    """Says something of its own of every window."""
    b, t = clips.nodes.shape[:2]
    raw = np.abs(np.asarray(clips.nodes, np.float64).mean(axis=(1, 2))[:, :3]) + 0.1
    return Answer((raw / raw.sum(axis=1, keepdims=True)).astype(np.float32), np.full((b, t, 12), 0.25, np.float32))


@pytest.fixture(scope="module")
def recogniser():
    made = replace(from_config_dict(base.get_config()), {"motion.first_look": "dis", "motion.frames": 5})
    return Recogniser("moving", made, forward, "a1")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Of a rendered person, who is away for a moment."""
    recipe = corpus.builder("synth_me/long_tiny", data_dir="").builder_config.recipe
    path = tmp_path_factory.mktemp("video") / "person.mp4"
    with av.open(str(path), "w") as container:
        out = container.add_stream("libx264", rate=100, options={"crf": "10"})
        out.height, out.width, out.pix_fmt = 256, 256, "yuv420p"
        for index, frame in zip(range(COUNT), long.recording(recipe, 0).frames, strict=False):
            pixels = np.full_like(frame, 90) if index in AWAY else frame
            container.mux(out.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(out.encode())
    return path


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """All is saved after 37 frames already, so that a short film is stopped between its saves and at them."""
    monkeypatch.setattr(scan, "EVERY", EVERY)


def look(recogniser, video, out, settings=SETTINGS, film=True):
    return scan.file(recogniser, settings, source.open_path(video), out, "person", film=film)


class Pictures:
    """A film's frames. Two are equal where times are, and pictures but for what the encoder does: its bytes vary."""

    def __init__(self, path):
        with av.open(str(path)) as container:
            frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        self.times, self.pixels = zip(*frames, strict=True)

    def __eq__(self, other):
        return self.times == other.times and all(
            one.shape == two.shape and np.abs(one.astype(int) - two).mean() < 1
            for one, two in zip(self.pixels, other.pixels, strict=True)
        )


def contents(folder):
    return {
        path.name: Pictures(path) if path.suffix == ".mp4" else path.read_bytes()
        for path in folder.iterdir()
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(recogniser, video, tmp_path_factory):
    """The outputs of an undisturbed process."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "EVERY", EVERY)
        outcome = look(recogniser, video, out)
    assert outcome.intervals and outcome.gaps and len(outcome.scores) > 5
    assert sorted(path.name for path in out.iterdir()) == [
        "person.csv", "person.json", "person.mp4", "person.png", "person_scores.csv",
    ]  # fmt: skip
    return contents(out)


def kill(monkeypatch, where, name, after):
    """The call number `after` of a function ends the process."""
    function, calls = getattr(where, name), []

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) > after:
            raise Killed
        return function(*args, **kwargs)

    monkeypatch.setattr(where, name, counted)


def killed(patch_of, recogniser, video, out, *fault, **options):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(scan, "EVERY", EVERY)
        kill(patch, *fault)
        look(recogniser, video, out, **options)


MOMENTS = {
    **{f"frame {n}": (stream, "take", n) for n in random.Random(18).sample(range(COUNT), 7)},
    **{f"frame {n}": (stream, "take", n) for n in (0, EVERY, EVERY + 1, 2 * EVERY)},
    "drawing": (overlay, "draw", 50),
    "first save": (snapshot, "write", 0),
    "second save, written": (snapshot, "read", 1),
    "joining the film": (films, "join", 0),
    "tables": (record, "write_scores", 0),
    "picture": (timeline, "draw", 0),
    "JSON": (record, "write_json", 0),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_it_ends_in_the_same_outputs(recogniser, video, whole, tmp_path, monkeypatch, moment):
    fault = MOMENTS[moment]
    killed(monkeypatch, recogniser, video, tmp_path, *fault)
    assert not (tmp_path / "person.json").exists()
    seen, take = [], stream.take
    monkeypatch.setattr(stream, "take", lambda *args: seen.append(args[2].time_ms) or take(*args))
    look(recogniser, video, tmp_path)
    assert contents(tmp_path) == whole and not list(tmp_path.glob("*.unfinished"))
    reached = {"take": fault[2], "draw": 50 if fault[0] is overlay else COUNT, "write": EVERY, "read": 2 * EVERY}
    last_save = reached.get(fault[1], COUNT) // EVERY * EVERY - (EVERY if fault[1] == "write" else 0)
    assert len(seen) == COUNT - last_save, "what was saved is not looked at again"


def test_killed_again_and_again(recogniser, video, whole, tmp_path, monkeypatch):
    moments = random.Random(5)
    for _ in range(4):
        killed(monkeypatch, recogniser, video, tmp_path, stream, "take", moments.randrange(20, 60))
    look(recogniser, video, tmp_path)
    assert contents(tmp_path) == whole


def test_a_film_is_what_is_drawn(whole):
    """Its parts leave no trace: a frame each, at its own time."""
    np.testing.assert_allclose(whole["person.mp4"].times, np.arange(COUNT) / 100, atol=1e-6)


OTHERS = {
    "settings": {"settings": stream.StreamSettings(hop_ms=50.0)},
    "settings, film": {"film": False},
    "network": {"digest": "b2"},
    "network, name": {"name": "other"},
    "recording": {},
    "version": {},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_one_of_that_name_is_begun_anew(recogniser, video, tmp_path, monkeypatch, caplog, what):
    """What it then writes is what it writes in an empty folder."""
    killed(monkeypatch, recogniser, video, tmp_path, stream, "take", 2 * EVERY + 5)
    change = dict(OTHERS[what])
    other = recogniser._replace(**{key: change.pop(key) for key in ("digest", "name") if key in change})
    if what == "recording":
        cut = tmp_path / "cut" / "person.mp4"
        cut.parent.mkdir()
        cut.write_bytes(video.read_bytes() + b"\0")
        video = cut
    if what == "version":
        monkeypatch.setattr(unfinished, "VERSION", 99)
    look(other, video, tmp_path, **change)
    assert f"person is begun anew: what was unfinished has another {what.split(',')[0]}" in caplog.text
    clean = tmp_path / "clean"
    look(other, video, clean, **change)
    assert contents(clean) == {name: data for name, data in contents(tmp_path).items() if name.startswith("person")}


DAMAGES = {
    "snapshot": lambda folder: (folder / unfinished.SNAPSHOT).write_bytes(b"PK nothing"),
    "about": lambda folder: (folder / unfinished.ABOUT).write_text("{"),
    "about, gone": lambda folder: (folder / unfinished.ABOUT).unlink(),
    "scores": lambda folder: (folder / "scores.bin").write_bytes(b""),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_is_begun_anew(recogniser, video, whole, tmp_path, monkeypatch, what):
    killed(monkeypatch, recogniser, video, tmp_path, stream, "take", 2 * EVERY + 5)
    DAMAGES[what](tmp_path / "person.unfinished")
    look(recogniser, video, tmp_path)
    assert contents(tmp_path) == whole


def test_two_processes_are_not_at_one_recording(recogniser, video, whole, tmp_path):
    with unfinished.opened(tmp_path, "person", {}, ()):
        with pytest.raises(UserError, match=r"person\.unfinished: another process is at this recording"):
            look(recogniser, video, tmp_path)
    look(recogniser, video, tmp_path)
    assert contents(tmp_path) == whole


def test_an_error_leaves_what_was_done_and_no_half_output(recogniser, video, whole, tmp_path, monkeypatch):
    def full(path, outcome):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(timeline, "draw", full)
        with pytest.raises(UserError, match="the results of person cannot be written: No space left on device"):
            look(recogniser, video, tmp_path)
    assert not (tmp_path / "person.json").exists()
    look(recogniser, video, tmp_path)
    assert contents(tmp_path) == whole


def test_without_a_folder_nothing_is_left(recogniser, video, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    outcome = scan.file(recogniser, SETTINGS, source.open_path(video), None, "person", film=True)
    assert not list(tmp_path.iterdir())
    record.write_json(tmp_path / "person.json", outcome)  # scores can be read still
    assert (tmp_path / "person.json").read_bytes() == whole["person.json"]


def test_what_is_done_is_told_and_cleared(tmp_path):
    assert not scan.done(tmp_path, "person")
    (tmp_path / "person.json").write_text("{}")
    (tmp_path / "person.unfinished").mkdir()
    assert scan.done(tmp_path, "person") and [path.name for path in tmp_path.iterdir()] == ["person.json"]


def test_a_camera_is_not_gone_on_with(recogniser, video, tmp_path):
    recording = source.open_path(video)._replace(name="camera0", count=None, digest=None)
    outcome = scan.camera(recogniser, SETTINGS, recording, tmp_path, lambda interval: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "camera0.csv", "camera0.json", "camera0.png", "camera0_scores.csv",
    ]  # fmt: skip
    assert outcome.frames == COUNT == json.loads((tmp_path / "camera0.json").read_text())["frames"]


def saved(folder):
    """A number that changes whenever all is saved, and the size of what was said."""
    path = folder / "film.unfinished" / unfinished.SNAPSHOT
    return path.stat().st_mtime_ns if path.exists() else 0


def test_predict_killed_twice_writes_the_same_files(video, tmp_path):
    """As a user runs it, by SIGKILL, with the network that is shipped; the moments are seeded."""
    (tmp_path / "films").mkdir()
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = [*frames, *frames[::-1]] * 3
    with films.Film(tmp_path / "films" / "film.mp4") as made:
        for index, pixels in enumerate(frames):
            made.add(pixels, 20.0 * index)
    script = [sys.executable, str(ROOT / "experiments" / "predict.py"), f"--video={tmp_path / 'films'}"]
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}

    def start(out):
        return subprocess.Popen(
            [*script, f"--out={tmp_path / out}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )

    alone = start("alone").communicate(timeout=300)
    moments, before = random.Random(18), 0
    for _ in range(2):
        process = start("killed")
        deadline = time.monotonic() + 240
        while process.poll() is None and saved(tmp_path / "killed") == before and time.monotonic() < deadline:
            time.sleep(0.01)
        before = saved(tmp_path / "killed")
        time.sleep(moments.uniform(0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start("killed")
    out, messages = process.communicate(timeout=300)
    assert process.returncode == 0 and "film: going on after frame 600" in messages, messages[-2000:]
    assert out == alone[0] and "Traceback" not in messages
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")
    assert sorted(contents(tmp_path / "alone")) == ["film.csv", "film.json", "film.mp4", "film.png", "film_scores.csv"]
