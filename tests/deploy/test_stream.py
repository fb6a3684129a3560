"""The step of a stream, and a recording through it to its files."""

import dataclasses
import json

import av
import numpy as np
import pytest

from stag_configs import base
from stag_datasets import corpus
from stag_datasets.synth_me import long
from stag_jax.config import from_config_dict, replace
from stag_jax.deploy import realtime, record, scan, source, stream
from stag_jax.deploy.results import Answer, Recogniser
from stag_jax.protocol import spotting
from stag_jax.types import UserError

COUNT = 131


def forward(clips):
    """Says the same whatever it sees."""
    b, t = clips.nodes.shape[:2]
    return Answer(np.tile(np.float32((0.2, 0.5, 0.3)), (b, 1)), np.full((b, t, 12), 0.25, np.float32))


@pytest.fixture(scope="module")
def recogniser():
    made = replace(from_config_dict(base.get_config()), {"motion.first_look": "dis", "motion.frames": 5})
    return Recogniser("constant", made, forward)


@pytest.fixture(scope="module")
def recording():
    """The first frames of a long recording, in which one expression is over, and its events."""
    recipe = corpus.builder("synth_me/long_tiny", data_dir="").builder_config.recipe
    made = long.recording(recipe, 0)
    frames = [frame for _, frame in zip(range(COUNT), made.frames, strict=False)]
    return np.stack(frames), [event for event in made.events if event.offset < COUNT - 20]


@pytest.fixture(scope="module")
def video(recording, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "person.mp4"
    with av.open(str(path), "w") as container:
        out = container.add_stream("libx264", rate=100, options={"crf": "10"})
        out.height, out.width, out.pix_fmt = 256, 256, "yuv420p"
        for frame in recording[0]:
            container.mux(out.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(out.encode())
    return path


def watch(recogniser, items, **settings):
    step, state = stream.make_step(recogniser, stream.StreamSettings(**settings)), stream.StreamState()
    results = []
    for pixels, time in items:
        state, result = step(state, pixels, time)
        results.append(result)
    return state, results


def test_windows_come_by_the_clock(recogniser, recording):
    _, results = watch(recogniser, [(frame, 10.0 * f) for f, frame in enumerate(recording[0])], hop_ms=70.0)
    scores = [face.score for result in results for face in result.faces if face.score]
    ends = np.array([score.end_ms for score in scores])
    assert ends[0] == pytest.approx(500, abs=10) and (np.diff(ends) == 70).all()
    for score in scores:
        assert score.end_ms - score.start_ms == pytest.approx(490, abs=11)
        assert score.start_ms <= score.onset_ms <= score.apex_ms <= score.offset_ms <= score.end_ms
        assert 0 <= score.expression < 1


def test_the_step_is_pure(recogniser, recording):
    step, state = stream.make_step(recogniser, stream.StreamSettings()), stream.StreamState()
    for f, frame in enumerate(recording[0][:60]):
        state, _ = step(state, frame, 10.0 * f)
    one, other = (step(state, recording[0][60], 600.0) for _ in range(2))
    for a, b in zip(one[1].faces, other[1].faces, strict=True):
        np.testing.assert_array_equal(a.flow, b.flow)
    assert one[0].time_ms == other[0].time_ms == 600.0


def test_a_time_that_goes_backwards_is_dropped_and_changes_nothing(recogniser, recording):
    frames = recording[0]
    straight = [(frame, 10.0 * f) for f, frame in enumerate(frames[:90])]
    crooked = [*straight[:40], (frames[3], 35.0), (frames[3], 390.0), *straight[40:]]
    _, expected = watch(recogniser, straight)
    _, found = watch(recogniser, crooked)
    assert [r.dropped for r in found[40:42]] == [stream.BACKWARDS] * 2
    kept = [*found[:40], *found[42:]]
    for a, b in zip(kept, expected, strict=True):
        assert (a.time_ms, a.dropped) == (b.time_ms, b.dropped)
        assert [f.score and f.score.magnitude for f in a.faces] == [f.score and f.score.magnitude for f in b.faces]


def test_no_window_spans_a_face_that_was_away(recogniser, recording):
    frames = recording[0].copy()
    frames[45:60] = 90
    _, results = watch(recogniser, [(frame, 10.0 * f) for f, frame in enumerate(frames)])
    assert all(face.refused for result in results[45:60] for face in result.faces)
    scores = [face.score for result in results for face in result.faces if face.score]
    assert scores and all(score.start_ms >= 600 for score in scores)


def test_frames_of_any_kind_are_survived(recogniser, recording):
    frame = recording[0][0]
    odd = [np.zeros((8, 8, 3), np.uint8), frame[:200, :180], np.zeros((3, 700, 3), np.uint8), frame]
    _, results = watch(recogniser, [(pixels, 10.0 * f) for f, pixels in enumerate([frame, *odd])])
    assert len(results) == 5 and not results[-1].dropped


def test_memory_is_bounded(recogniser, recording):
    items = [(recording[0][f % COUNT], 10.0 * f) for f in range(2 * COUNT)]
    state, _ = watch(recogniser, items)
    assert all(len(own.motion.moments) <= 76 for _, own in state.watched.following)


@pytest.mark.parametrize("change", [{"hop_ms": -1.0}, {"faces": 0}, {"threshold": 0.0}])
def test_settings_out_of_range_are_named(recogniser, change):
    with pytest.raises(UserError, match=f"--{next(iter(change))} must"):
        stream.make_step(recogniser, dataclasses.replace(stream.StreamSettings(), **change))


def test_flow_images_have_no_video(recogniser):
    other = recogniser._replace(config=replace(recogniser.config, {"graph.kind": "grid"}))
    with pytest.raises(UserError, match="constant is for flow images"):
        stream.make_step(other, stream.StreamSettings())


def test_results_are_those_of_the_step(recogniser, recording):
    """One frame is damaged, one comes with the time of an earlier one."""
    frames = [source.Frame(pixels, 10.0 * f, "") for f, pixels in enumerate(recording[0][:90])]
    frames[7] = source.Frame(None, 70.0, "damaged")
    frames[41] = frames[41]._replace(time_ms=230.0)
    settings = stream.StreamSettings(hop_ms=70.0)
    told = list(stream.results(recogniser, settings, iter(frames)))
    assert [frame for frame, _ in told] == frames
    assert [result.dropped for _, result in told if result.dropped] == ["damaged", stream.BACKWARDS]
    _, expected = watch(recogniser, [(f.pixels, f.time_ms) for f in frames if f.pixels is not None], hop_ms=70.0)
    given = [result for frame, result in told if frame.pixels is not None]
    assert any(face.score for result in given for face in result.faces)
    for one, other in zip(given, expected, strict=True):
        assert (one.time_ms, one.dropped) == (other.time_ms, other.dropped)
        for face, same in zip(one.faces, other.faces, strict=True):
            assert (face.track, face.refused, face.box) == (same.track, same.refused, same.box)
            for a, b in ((face.flow, same.flow), (face.landmarks, same.landmarks)):
                assert (a is None) == (b is None)
                if a is not None:
                    np.testing.assert_array_equal(a, b)
            assert (face.score is None) == (same.score is None)
            if face.score:
                assert face.score.magnitude == same.score.magnitude and face.score.onset_ms == same.score.onset_ms


def test_what_the_source_raises_comes_through(recogniser, recording):
    def torn():
        yield source.Frame(recording[0][0], 0.0, "")
        raise UserError("the disk is gone")

    with pytest.raises(UserError, match="the disk is gone"):
        list(stream.results(recogniser, stream.StreamSettings(), torn()))


def test_a_network_that_spots_says_how_likely_an_expression_is():
    probability, there = stream.spotted(np.array((0.6, 0.3, 0.1)), ("none", "negative", "positive"))
    assert there == pytest.approx(0.4)
    np.testing.assert_allclose(probability, (0.75, 0.25))
    probability, there = stream.spotted(np.array((0.0, 1.0, 0.0)), ("negative", "none", "positive"))
    assert there == 0 and np.isfinite(probability).all()


def test_a_file_is_written_whole(recogniser, recording, video, tmp_path):
    outcome = scan.file(recogniser, stream.StreamSettings(), source.open_path(video), tmp_path, "person", film=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "person.csv", "person.json", "person.mp4", "person.png", "person_scores.csv",
    ]  # fmt: skip
    assert outcome.frames == COUNT and outcome.fps == pytest.approx(100, rel=1e-3) and not outcome.dropped
    assert record.read(tmp_path / "person.json").intervals[0].emotion == "positive"
    (event,) = recording[1]
    found = [i for i in outcome.intervals if i.onset_ms < 10 * event.offset and i.offset_ms > 10 * event.onset]
    spans = [spotting.Span(i.onset_ms, i.offset_ms) for i in found]
    assert len(spans) == 1 and spotting.iou(spans[0], spotting.Span(10 * event.onset, 10 * event.offset)) >= 0.5


def test_nothing_is_half_written(recogniser, video, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file"):
        scan.file(recogniser, stream.StreamSettings(), source.open_path(video), tmp_path / "file", "person", film=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_files_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="would both be written as a"):
        scan.names([tmp_path / "x" / "a.mp4", tmp_path / "y" / "a.avi"])


@pytest.mark.parametrize("fps", [30, 100, 200])
def test_in_real_time_every_frame_is_accounted_for(recogniser, recording, fps):
    frames = recording[0]
    items = [(frames[f % COUNT], 1000.0 * f / fps) for f in range(fps)]
    results = []
    step = stream.make_step(recogniser, stream.StreamSettings(hop_ms=100.0))
    step(stream.StreamState(), frames[0], 0.0)  # the first use of the detector takes seconds
    report = realtime.run(step, stream.StreamState(), realtime.paced(items), capacity=3, on_result=results.append)
    assert [result.time_ms for result in results] == [time for _, time in items]
    assert report.taken == fps == report.analysed + report.dropped
    assert sum(result.dropped == realtime.LATE for result in results) == report.dropped
    assert report.latency.max <= 1.05 * (3 + 1) * report.step.max + 50


def test_the_schema_is_shipped():
    assert json.dumps(record.schema())
