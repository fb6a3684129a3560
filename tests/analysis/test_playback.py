"""What is played of a clip is what training saw of it."""

import jax
import numpy as np
import pytest

from stag_jax.analysis import loaded, playback
from stag_jax.face import regions
from stag_jax.motion import quality
from stag_jax.types import UserError
from tests import viewing


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return viewing.on_frames(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def flows(tmp_path_factory):
    return viewing.on_flow_images(tmp_path_factory.mktemp("flows"), model__name="stag")


@pytest.fixture(autouse=True)
def standard_promotion():
    """Orbax mixes dtypes on purpose."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_the_networks_say_what_the_run_said(films):
    run = loaded.load_run(films.workdir)
    assert set(run.predictions["fold"]) == set(run.folds)
    for index in range(0, len(run.predictions), 2):
        row = run.predictions.iloc[index]
        seen = playback.playback(run, [films.corpus], row["id"])
        said = loaded.probabilities(run.predictions, run.classes)[index]
        np.testing.assert_allclose(seen.probability, said, atol=1e-4)
        assert (seen.features.identity.id, seen.features.identity.subject) == (row["id"], row["subject"])


def test_frames_times_and_marks_belong_together(films):
    run = loaded.load_run(films.workdir)
    name = run.predictions["id"].iloc[1]
    seen = playback.playback(run, [films.corpus], name)
    clip = playback.find_clip([films.corpus], name)
    size = run.config.face.size
    f, t = len(clip.frames), viewing.FRAMES
    assert seen.frames.shape == (f, size, size) and seen.frames.dtype == np.uint8
    np.testing.assert_array_equal(seen.raw, np.arange(f))
    np.testing.assert_allclose(seen.times_ms, np.arange(f) * 1000 / clip.fps)
    np.testing.assert_array_equal(seen.times_ms[seen.kept], seen.features.times_ms)
    np.testing.assert_array_equal(seen.magnitude[seen.kept], seen.features.magnitude)
    assert np.isnan(seen.magnitude[0]) and seen.mask.all()
    assert (seen.onset, seen.apex, seen.offset) == (clip.onset, clip.apex, clip.offset)
    assert seen.marks_ms == {name: pytest.approx(10 * getattr(clip, name)) for name in playback.MARKS}
    assert seen.flow_pictures.shape == (t, size, size, 3)
    assert ((seen.centres > 0) & (seen.centres < size)).all()
    assert seen.aux["au_probability"].shape == (t, 12) and seen.aux["temporal_attention"].shape == (t,)
    np.testing.assert_array_equal(seen.spoken, np.arange(t))
    assert seen.action_units == clip.action_units


def test_a_refused_frame_is_left_out(films, monkeypatch):
    run = loaded.load_run(films.workdir)
    name = run.predictions["id"].iloc[0]
    clip = playback.find_clip([films.corpus], name)
    frames = clip.frames.copy()
    frames[2:4] = 0
    numbers = np.arange(len(frames)) + 7
    numbers[10:] += 5  # some frames of the recording are missing
    odd = clip._replace(frames=frames, numbers=numbers, apex=None)
    monkeypatch.setattr(playback, "find_clip", lambda corpora, name: odd)
    seen = playback.playback(run, [films.corpus], name)
    assert not {2, 3} & set(seen.raw.tolist()) and len(seen.frames) == len(seen.raw) < len(frames)
    np.testing.assert_allclose(seen.times_ms, 10 * (numbers[seen.raw] - 7))
    np.testing.assert_array_equal(seen.times_ms[seen.kept], seen.features.times_ms)
    assert seen.apex is None and set(seen.marks_ms) == {"onset", "offset"}


def test_flow_images_have_a_picture_and_no_frames(flows):
    """The strain is hidden from this network as it was in training; else the probabilities would differ."""
    run = loaded.load_run(flows.workdir)
    assert not run.config.model.strain
    said = loaded.probabilities(run.predictions, run.classes)
    for index in (0, len(said) - 1):
        seen = playback.playback(run, [flows.corpus], run.predictions["id"].iloc[index])
        np.testing.assert_allclose(seen.probability, said[index], atol=1e-4)
    assert seen.frames.shape == (0, 28, 28) and seen.flow_pictures.shape == (1, 28, 28, 3)
    assert seen.times_ms.shape == (0,) and seen.marks_ms == {} and seen.apex is None
    assert seen.centres.shape == (9, 2)  # a grid of 3 x 3
    np.testing.assert_allclose(seen.centres[4], 13.5)
    assert seen.aux["frame_over_nodes"].shape == (1, 9)


def test_regions_of_the_face_on_a_flow_image(flows):
    run = loaded.load_run(flows.workdir)
    config = viewing.makers.tiny_config(graph__kind="roi")
    clip = playback.find_clip([flows.corpus], run.predictions["id"].iloc[0])
    centres = playback._from_flow_image(clip, config)["centres"]
    assert centres.shape == (22, 2) and ((centres > 0) & (centres < 28)).all()
    few = viewing.makers.tiny_config(graph__kind="roi", graph__nodes=("glabella", "chin"))
    at = [list(regions.table()).index(name) for name in ("glabella", "chin")]
    np.testing.assert_array_equal(playback._from_flow_image(clip, few)["centres"], centres[at])


def test_without_networks_there_is_the_film(films, tmp_path):
    run = loaded.load_run(viewing.unfinished(films, tmp_path / "part"))
    assert run.partial
    seen = playback.playback(run, [films.corpus], run.predictions["id"].iloc[0])
    assert seen.probability is None and seen.aux == {} and len(seen.frames)
    fold = run.predictions["fold"].iloc[0]
    run = loaded.load_run(viewing.without_fold(films, tmp_path / "missing", fold))
    assert run.missing == (fold,)
    first, last = run.predictions["id"].iloc[[0, -1]]
    assert playback.playback(run, [films.corpus], first).probability is None
    assert playback.playback(run, [films.corpus], last).probability is not None


def test_a_clip_that_is_not_there(films, tmp_path):
    run = loaded.load_run(films.workdir)
    with pytest.raises(UserError, match="there is no clip synth_me/s99/c01 in "):
        playback.playback(run, [films.corpus], "synth_me/s99/c01")
    with pytest.raises(UserError, match="holds no prepared corpus"):
        playback.playback(run, [tmp_path], "synth_me/s01/c01")


def test_a_key_frame_network_speaks_of_the_frame_that_moves_most(films):
    run = loaded.load_run(films.workdir)
    seen = playback.playback(run, [films.corpus], run.predictions["id"].iloc[0])
    found = seen.features._replace(
        magnitude=np.array([1, 3, 2, 9, 0], np.float32), frame_mask=np.array([True, True, True, False, False])
    )
    single = {"au_probability": seen.aux["au_probability"][:1]}
    np.testing.assert_array_equal(playback._spoken(single, found), [1])
    np.testing.assert_array_equal(playback._spoken({}, found), np.arange(5))


def test_weights_of_regions_are_shares():
    rng = np.random.default_rng(0)
    t, h, n = 3, 2, 4
    pooled = rng.dirichlet(np.ones(n), t)
    aux = {
        "frame_over_nodes": pooled,
        "space_attention_0": np.full((t, h, n, n), 0.1) + 0.3 * np.eye(n)[1],
        "connectivity": np.log(np.tile([1.0, 1.0, 1.0, 2.0], (t, n, 1))),
    }
    found = playback.region_weights(aux)
    assert list(found) == ["frame_over_nodes", "space_attention_0", "connectivity"]
    np.testing.assert_array_equal(found["frame_over_nodes"], pooled)
    np.testing.assert_allclose(found["space_attention_0"], np.tile([1 / 7, 4 / 7, 1 / 7, 1 / 7], (t, 1)))
    np.testing.assert_allclose(found["connectivity"], np.tile([0.2, 0.2, 0.2, 0.4], (t, 1)))
    assert playback.region_weights({}) == {}


def test_the_flow_is_in_the_colours_of_the_contact_sheets(flows):
    clip = playback.find_clip([flows.corpus], "smic/s01/EP01_01")
    moved = clip._replace(flow=np.full((28, 28, 3), 128, np.uint8))
    moved.flow[4:8, 4:8, 0] = 228  # to the right
    config = loaded.load_run(flows.workdir).config
    (picture,) = playback._from_flow_image(moved, config)["flow_pictures"]
    red, green, blue = picture[5, 5].astype(int)
    assert red > 200 and green < 60 and blue < 60
    np.testing.assert_array_equal(
        picture[20, 20], quality.coloured(np.zeros((1, 1, 2)), np.full((1, 1), 255, np.uint8))[0, 0]
    )
