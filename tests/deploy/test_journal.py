"""What is said of a recording comes back from its files to the last bit, and so does the state that it goes on with."""

import json
import tracemalloc

import numpy as np
import pytest

from stag_jax.deploy import intervals, journal, record, scan, snapshot, timeline
from stag_jax.deploy.journal import Journal, Position
from stag_jax.deploy.notes import Notes, Tally
from stag_jax.deploy.results import FaceResult, Gap, Interval, Result, Score
from stag_jax.face.landmarks import Box
from stag_jax.motion import incremental
from stag_jax.types import UserError

CLASSES, UNITS = ("negative", "positive", "surprise"), (1, 4, 6, 12, 25)


def score(end, seed=0):
    rng = np.random.default_rng((int(end), seed))
    au = np.full(5, np.nan, np.float32) if end % 3 == 0 else rng.random(5).astype(np.float32)
    times = np.sort(rng.uniform(end - 450, end, 3))
    numbers = float(rng.random()), rng.dirichlet(np.ones(3)).astype(np.float32), au, *map(float, times)
    return Score(end - 500.0, float(end), *numbers, float(rng.random()), float(rng.random()))


def scores(count, tracks=2):
    return [(index % tracks, score(500.0 + 40 * (index // tracks))) for index in range(count)]


def assert_same(one, other):
    """To the last bit, types and all."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray | np.generic):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(one, dict):
        assert_same(list(one.items()), list(other.items()))
    else:
        assert one == other or (one != one and other != other)


def test_scores_and_gaps_come_back(tmp_path):
    written, gaps = scores(2100), [Gap(None, 0.1, 0.1 + 0.2, "no face"), Gap(3, 1e-300, 1e300, "ä\n")]
    with Journal(tmp_path) as made:
        for start in range(0, 2100, 7):
            made.add(written[start : start + 7], gaps if start == 1400 else [])
        found = made.scores()
        assert len(found) == 2100 and made.position.scores == 2100
        assert_same(list(found), written)
        assert_same(found[1999], written[1999])
        assert_same(found[-3:], written[-3:])
        assert_same(made.gaps(), gaps)
        assert_same(made.since(written[-31][1].end_ms), [s for s in written if s[1].end_ms >= written[-31][1].end_ms])
    with Journal(tmp_path / "..") as empty:  # nothing was ever said
        assert list(empty.scores()) == empty.gaps() == empty.since(0.0) == []


def test_what_was_written_after_the_last_save_is_cut_off(tmp_path):
    written = scores(30)
    with Journal(tmp_path) as made:
        made.add(written[:20], [Gap(0, 1.0, 2.0, "a")])
        saved = made.position
        made.add(written[20:], [Gap(0, 3.0, 4.0, "b")])
    (tmp_path / journal.GAPS).write_bytes((tmp_path / journal.GAPS).read_bytes()[:-5])  # torn in the middle of a line
    with Journal(tmp_path, saved) as again:
        assert_same(list(again.scores()), written[:20])
        again.add(written[20:25], [Gap(1, 5.0, 6.0, "c")])
        assert_same(list(again.scores()), written[:25])
        assert [gap.reason for gap in again.gaps()] == ["a", "c"]
    with pytest.raises(ValueError, match=r"scores\.bin has \d+ bytes, and \d+ were written"):
        Journal(tmp_path, saved._replace(scores=26))


def test_scores_of_another_network_are_not_mixed_in(tmp_path):
    with Journal(tmp_path) as made:
        made.add(scores(1), [])
        other = score(900.0)._replace(probability=np.zeros(4, np.float32))
        with pytest.raises(ValueError, match="after one of"):
            made.add([(0, other)], [])
        assert made.position.scores == 1


def test_a_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file cannot be written to"):
        Journal(tmp_path / "file")


def result(index, said):
    """A frame of one of two faces in turn, with a score."""
    now, refused = 100.0 * index, "" if index % 7 else "turned away"
    said = said._replace(start_ms=now - 500, end_ms=now, onset_ms=now - 400, apex_ms=now - 300, offset_ms=now - 200)
    said = said._replace(expression=0.9 if index % 200 < 6 else 0.1)
    face = FaceResult(index % 2, Box(0, 0, 9, 9), np.zeros((68, 2)), refused, said, None, None)
    return Result(now, (face,), "damaged" if index % 11 == 0 else "")


def test_memory_does_not_grow_with_the_recording(tmp_path, make_config):
    """Six minutes at 10 frames a second against one, with a score a frame: taken in, written, told of."""
    from stag_jax.deploy.results import Recogniser
    from stag_jax.deploy.stream import StreamSettings

    recogniser = Recogniser("net", make_config(data={"classes": ("none", *CLASSES)}, graph={"units": UNITS}), None)
    peaks, made = [], [score(500.0 + index) for index in range(50)]
    for count in (500, 3500):
        folder = tmp_path / str(count)
        folder.mkdir()
        tracemalloc.start()
        with Notes(recogniser, StreamSettings(), "long", folder) as notes:
            for index in range(count):
                notes.add(result(index, made[index % 50]))
            assert len(notes.scores) <= 51 and len(notes.recent()) < 50
            outcome = notes.outcome()
            record.write_json(folder / "long.json", outcome)
            record.write_scores(folder / "long.csv", outcome)
            for track in (0, 1):
                timeline.curve(outcome.scores, track, 1200)
            peaks.append(tracemalloc.get_traced_memory()[1])
            assert len(outcome.scores) == count == outcome.frames
        tracemalloc.stop()
    # Three numbers a score, gaps and intervals; scores as objects are 1 kB each.
    assert peaks[1] - peaks[0] < 400 * 3000, peaks
    assert len((tmp_path / "3500" / "long.json").read_text().splitlines()) > 3500


@pytest.mark.parametrize("find", [intervals.rows, intervals.merged])
def test_intervals_are_those_of_the_scores_in_memory(tmp_path, find):
    written = scores(600, tracks=3)
    with Journal(tmp_path) as made:
        made.add(written, [])
        one, other = find(made.scores(), CLASSES, 0.4), find(written, CLASSES, 0.4)
    assert len(one) > 3
    assert_same(one, other)


TREES = {
    "values": [None, True, False, 0, -(1 << 70), 0.1, float("nan"), float("-inf"), "", "ä\n", (), [], {}],
    "arrays": (np.arange(6, dtype=np.uint8).reshape(2, 3), np.float32(0.1), np.zeros((0, 3)), np.array(True)),
    "records": (Interval(1, 1.0, 2.0, 3.0, "x", 0.5, np.ones(3), np.zeros(2)), {None: Gap(None, 0.0, 1.0, "y"), 3: ()}),
    "deep": ([([([1],)],)], ("array", "tuple", ["dict", "record"])),
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_comes_back(tmp_path, name):
    snapshot.write(tmp_path / "tree.npz", TREES[name])
    assert_same(snapshot.read(tmp_path / "tree.npz", (Interval, Gap)), TREES[name])


def test_only_known_records_are_made_and_nothing_is_executed(tmp_path):
    path = tmp_path / "tree.npz"
    snapshot.write(path, Gap(1, 0.0, 1.0, "x"))
    with pytest.raises(ValueError, match="holds no snapshot: KeyError"):
        snapshot.read(path, (Interval,))
    for odd in ({1, 2}, object(), np.array([None])):
        with pytest.raises(TypeError, match="cannot be kept"):
            snapshot.write(path, odd)
    assert snapshot.read(path, (Gap,)) == Gap(1, 0.0, 1.0, "x")
    np.savez(path, tree=np.array(json.dumps(["record", "os.system", "true"])))
    with pytest.raises(ValueError, match="holds no snapshot"):
        snapshot.read(path, scan.KINDS)
    for content in (b"", b"PK", path.read_bytes()[:-40]):
        path.write_bytes(content)
        with pytest.raises(ValueError):
            snapshot.read(path, scan.KINDS)


def test_progress_comes_back(tmp_path):
    moment = incremental.Moment(0.1, np.ones((2, 3, 3, 5), np.float32), np.zeros(2))
    tally = Tally(7, {"late": 2}, None, 3.5, {None: Gap(None, 0.0, 1.0, "x")}, Position(3, 9, (("<f4", 3), ("<f4", 5))))
    progress = scan.Progress(tally)._replace(shown=(), state=scan.stream.StreamState()._replace(time_ms=3.25))
    progress = progress._replace(
        state=progress.state._replace(
            watched=scan.watch.WatchState()._replace(
                following=((0, scan.watch.Following(incremental.MotionState(None, np.eye(2, 3), (moment,)))),)
            )
        )
    )
    snapshot.write(tmp_path / "tree.npz", progress)
    assert_same(snapshot.read(tmp_path / "tree.npz", scan.KINDS), progress)
