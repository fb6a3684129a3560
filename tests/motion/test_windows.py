"""Windows of long recordings as clips to learn from."""

import numpy as np
import pytest

from stag_configs import base
from stag_datasets import corpus
from stag_datasets.synth_me import long
from stag_jax.analysis import require_clips
from stag_jax.config import from_config_dict, replace
from stag_jax.corpora import dataset, features, windows
from stag_jax.types import ClipIdentity, Event, Recording, UserError

COUNT = 211


@pytest.fixture(scope="module")
def config():
    return replace(
        from_config_dict(base.get_config()),
        {"motion.first_look": "dis", "motion.frames": 5, "motion.hop_ms": 70.0},
    )


@pytest.fixture(scope="module")
def recording():
    """The first frames of a long recording, and of its events those that are over by then."""
    recipe = corpus.builder("synth_me/long_tiny", data_dir="").builder_config.recipe
    made = long.recording(recipe, 0)
    frames = np.stack([frame for _, frame in zip(range(COUNT), made.frames, strict=False)])
    events = [Event(e.onset, e.offset, e.emotion, e.action_units) for e in made.events if e.offset < COUNT]
    return Recording(ClipIdentity("synth_me/s01/l01", "synth_me_s01", "synth_me"), made.fps, frames, tuple(events))


@pytest.fixture(scope="module")
def cut(recording, config):
    return windows.cut(recording, config)


def start(clip):
    return float(clip.identity.id.rpartition("@")[2])


def test_windows_are_labelled_by_what_they_hold(recording, cut):
    """By the definition, looked up window by window."""
    assert recording.events and cut
    for clip in cut:
        first, last = start(clip) / 10, start(clip) / 10 + 50
        inside = [
            sum(first <= f <= last for f in np.linspace(e.onset, e.offset, 1001)) / 1001 for e in recording.events
        ]
        if clip.identity.emotion == windows.NONE:
            assert max(inside) <= windows.TRACE + 0.01
            assert not clip.au_mask.any()
        else:
            (event,) = (e for e, share in zip(recording.events, inside, strict=True) if share >= windows.WHOLE - 0.01)
            assert clip.identity.emotion == event.emotion and clip.au_mask.all() and clip.au.any()
    assert {clip.identity.emotion for clip in cut} == {windows.NONE, *(event.emotion for event in recording.events)}


def test_windows_come_by_the_clock_and_hold_what_a_stream_sees(recording, cut):
    starts = np.array([start(clip) for clip in cut])
    assert (np.diff(starts) > 0).all() and (np.diff(starts) % 70 == 0).all() and starts[0] == 0
    for clip in cut:
        assert clip.nodes.shape[0] == 5 and clip.frame_mask.all()
        # Times are those of the frames that were kept, after the first.
        np.testing.assert_allclose((clip.frame_index - start(clip) / 10) * 10, clip.times_ms, atol=1e-3)


def test_a_recording_without_events_has_none(recording, config):
    quiet = recording._replace(events=(), frames=recording.frames[:71])
    assert {clip.identity.emotion for clip in windows.cut(quiet, config)} == {windows.NONE}


def test_a_short_recording_has_no_window(recording, config):
    assert windows.cut(recording._replace(events=(), frames=recording.frames[:37]), config) == []


def test_missing_frames_take_their_time(recording, config):
    """A gap of 200 ms: no window spans it."""
    numbers = np.arange(131)
    numbers[67:] += 20
    torn = recording._replace(events=(), frames=recording.frames[:131], numbers=numbers)
    assert all(start(clip) + 500 <= 660 or start(clip) >= 870 for clip in windows.cut(torn, config))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"fps": 0.0}, "frame rate 0.0"),
        ({"events": (Event(5, 5, "positive"),)}, "an event from frame 5 to 5"),
        ({"events": (Event(-3, 7, "positive"),)}, "from frame -3"),
        ({"events": (Event(200, COUNT, "positive"),)}, f"of a recording of {COUNT}"),
    ],
)
def test_what_is_wrong_with_a_recording_is_named(recording, config, change, said):
    with pytest.raises(UserError, match=f"synth_me/s01/l01: .*{said}"):
        windows.cut(recording._replace(**change), config)


def test_a_corpus_of_recordings_becomes_windows(tmp_path, config):
    """Prepared, cached, and labelled, with a class for windows without an expression."""
    folder = corpus.build("synth_me/long_tiny", data_dir=tmp_path)
    settings = replace(
        config,
        {
            "data.dataset": "synth_me/long_tiny",
            "data.data_dir": str(tmp_path),
            "data.workers": 1,
            "motion.hop_ms": 110.0,
        },
    )
    seen = features.prepare(folder, settings)
    with pytest.raises(UserError, match="a run on windows of recordings"):
        require_clips(tmp_path / "run", [folder])
    assert not seen.reports and not seen.faceless and len({clip.identity.id for clip in seen.clips}) == len(seen.clips)
    found = tuple(sorted({clip.identity.emotion for clip in seen.clips} - {windows.NONE}))
    made = dataset.load(folder, replace(settings, {"data.classes": (windows.NONE, *found)}))
    assert len(set(made.subjects)) == 3 and set(made.batch.label.tolist()) == set(range(1 + len(found)))
    assert (made.batch.label == 0).sum() == sum(clip.identity.emotion == windows.NONE for clip in seen.clips)
