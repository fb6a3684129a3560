"""Whole flow fields are those that `motion` measures, and images of them lose no more than half a level."""

import dataclasses

import cv2
import numpy as np
import pytest

from stag_configs import base
from stag_datasets.synth_me import render, script
from stag_jax.config import from_config_dict, replace
from stag_jax.face import alignment, regions, template, tracking
from stag_jax.motion import fields, observe, optical_flow, stabilise
from stag_jax.types import Clip, ClipIdentity, UserError

CONFIG = from_config_dict(base.get_config())


@pytest.fixture(scope="module")
def clip():
    """A rendered clip of an expression whose head moves too."""
    recipe = script.Recipe(subjects=1, clips=3, frames=(20, 24))
    spec = max(script.subject_clips(recipe, 0), key=lambda spec: spec.peak)
    return Clip(ClipIdentity("synth/s/c", "synth_s", "synth", ""), None, recipe.fps, render.render_clip(spec).frames)


@pytest.mark.parametrize("changes", [{}, {"motion.reference": "previous"}, {"motion.flow": "dis"}], ids=str)
def test_they_are_the_flow_that_features_are_made_of(clip, changes):
    config = replace(CONFIG, changes)
    found, seen = fields.aligned(clip, config), observe.observe(clip, config)
    assert found.index.tolist() == list(range(1, len(clip.frames)))
    place = np.searchsorted(found.index, seen.index)
    np.testing.assert_allclose(found.flow[place], seen.flow, atol=1e-6)
    np.testing.assert_allclose(found.strain[place], optical_flow.strain(seen.flow), atol=1e-6)
    np.testing.assert_array_equal(found.magnitude, seen.magnitude[1:])
    np.testing.assert_array_equal(found.head, seen.head[1:])
    np.testing.assert_array_equal(found.reference, seen.reference)
    assert found.flow.dtype == found.strain.dtype == np.float32


def test_without_averaging_a_field_is_that_of_its_own_frame(clip):
    """Measured by hand: the aligned face put back to where the head was, and what of the head is left taken out."""
    plain = fields.aligned(clip, replace(CONFIG, {"motion.average_ms": 0.0}))
    place = int(plain.magnitude.argmax())
    assert stabilise.reach(plain.head[place : place + 1], np.array([[64.0, 40.0]]))[0] > observe.STILL
    back = alignment.compose(alignment.inverse(plain.head[place]), plain.transform)
    face = alignment.warp(clip.frames[plain.index[place]], back, 128)
    seen = observe.observe(clip, CONFIG)
    measured = optical_flow.flow(plain.reference, face, "tvl1")
    expected = stabilise.remove_head_motion(measured[None], seen.rigid, "similarity")[0]
    np.testing.assert_allclose(plain.flow[place], expected, atol=1e-6)
    averaged = fields.aligned(clip, CONFIG).flow[place]
    np.testing.assert_allclose(averaged, plain.flow[place - 1 : place + 2].mean(axis=0), atol=1e-6)


def test_the_largest_is_one_of_all(clip):
    config = replace(CONFIG, {"motion.average_ms": 0.0})
    every, one = fields.aligned(clip, config), fields.aligned(clip, config, largest=True)
    place = int(every.magnitude.argmax())
    assert one.index.tolist() == [every.index[place]] and one.since.tolist() == [0]
    np.testing.assert_allclose(one.flow[0], every.flow[place], atol=1e-6)
    config = replace(config, {"motion.flow": "farneback"})
    bare, single = (fields.unaligned(clip, config, largest=largest) for largest in (False, True))
    np.testing.assert_allclose(single.flow[0], bare.flow[int(bare.magnitude.argmax())], atol=1e-6)


def test_refused_frames_are_passed_over(clip, monkeypatch):
    whole = tracking.track(clip.frames, CONFIG.face, clip=clip.identity.id)
    landmarks = whole.landmarks.copy()
    landmarks[[4, 5]] = np.nan
    refused = tuple("away" if frame in (4, 5) else "" for frame in range(len(clip.frames)))
    monkeypatch.setattr(tracking, "track", lambda *_, **__: whole._replace(landmarks=landmarks, refused=refused))
    found = fields.aligned(clip, replace(CONFIG, {"motion.reference": "previous", "motion.flow": "dis"}))
    assert found.index[:5].tolist() == [1, 2, 3, 6, 7] and found.since[:5].tolist() == [0, 1, 2, 3, 6]
    assert len(found.flow) == len(found.head) == len(clip.frames) - 3


def test_crops_are_taken_as_they_are(clip):
    crops = clip._replace(frames=np.ascontiguousarray(clip.frames[:6, 60:171, 50:189]))
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in crops.frames])
    config = replace(CONFIG, {"motion.flow": "farneback"})
    found = fields.unaligned(crops, config)
    np.testing.assert_array_equal(found.flow, optical_flow.flows(grey[:1], grey[1:], "farneback"))
    assert found.index.tolist() == [1, 2, 3, 4, 5] and not found.since.any()
    np.testing.assert_array_equal(found.transform, np.eye(2, 3))
    found = fields.unaligned(crops, replace(config, {"motion.reference": "previous"}))
    np.testing.assert_array_equal(found.flow, optical_flow.flows(grey[:-1], grey[1:], "farneback"))
    assert found.since.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [28, 67, 200])
@pytest.mark.parametrize("crop", fields.CROPS)
def test_an_image_loses_half_a_level(size, crop):
    rng = np.random.default_rng(size)
    motion = cv2.GaussianBlur(rng.normal(size=(128, 128, 2)).astype(np.float32), (0, 0), 4) * np.float32((9, 2))
    strain = optical_flow.strain(motion)
    picture, limits = fields.encode(motion, strain, size, crop)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    assert picture.min(axis=(0, 1)).tolist() == [0, 0, 0] and picture.max(axis=(0, 1)).tolist() == [255, 255, 255]
    assert limits[2, 0] >= 0 and (limits[:, 0] < limits[:, 1]).all()
    decoded = fields.decode(picture, limits)
    (top, bottom), (left, right) = fields.composite_part(128, 128) if crop == "composite" else ((0, 128),) * 2
    part = np.concatenate([motion, strain[..., None]], axis=-1)[top:bottom, left:right]
    kind = cv2.INTER_AREA if size < 86 else cv2.INTER_LINEAR
    expected = cv2.resize(part, (size, size), interpolation=kind)
    half = (limits[:, 1] - limits[:, 0]) / 255 / 2
    found = np.concatenate([decoded[0], decoded[1][..., None]], axis=-1)
    assert (np.abs(found - expected) <= half * 1.01 + 1e-6).all()


def test_what_does_not_move_is_black():
    picture, limits = fields.encode(np.full((32, 32, 2), 0.5, np.float32), np.zeros((32, 32), np.float32), 28, "none")
    assert not picture.any() and limits.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]]
    motion, strain = fields.decode(picture, limits)
    assert (motion == 0.5).all() and not strain.any()


def test_the_crop_of_the_composite_has_regions_where_its_images_have_them():
    """To half a pixel of 128: rows and columns are whole ones."""
    (top, bottom), (left, right) = fields.composite_part(128, 128)
    centres = regions.roi_centres(template.mean_face())
    canonical = template.in_canonical(centres) * 128
    inside = (canonical - (left, top)) / (right - left, bottom - top)
    np.testing.assert_allclose(inside, template.in_flow_image(centres), atol=0.5 / (right - left))


def test_settings_out_of_range_are_named(clip):
    short = clip._replace(frames=clip.frames[:1])
    with pytest.raises(UserError, match="synth/s/c: 1 frame"):
        fields.unaligned(short, CONFIG)
    with pytest.raises(UserError, match="'sift' is none of auto, dis, farneback, tvl1"):
        fields.unaligned(clip, replace(CONFIG, {"motion.flow": "sift"}))
    with pytest.raises(UserError, match="--crop=all is none of composite, none"):
        fields.encode(np.zeros((8, 8, 2), np.float32), np.zeros((8, 8), np.float32), 4, "all")
    flow_images = dataclasses.replace(CONFIG, graph=dataclasses.replace(CONFIG.graph, kind="grid"))
    assert len(fields.aligned(clip, replace(flow_images, {"motion.flow": "dis"}), largest=True).flow) == 1
