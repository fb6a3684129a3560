import dataclasses

import cv2
import numpy as np
import pytest

from stag_configs import base
from stag_jax.config import from_config_dict
from stag_jax.face import landmarks, regions, template, tracking
from stag_jax.motion import extract, nodes, observe
from stag_jax.types import Clip, ClipIdentity, FlowClip, UserError

CONFIG = from_config_dict(base.get_config())
HEIGHT, WIDTH = 203, 187  # odd, and not square
LEFT, TOP, SIDE = 20, 25, 150.0  # where the canonical square lies in the frames
FACE = template.in_canonical(template.mean_face()) * SIDE + (LEFT, TOP)


def clip(frames, **changes):
    plain = Clip(
        ClipIdentity("corpus/s1/c1", "corpus_s1", "corpus", "positive"),
        action_units="12+L6?",
        fps=200.0,
        frames=frames,
    )
    return plain._replace(**changes)


@pytest.fixture
def known_face(monkeypatch):
    """The face is where the test put it, so that what is tested is what comes after the landmarks."""

    def track(frames, cfg, *, clip):
        f = len(frames)
        points = np.repeat(FACE[None], f, axis=0).astype(np.float32)
        box = np.tile(np.array([LEFT, TOP, LEFT + 150, TOP + 150]), (f, 1))
        return tracking.Track(points, box, np.ones(f, np.float32), np.zeros(f, np.float32), ("",) * f)

    monkeypatch.setattr(tracking, "track", track)


def frames(amounts, shift=(0.0, 0.0)):
    """Texture in which the lip corners move up by `amounts` pixels, and everything by `shift` a frame."""
    rng = np.random.default_rng(0)
    drawn = sum(s * cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH)).astype(np.float32), (0, 0), s) for s in (1.5, 4))
    drawn = 128 + 35 * drawn / drawn.std()
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    bump = sum(np.exp(-((x - FACE[p, 0]) ** 2 + (y - FACE[p, 1]) ** 2) / 2 / 14**2) for p in (48, 54))
    made = []
    for f, amount in enumerate(amounts):
        at = np.float32(x - f * shift[0]), np.float32(y - f * shift[1] + amount * bump)
        grey = cv2.remap(drawn, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        made.append(np.repeat(np.uint8(np.clip(grey, 0, 255))[..., None], 3, axis=2))
    return np.stack(made)


def smile(f=23, peak=11):
    return 1.5 * np.exp(-(((np.arange(f) - peak) / 4) ** 2))


def test_a_smile_is_found_where_and_when_it_is(known_face):
    found = extract.extract(clip(frames(smile())), CONFIG)
    k, n, d = found.nodes.shape
    assert (k, n, d) == (8, 22, 70)
    assert found.nodes.dtype == found.times_ms.dtype == found.magnitude.dtype == np.float32
    assert found.frame_mask.all() and (np.diff(found.frame_index) > 0).all()
    assert 11 in found.frame_index and found.frame_index[found.magnitude.argmax()] in (10, 11, 12)
    assert 0 not in found.frame_index
    np.testing.assert_allclose(found.times_ms, found.frame_index * 5.0)
    names = list(regions.table())
    peak = found.nodes[found.magnitude.argmax()]
    strongest = np.argsort(peak[:, nodes.MEAN_MAGNITUDE])[-2:]
    assert {names[i] for i in strongest} == {"lip_corner_l", "lip_corner_r"}
    assert peak[strongest, 49].max() < -0.6  # mean v: upwards, in pixels of the canonical face
    np.testing.assert_array_equal(found.au[[5, 8]], [0, 1])  # AU 7, AU 12
    np.testing.assert_array_equal(found.au_mask[[4, 5, 8]], [False, True, True])  # AU 6 was doubtful


def test_a_moving_head_gives_the_same_features(known_face):
    still = extract.extract(clip(frames(smile())), CONFIG)
    moving = extract.extract(clip(frames(smile(), shift=(0.1, -0.15))), CONFIG)
    assert np.abs(moving.frame_index - still.frame_index).max() <= 2
    peaks = [c.nodes[list(c.frame_index).index(11)] for c in (still, moving)]
    assert np.abs(peaks[0] - peaks[1])[:, 64:66].max() < 0.25  # the head moved by two pixels until then


def test_missing_frames_change_the_features_by_what_interpolation_does(known_face, monkeypatch):
    """The same moments of a clip with and without a gap beside them; the gap used to be averaged across by index."""
    whole = clip(frames(smile()))
    there = np.delete(np.arange(23), [6, 7, 8, 13, 15])
    gapped = whole._replace(frames=whole.frames[there], numbers=there)
    keep = np.array([9, 10, 11, 12, 14, 16])
    full, cut = (
        extract.from_frames(one, observe.observe(one, CONFIG, keep=np.searchsorted(at, keep)), CONFIG)
        for one, at in ((whole, np.arange(23)), (gapped, there))
    )
    np.testing.assert_array_equal(cut.times_ms, full.times_ms)
    error = np.abs(cut.nodes - full.nodes)[..., :-6].max()  # samples, pixels
    assert error < 0.12
    monkeypatch.setattr(observe.times, "frame_times", lambda count, fps, numbers: np.arange(count) * (1000 / fps))
    wrong = extract.from_frames(gapped, observe.observe(gapped, CONFIG, keep=np.searchsorted(there, keep)), CONFIG)
    assert np.abs(wrong.nodes - full.nodes)[..., :-6].max() > 2 * error


def test_a_short_clip_is_padded_and_masked(known_face):
    found = extract.extract(clip(frames(smile(5, 2))), CONFIG)
    np.testing.assert_array_equal(found.frame_mask, [True] * 4 + [False] * 4)
    np.testing.assert_array_equal(found.frame_index, [1, 2, 3, 4, 4, 4, 4, 4])
    assert not found.nodes[4:].any() and not found.magnitude[4:].any()
    assert found.nodes[:4].any()


def test_a_still_clip_has_no_motion(known_face):
    found = extract.extract(clip(frames(np.zeros(11)), action_units=None), CONFIG)
    np.testing.assert_allclose(found.nodes, 0, atol=1e-3)
    assert not found.au_mask.any()


def test_what_cannot_be_extracted_names_the_clip(known_face):
    two = frames(np.zeros(2))
    for bad, message in (
        (clip(two[:1]), "1 frame"),
        (clip(two, fps=0.0), "frame rate"),
    ):
        with pytest.raises(UserError, match=f"corpus/s1/c1: .*{message}"):
            extract.extract(bad, CONFIG)
    grid = dataclasses.replace(CONFIG, graph=dataclasses.replace(CONFIG.graph, kind="grid"))
    with pytest.raises(UserError, match=r"corpus/s1/c1: .*grid"):
        extract.extract(clip(two), grid)


def test_units_that_cannot_be_read_are_no_labels(known_face, caplog):
    assert not extract.extract(clip(frames(np.zeros(3)), action_units="grin"), CONFIG).au_mask.any()
    assert "corpus/s1/c1" in caplog.text and "grin" in caplog.text


def test_a_faceless_clip_names_clip_and_frame():
    with pytest.raises(landmarks.NoFaceError, match="corpus/s1/c1 frame 0"):
        extract.extract(clip(np.full((3, 101, 103, 3), 99, np.uint8)), CONFIG)


@pytest.mark.parametrize(("kind", "n"), [("grid", 36), ("roi", 22)])
def test_a_flow_image_is_one_frame(kind, n):
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    config = dataclasses.replace(CONFIG, graph=dataclasses.replace(CONFIG.graph, kind=kind))
    found = extract.extract(FlowClip(ClipIdentity("c/s/x", "c_s", "c", "surprise"), None, image), config)
    assert found.nodes.shape == (1, n, 70)
    assert found.times_ms == [0] and found.frame_mask == [True] and found.frame_index == [0]
    assert found.magnitude[0] > 0 and not found.au_mask.any()
