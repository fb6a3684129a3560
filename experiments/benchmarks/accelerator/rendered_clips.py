"""Rendered faces with known landmarks and flow, cut out as training sees them; no tracker and no corpus is needed.

Rendering is the work of CPUs: many clips are shared out over processes, which use no accelerator.
"""

import dataclasses
import functools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple, TypeVar

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from stag_datasets.synth_me import order, render, script
from stag_experiments.benchmarks.accelerator import bench
from stag_jax.config import Config, FaceConfig
from stag_jax.face import alignment, regions
from stag_jax.motion import nodes, optical_flow, selection, stabilise

T = TypeVar("T")
SHARE = 3  # one of so many cores renders; the others compile
MOVES = (0.5, 4.0)  # pixels of the face's most moved point, of pairs whose flow is compared
FRAMES = (20, 24)  # of clips that pairs are taken from


class Pair(NamedTuple):
    """Two aligned faces, the true motion from the one to the other, and where the face is."""

    first: UInt8[np.ndarray, "y x"]
    second: UInt8[np.ndarray, "y x"]
    truth: Float[np.ndarray, "y x 2"]
    inside: Bool[np.ndarray, "y x"]


class OrderClip(NamedTuple):
    """What the network sees of one clip of the order corpus, and what is known of it."""

    subject: str
    label: int  # 0: brows first, 1: lips first
    units: frozenset[int]  # action units that move
    nodes: Float[np.ndarray, "t n d"]
    times_ms: Float[np.ndarray, " t"]
    magnitude: Float[np.ndarray, " t"]
    frame_mask: Bool[np.ndarray, " t"]


def pairs(clips: int, face: FaceConfig) -> list[Pair]:
    """Render people and return a reference face with the faces at the apex and half way to it."""
    recipe = script.Recipe(subjects=clips, clips=1, frames=FRAMES, size=2 * face.size)
    return _shared_out(functools.partial(_pairs_of, recipe, face), clips)


def _pairs_of(recipe: script.Recipe, face: FaceConfig, subject: int) -> list[Pair]:
    rendered = render.render_clip(script.subject_clips(recipe, subject)[0])
    transform = alignment.clip_transform(rendered.landmarks, face)
    outline = cv2.convexHull(np.rint(alignment.apply(transform, rendered.landmarks[0])).astype(np.int32))
    inside = cv2.fillConvexPoly(np.zeros((face.size, face.size), np.uint8), outline, 1) > 0
    first = alignment.warp(rendered.frames[0], transform, face.size)
    found = []
    for f in sorted({rendered.apex, (rendered.onset + rendered.apex) // 2} - {0}):
        truth = canonical_flow(rendered.true_flow(f), transform, face.size)
        if MOVES[0] <= np.linalg.norm(truth, axis=-1)[inside].max() <= MOVES[1]:
            found.append(Pair(first, alignment.warp(rendered.frames[f], transform, face.size), truth, inside))
    return found


def canonical_flow(
    field: Float[np.ndarray, "y x 2"], transform: Float[np.ndarray, "2 3"], size: int
) -> Float[np.ndarray, "y2 x2 2"]:
    """Return a displacement of the pixels of a frame as one of the pixels of the aligned face."""
    y, x = np.mgrid[:size, :size]
    raw = alignment.apply(alignment.inverse(transform), np.stack([x, y], axis=-1).astype(float))
    moved = cv2.remap(field, *np.moveaxis(raw.astype(np.float32), -1, 0), cv2.INTER_LINEAR)
    return moved @ transform[:, :2].T.astype(np.float32)


def order_clips(subjects: int, clips: int, config: Config) -> list[OrderClip]:
    """Render the first clips of the first people of the order corpus and measure their motion by OpenCV DIS."""
    recipe = script.Recipe(subjects=subjects, clips=clips, task="order")
    return _shared_out(functools.partial(_order_of, recipe, config), subjects)


def _order_of(recipe: script.Recipe, config: Config, subject: int) -> list[OrderClip]:
    specs = order.subject_clips(recipe, subject)
    stage = render.set_stage(specs[0].who, specs[0].size)
    found = []
    for spec in specs:
        units = frozenset(action.unit for action in spec.actions)
        known = spec.subject, order.CLASSES.index(spec.emotion), units
        found.append(OrderClip(*known, *_features(render.render_clip(spec, stage), config)))
    return found


def _features(rendered: render.Rendered, config: Config) -> tuple[np.ndarray, ...]:
    """Return nodes, times, magnitudes and mask: every frame against the first, the head removed, the best frames kept.

    It is `motion.observe` with one look at each frame, and with the renderer's landmarks in place of a tracker.
    """
    motion, face, fps = config.motion, config.face, rendered.spec.fps
    transform = alignment.clip_transform(rendered.landmarks, face)
    faces = np.stack([alignment.warp(frame, transform, face.size) for frame in rendered.frames])
    points = alignment.apply(transform, np.median(rendered.landmarks[: face.reference_frames], axis=0))
    centres, rigid = regions.roi_centres(points), regions.rigid_points(points)
    field = optical_flow.flows(faces[:1], faces[1:], "dis")
    field = field - stabilise.head_flow(stabilise.head_motion(field, rigid, motion.stabilise), face.size, face.size)
    telling = centres[[name not in regions.BLINKING for name in regions.table()]]
    magnitude = selection.frame_magnitude(nodes.node_magnitude(field, telling, motion.patch, motion.spacing))
    chosen, mask = selection.select(magnitude, motion.frames, motion.selection)
    step = round(motion.average_ms * fps / 1000)
    averaged = np.stack([field[max(0, f - step) : f + step + 1].mean(axis=0) for f in chosen])
    made = nodes.node_features(averaged, optical_flow.strain(averaged), centres, motion.patch, motion.spacing)
    shown = mask.astype(np.float32)
    times_ms = ((chosen + 1) * 1000 / fps).astype(np.float32)
    return made * shown[:, None, None], times_ms, magnitude[chosen] * shown, mask


def at_size(face: FaceConfig, size: int) -> FaceConfig:
    """Return the settings of a face with another side."""
    return dataclasses.replace(face, size=size)


def _shared_out(work: Callable[[int], list[T]], count: int) -> list[T]:
    """Call `work` with 0 to `count` - 1, in processes of their own: this one has Python to spare for other things."""
    workers = min(count, max(1, bench.cores() // SHARE))
    if count == 1:
        return [found for index in range(count) for found in work(index)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_use_one_core) as pool:
        return [found for part in pool.map(work, range(count)) for found in part]


def _use_one_core() -> None:
    jax.config.update("jax_platforms", "cpu")  # in case anything asks for a device
    cv2.setNumThreads(1)
