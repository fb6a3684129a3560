"""One expression filmed at 200 and at 100 frames a second, from pixels to logits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from stag_configs import base
from stag_datasets.synth_me import render, script
from stag_jax.config import from_config_dict
from stag_jax.model import baselines
from stag_jax.motion import extract, nodes, observe
from stag_jax.types import Clip, ClipBatch, ClipIdentity

CONFIG = from_config_dict(base.get_config())


def film(subject):
    """The strongest clip without a blink of a subject, at 200 frames a second and, every second frame of it, at 100."""
    specs = [spec for spec in script.subject_clips(script.Recipe(), subject) if not spec.blinks]
    spec = max(specs, key=lambda spec: spec.peak)
    times = ("onset", "apex", "offset")
    slow = spec._replace(
        fps=200.0,
        frames=2 * spec.frames - 1,
        pulses=tuple(p._replace(**{name: 2 * getattr(p, name) for name in times}) for p in spec.pulses),
        onset=2 * spec.onset,
        offset=2 * spec.offset,
    )
    frames = render.render_clip(slow, nuisance=False).frames
    return [
        Clip(ClipIdentity(f"x/s{subject}/{fps}", "s", "x", "e"), None, float(fps), shown)
        for fps, shown in ((200, frames), (100, frames[::2]))
    ]


def batch(clips):
    """The slower film's frames are chosen, and the faster one's of the same moments are taken."""
    seen = []
    for fast, slow in zip(clips[::2], clips[1::2], strict=True):
        chosen = observe.observe(slow, CONFIG)
        again = observe.observe(fast, CONFIG, keep=2 * chosen.index)
        seen += [extract.from_frames(fast, again, CONFIG), extract.from_frames(slow, chosen, CONFIG)]
    arrays = {name: np.stack([getattr(each, name) for each in seen]) for name in ClipBatch._fields if name != "label"}
    spread = arrays["nodes"].std(axis=(0, 1, 2))
    arrays["nodes"] = (arrays["nodes"] - arrays["nodes"].mean(axis=(0, 1, 2))) / spread
    return jax.tree.map(jnp.asarray, ClipBatch(label=np.zeros(len(clips), np.int32), **arrays))


def test_clips_agree_at_both_rates(random_params):
    clips = [clip for subject in (0, 3) for clip in film(subject)]
    made = batch(clips)
    np.testing.assert_allclose(made.times_ms[::2], made.times_ms[1::2])
    graph = nodes.graph(CONFIG.graph, CONFIG.motion)
    model = baselines.make_model(dataclasses.replace(CONFIG.model, gat_layers=1), 3)
    params = random_params(model, made, graph, train=False)
    logits, aux = jax.jit(lambda batch: model.apply({"params": params}, batch, graph, train=False))(made)
    for said in (logits, aux["au_logits"]):
        same = np.linalg.norm(said[0] - said[1]), np.linalg.norm(said[2] - said[3])
        other = np.linalg.norm(said[0] - said[2])
        assert max(same) < 0.2 * other
    # Frames taken for those of another rate are another clip.
    wrong = model.apply({"params": params}, made._replace(times_ms=made.times_ms * 4), graph, train=False)[0]
    assert np.linalg.norm(wrong - logits, axis=1).min() > max(np.linalg.norm(logits[0] - logits[1]), 0.1)
