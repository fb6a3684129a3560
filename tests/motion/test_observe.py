"""Both looks at a clip of drawn texture whose movement is known; the landmarks are where the test puts them."""

import dataclasses

import cv2
import numpy as np
import pytest

from stag_configs import base
from stag_jax.config import from_config_dict
from stag_jax.face import template, tracking
from stag_jax.motion import observe, quality
from stag_jax.types import Clip, ClipIdentity, UserError

CONFIG = from_config_dict(base.get_config())
HEIGHT, WIDTH = 203, 187
LEFT, TOP, SIDE = 20, 25, 150.0  # where the canonical square lies in the frames
FACE = template.in_canonical(template.mean_face()) * SIDE + (LEFT, TOP)


@pytest.fixture
def face_at(monkeypatch):
    """face_at(refused={7: "why"}): the face is where the test drew it, except in frames that are refused."""

    def place(refused=()):
        def track(frames, cfg, *, clip):
            f = len(frames)
            reasons = tuple(dict(refused).get(i, "") for i in range(f))
            points = np.repeat(FACE[None], f, axis=0).astype(np.float32)
            points[[bool(reason) for reason in reasons]] = np.nan
            box = np.tile(np.array([LEFT, TOP, LEFT + 150, TOP + 150]), (f, 1))
            return tracking.Track(points, box, np.ones(f, np.float32), np.zeros(f, np.float32), reasons)

        monkeypatch.setattr(tracking, "track", track)

    place()
    return place


def film(smile, turn=(0.0, 0.0, 0.0), noise=0.0):
    """Texture in which the lip corners move up by `smile` pixels a frame and the head by `turn`: shift and degrees."""
    rng = np.random.default_rng(0)
    drawn = sum(s * cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH)).astype(np.float32), (0, 0), s) for s in (1.5, 4))
    drawn = 128 + 35 * drawn / drawn.std()
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    middle = FACE[27:31].mean(axis=0)
    frames = []
    for f, amount in enumerate(smile):
        share = f / max(len(smile) - 1, 1)
        back = cv2.getRotationMatrix2D([float(v) for v in middle], turn[2] * share, 1.0)
        at = np.stack([x - share * turn[0], y - share * turn[1]], axis=-1) @ back[:, :2].T + back[:, 2]
        bump = sum(np.exp(-((at[..., 0] - FACE[p, 0]) ** 2 + (at[..., 1] - FACE[p, 1]) ** 2) / 392) for p in (48, 54))
        source = np.float32(at[..., 0]), np.float32(at[..., 1] + amount * bump)
        grey = cv2.remap(drawn, *source, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        grey += rng.normal(0, noise, grey.shape) if noise else 0
        frames.append(np.repeat(np.uint8(np.clip(grey, 0, 255))[..., None], 3, axis=2))
    return Clip(
        ClipIdentity("corpus/s1/c1", "corpus_s1", "corpus", "positive"),
        None,
        100.0,
        np.stack(frames),
        0,
        11,
        len(frames) - 1,
    )


def pulse(f=23, peak=11, height=1.5):
    return height * np.exp(-(((np.arange(f) - peak) / 4) ** 2))


def motion(**changes):
    return dataclasses.replace(CONFIG, motion=dataclasses.replace(CONFIG.motion, **changes))


def test_a_still_clip_has_no_motion_at_all(face_at):
    seen = observe.observe(film(np.zeros(11)), motion(flow="dis"))
    assert not seen.flow.any()  # nothing was resampled differently from the reference
    assert np.abs(observe.observe(film(np.zeros(11)), CONFIG).flow).max() < 1e-3
    np.testing.assert_array_equal(seen.head, np.tile(np.eye(2, 3), (11, 1, 1)))
    assert np.isnan(seen.magnitude[0]) and not seen.magnitude[1:].any()


def test_a_turning_head_leaves_the_smile_as_it_is(face_at):
    still = observe.observe(film(pulse()), CONFIG)
    turned = observe.observe(film(pulse(), turn=(3.0, -2.0, 3.0)), CONFIG, keep=still.index)
    change = np.linalg.norm(turned.flow - still.flow, axis=-1)[:, 20:-20, 20:-20]
    assert change.mean() < 0.06  # of a smile of 1.3 pixels and a head movement of 3 at the last frame
    once = motion(average_ms=0.0)
    plain = observe.observe(film(pulse()), once, keep=still.index)
    first_look_only = observe.observe(film(pulse(), turn=(3.0, -2.0, 3.0)), once, keep=still.index)
    assert np.linalg.norm(first_look_only.flow - plain.flow, axis=-1)[:, 20:-20, 20:-20].mean() < 0.1


def test_the_second_look_is_the_better_one(face_at, monkeypatch):
    moved, straight = film(pulse(), turn=(3.0, -2.0, 3.0)), film(pulse())
    keep = np.arange(5, 19, 2)

    def change():
        pair = [observe.observe(clip, CONFIG, keep=keep).flow for clip in (moved, straight)]
        return np.linalg.norm(pair[0] - pair[1], axis=-1)[:, 20:-20, 20:-20].mean()

    twice = change()
    monkeypatch.setattr(observe, "STILL", np.inf)
    assert twice < 0.8 * change()


def test_the_head_is_followed(face_at):
    seen = observe.observe(film(np.zeros(17), turn=(4.0, 0.0, 0.0)), CONFIG)
    scale = seen.transform[0, 0]
    np.testing.assert_allclose(seen.head[-1], [[1, 0, 4 * scale], [0, 1, 0]], atol=0.05)
    found = quality.report(film(np.zeros(17)), seen, CONFIG.motion)
    assert abs(found.head_px - 4 * scale) < 0.1 and found.residual_px < 0.05


def test_refused_frames_are_passed_over(face_at):
    clip = film(pulse())
    clip.frames[11] = np.random.default_rng(1).integers(0, 256, clip.frames[11].shape)
    face_at({11: "partly hidden", 3: "partly hidden"})
    seen = observe.observe(clip, CONFIG)
    assert 11 not in seen.index and 3 not in seen.index and seen.mask.all()
    assert np.isnan(seen.magnitude[[0, 3, 11]]).all() and np.isfinite(np.delete(seen.magnitude, [0, 3, 11])).all()
    assert np.nanargmax(seen.magnitude) in (10, 12)
    with pytest.raises(UserError, match=r"corpus/s1/c1: frames \[11\] are not to be seen"):
        observe.observe(clip, CONFIG, keep=np.array([5, 11]))


def test_the_same_moment_is_averaged_over_three_frames(face_at):
    """A steady movement stays what it is, and noise falls: by 0.82 where the reference keeps its share of it."""
    clip = film(np.linspace(0, 1.2, 23), noise=4.0)
    keep = np.arange(5, 20, 2)
    clean = observe.observe(film(np.linspace(0, 1.2, 23)), CONFIG, keep=keep).flow
    error = [
        np.linalg.norm(observe.observe(clip, motion(average_ms=span), keep=keep).flow - clean, axis=-1).mean()
        for span in (0.0, 10.0)
    ]
    assert error[1] < 0.9 * error[0]


def test_settings_out_of_range(face_at):
    clip = film(np.zeros(3))
    for changes, message in (
        ({"flow": "raft"}, r"config\.motion\.flow: 'raft'"),
        ({"first_look": "raft"}, r"config\.motion\.first_look: 'raft'"),
    ):
        with pytest.raises(UserError, match=message):
            observe.observe(clip, motion(**changes))


@pytest.mark.parametrize("reference", ["onset", "previous"])
def test_both_references(face_at, reference):
    seen = observe.observe(film(np.linspace(0, 1.6, 17)), motion(reference=reference), keep=np.array([4, 8, 16]))
    at_lips = seen.flow[:, *np.rint(seen.centres[14, ::-1]).astype(int), 1] / seen.transform[0, 0]
    steady, within = {"onset": ([-0.4, -0.8, -1.6], 0.2), "previous": ([-0.1, -0.1, -0.1], 0.05)}[reference]
    np.testing.assert_allclose(at_lips, steady, atol=within)  # flow flattens a peak of this width by a tenth
