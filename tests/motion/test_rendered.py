"""The whole way on rendered clips, whose true motion is known."""

import dataclasses

import cv2
import numpy as np
import pytest

from stag_configs import base
from stag_datasets.synth_me import render, script
from stag_jax.config import from_config_dict
from stag_jax.face import alignment
from stag_jax.motion import extract, nodes, observe, selection
from stag_jax.types import Clip, ClipIdentity

CONFIG = from_config_dict(base.get_config())


@pytest.fixture(scope="module", params=[0, 1, 3])
def rendered(request):
    """Of each of three people the strongest clip without a blink: weak ones are below what 128 pixels can show."""
    specs = [spec for spec in script.subject_clips(script.Recipe(), request.param) if not spec.blinks]
    return render.render_clip(max(specs, key=lambda spec: spec.peak))


def clip(rendered):
    return Clip(
        ClipIdentity("synth/s/c", "synth_s", "synth", rendered.spec.emotion),
        action_units=None,
        fps=rendered.spec.fps,
        frames=rendered.frames,
    )


def test_the_frames_kept_are_those_of_the_expression(rendered):
    found = extract.extract(clip(rendered), CONFIG).frame_index
    uniform = dataclasses.replace(CONFIG, motion=dataclasses.replace(CONFIG.motion, selection="uniform"))
    spread = extract.extract(clip(rendered), uniform).frame_index
    assert np.abs(found - rendered.apex).min() <= 1
    # Muscles peak apart, so an expression has no plateau that the frames could all lie on; but they lie within it.
    assert during(rendered, found) >= 0.85
    assert during(rendered, found) > during(rendered, spread)


def during(rendered, index):
    return ((index >= rendered.onset) & (index <= rendered.offset)).mean()


def test_node_motion_is_that_of_the_muscles(rendered):
    seen = observe.observe(clip(rendered), CONFIG, keep=np.array([rendered.apex]))

    def mean_motion(field):
        still = np.zeros((1, *field.shape[:2]), np.float32)
        return nodes.node_features(field[None], still, seen.centres, 4, 3.0)[0, :, 64:66]

    y, x = np.mgrid[:128, :128]
    raw = alignment.apply(alignment.inverse(seen.transform), np.stack([x, y], axis=-1).astype(float)).astype(np.float32)
    muscles = cv2.remap(rendered.muscle_flow(rendered.apex), raw[..., 0], raw[..., 1], cv2.INTER_LINEAR)
    truth = mean_motion(muscles @ seen.transform[:, :2].T.astype(np.float32))
    error = np.linalg.norm(mean_motion(seen.flow[0]) - truth, axis=1)
    assert error.mean() < 0.12
    assert error.mean() < 0.5 * np.linalg.norm(truth, axis=1).mean()


def test_the_phases_are_found(rendered):
    found = selection.phases(observe.observe(clip(rendered), CONFIG).magnitude)
    assert abs(found.apex - rendered.apex) <= 3
    assert rendered.onset - 2 <= found.onset < found.apex < found.offset <= rendered.offset + 2
