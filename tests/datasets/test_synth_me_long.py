"""Long recordings: what their scripts promise, what their frames show, and the corpus as it is built and read back."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from stag_datasets import corpus
from stag_datasets.synth_me import encode, labels, long, long_script, render, script, synth_me_dataset_builder

CONFIGS = synth_me_dataset_builder.Builder.builder_configs
RECIPE = CONFIGS["long"].recipe
SMALL = script.Recipe(subjects=2, clips=2, frames=(353, 401), expressions=(2, 2), size=96, task="long")


@pytest.fixture(scope="module")
def specs() -> list[long_script.LongSpec]:
    return [spec for subject in range(RECIPE.subjects) for spec in long_script.subject_recordings(RECIPE, subject)]


@pytest.fixture(scope="module")
def played(specs) -> long.Played:
    return long.play(specs[5])  # a recording that is turned both ways and speaks twice


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> list[dict]:
    folder = corpus.build("synth_me/long_tiny", data_dir=tmp_path_factory.mktemp("data"))
    return list(tfds.builder_from_directory(folder).as_data_source(split=corpus.SPLIT))


def within(f: int, parts) -> bool:
    return any(part.onset < f < part.offset for part in parts)


def test_the_people_are_those_of_the_default_corpus_and_the_clips_are_not(specs):
    short = [script.subject_clips(script.Recipe(), subject) for subject in range(16)]
    assert [spec.subject for spec in specs] == [clips[0].subject for clips in short]
    strengths = {pulse.strength for clips in short for clip in clips for pulse in clip.pulses}
    for spec, clips in zip(specs, short, strict=True):
        assert spec.who.texture_seed == clips[0].who.texture_seed
        np.testing.assert_array_equal(spec.who.points, clips[0].who.points)
        assert not strengths & {pulse.strength for expression in spec.expressions for pulse in expression.pulses}


def test_scripts_depend_on_their_key_alone(specs):
    again = long_script.recording(RECIPE, 5)
    assert again._replace(who=None) == specs[5]._replace(who=None)
    other = long_script.recording(dataclasses.replace(RECIPE, seed=3), 5)
    assert other.expressions != again.expressions
    second = long_script.recording(RECIPE, 5, 1)
    assert (second.subject, second.clip) == ("s06", "l02") and second.expressions != again.expressions


def test_expressions_are_short_and_apart(specs):
    counts = set()
    for spec in specs:
        assert 1200 <= spec.frames <= 2000 and spec.fps == 100
        counts.add(len(spec.expressions))
        assert spec.expressions[0].onset >= 30 and spec.expressions[-1].offset < spec.frames - 30
        for expression in spec.expressions:
            assert 0.12 <= (expression.offset - expression.onset) / spec.fps <= 0.48
            assert min(pulse.onset for pulse in expression.pulses) == pytest.approx(expression.onset)
            assert max(pulse.offset for pulse in expression.pulses) == pytest.approx(expression.offset)
        for before, after in itertools.pairwise(spec.expressions):
            assert (after.onset - before.offset) / spec.fps >= 0.8
    assert counts == {4, 5, 6, 7}
    emotions = [expression.emotion for spec in specs for expression in spec.expressions]
    assert set(emotions) == set(labels.EMOTIONS) and 70 <= len(emotions) <= 110


def test_nobody_speaks_while_they_show_an_expression(specs):
    for spec in specs:
        assert 2 <= len(spec.speech)
        for speech in spec.speech:
            assert 0.98 <= (speech.offset - speech.onset) / spec.fps <= 2.52
            assert all(speech.onset <= pulse.onset < pulse.offset <= speech.offset for pulse in speech.pulses)
            assert {pulse.unit for pulse in speech.pulses} <= set(long_script.SPEECH)
            onsets = sorted({pulse.onset for pulse in speech.pulses})
            assert 3 * 0.9 <= spec.fps / np.diff(onsets).mean() <= 6 * 1.1  # syllables a second
            for expression in spec.expressions:
                gap = max(expression.onset - speech.offset, speech.onset - expression.offset)
                assert gap >= 0.1 * spec.fps


def test_blinks_and_turns_know_nothing_of_expressions(specs):
    def share(name: str, onset: str, offset: str) -> float:
        """Of the expressions that meet one, over what it is for intervals of that length anywhere."""
        met, anywhere = [], []
        for spec in specs:
            parts = getattr(spec, name)
            for expression in spec.expressions:
                length = expression.offset - expression.onset
                starts = np.arange(30, spec.frames - 30 - length, 7)
                hit = np.zeros(len(starts), bool)
                for part in parts:
                    hit |= (getattr(part, onset) < starts + length) & (getattr(part, offset) > starts)
                anywhere.append(hit.mean())
                met.append(
                    any(
                        getattr(part, onset) < expression.offset and getattr(part, offset) > expression.onset
                        for part in parts
                    )
                )
        assert 0.1 < np.mean(met) < 0.7
        return float(np.mean(met) / np.mean(anywhere))

    assert share("blinks", "onset", "offset") == pytest.approx(1, abs=0.4)
    assert share("turns", "onset", "offset") == pytest.approx(1, abs=0.4)
    for spec in specs:
        onsets = sorted({pulse.onset for pulse in spec.blinks})
        assert all(2 <= step / spec.fps <= 5 for step in np.diff(onsets))
        for before, after in itertools.pairwise(spec.turns):
            assert before.offset < after.onset and 0.5 <= (before.offset - before.onset) / spec.fps <= 1.5
    turned = {turn.yaw == 0 for spec in specs for turn in spec.turns}
    assert turned == {False, True}  # there, and back


def test_a_recipe_without_room_is_refused():
    recipe = script.Recipe(clips=1, frames=(200, 200), expressions=(7, 7), task="long")
    with pytest.raises(ValueError, match="7 expressions find no room in 200 frames"):
        long_script.recording(recipe, 0)


def test_events_are_what_moves(played):
    motion = np.linalg.norm(played.expression, axis=-1)
    unit = played.stage.face.width / 128
    assert len(played.events) == len(played.spec.expressions)
    for event, expression in zip(played.events, played.spec.expressions, strict=True):
        inside = motion[event.onset + 1 : event.offset]
        assert inside.any(axis=1).all() and inside.max() == pytest.approx(expression.peak * unit, rel=1e-3)
        assert event.apex == event.onset + 1 + inside.mean(axis=1).argmax()
        assert event.action_units == labels.notation(expression.actions)
    still = [f for f in range(played.spec.frames) if not within(f, played.events)]
    assert not motion[still].any()
    said = np.linalg.norm(played.speech, axis=-1).max(axis=1)
    silent = [f for f in range(played.spec.frames) if not within(f, played.spec.speech)]
    assert not said[silent].any()
    for speech in played.spec.speech:
        assert said[speech.onset : speech.offset].max() == pytest.approx(speech.peak * unit, rel=1e-3)


def test_without_distractors_only_head_and_light_move_outside_events():
    spec = long_script.without_distractors(long_script.recording(SMALL, 0))
    bare = long.play(spec)
    assert not bare.blink.any() and not bare.yaw.any() and not bare.speech.any()
    face = bare.stage.face
    still = np.zeros_like(bare.fields[0])
    for f in range(0, spec.frames, 7):
        rigid = face.landmarks @ bare.pose[f, :, :2].T + bare.pose[f, :, 2]
        alone = render.picture(face, still, bare.pose[f], spec.size)
        if within(f, bare.events):
            assert np.abs(bare.landmarks[f] - rigid).max() > 0
        else:
            np.testing.assert_allclose(bare.landmarks[f], rigid, atol=1e-9)
            np.testing.assert_array_equal(bare.picture(f), alone)
    apex = bare.events[0].apex
    assert (bare.picture(apex) != render.picture(face, still, bare.pose[apex], spec.size)).any()
    # The head sways as little as in a short clip, and no more than its bounds.
    sway = np.abs(bare.landmarks[:, 30] - bare.landmarks[0, 30])
    assert 0 < sway.max() < 5


def test_the_picture_is_where_its_landmarks_are(played):
    """Patches of the first frame are found in others at the place that the truth says."""
    first = cv2.cvtColor(played.picture(0), cv2.COLOR_RGB2GRAY)
    for f in (int(played.yaw.argmin()), int(played.yaw.argmax())):
        now = cv2.cvtColor(played.picture(f), cv2.COLOR_RGB2GRAY)
        shift = played.landmarks[f] - played.landmarks[0]
        assert np.abs(shift[:, 0]).max() > 3
        for point in (27, 39, 42, 48, 54):
            x, y = np.rint(played.landmarks[0, point]).astype(int)
            patch = first[y - 10 : y + 11, x - 10 : x + 11]
            found = cv2.matchTemplate(now, patch, cv2.TM_CCOEFF_NORMED)
            _, alike, _, (left, top) = cv2.minMaxLoc(found)
            assert alike > 0.8
            np.testing.assert_allclose((left + 10 - x, top + 10 - y), shift[point], atol=1.3)


def test_a_turned_head_goes_there_and_back_by_so_much(specs):
    for spec in specs[:3]:
        played = long.play(spec)
        degrees = np.degrees(played.yaw)
        assert 4 <= np.abs(degrees).max() <= 8 and degrees[0] == 0
        assert np.abs(np.diff(degrees)).max() < 0.65  # of 16 in half a second, at its fastest
        aside = played.landmarks[:, :, 0] - played.landmarks[0, :, 0]
        eyes, nose = aside[:, 36:48].mean(axis=1), aside[:, 30]
        far = np.abs(degrees) > 0.9 * np.abs(degrees).max()
        assert 4 < np.abs(eyes[far]).mean() < 16
        assert (np.abs(nose[far] - eyes[far]) > 1).all()  # it stands out
        # The frame never looks past the stage, but for a few pixels of backdrop in its upper corners.
        for matrix in played.pose:
            back = cv2.invertAffineTransform(matrix)
            corner = np.array(((0, 255, 0, 255), (0, 0, 255, 255), (1, 1, 1, 1)))
            over = np.maximum(-(back @ corner), back @ corner - 287)
            assert over[:, 2:].max() <= 0 and over.max() < 12


def test_frames_come_one_at_a_time_and_the_same_again():
    first, again = (long.recording(SMALL, 1, 1) for _ in range(2))
    assert iter(first.frames) is first.frames and first.fps == 100
    played = long.play(long_script.recording(SMALL, 1, 1))
    assert first.events == again.events == played.events
    for f, (one, other) in enumerate(itertools.islice(zip(first.frames, again.frames, strict=True), 11)):
        assert one.shape == (96, 96, 3) and one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)
        noise = one.astype(float) - played.picture(f)
        assert 0.5 < noise.std() < 12  # light and grain, and nothing else
    assert sum(1 for _ in first.frames) == played.spec.frames - 11


def test_the_tiny_corpus_reads_back_its_events(tiny):
    recipe = CONFIGS["long_tiny"].recipe
    assert len(tiny) == 3
    by_id = {record["id"].decode(): record for record in tiny}
    for subject in range(3):
        spec = long_script.recording(recipe, subject)
        record, events = by_id[f"synth_me/{spec.subject}/l01"], long.play(spec).events
        assert record["subject"].decode() == f"synth_me_{spec.subject}" and record["emotion"] == b"long"
        assert (record["onset"], record["apex"], record["offset"]) == (-1, -1, -1)
        assert not record["au_annotated"] and record["fps"] == 100
        assert len(record["frames"]) == spec.frames == 400 and record["frames"][0].shape == (256, 256, 3)
        read = record["events"]
        assert len(events) == 2
        for name in ("onset", "apex", "offset"):
            np.testing.assert_array_equal(read[name], [getattr(event, name) for event in events])
        for name in ("emotion", "action_units"):
            assert [text.decode() for text in read[name]] == [getattr(event, name) for event in events]


def test_processes_or_not_the_recordings_are_the_same(tiny):
    recipe = script.Recipe(subjects=2, clips=1, frames=(211, 223), expressions=(1, 1), size=96, task="long")
    alone, together = (list(encode.encode_corpus(recipe, workers=workers)) for workers in (1, 2))
    assert alone == together
    assert [len(clips[0].events) for clips in alone] == [1, 1]
