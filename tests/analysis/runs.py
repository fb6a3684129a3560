"""Workdirs as finished runs leave them, written without training anything."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from stag_jax.corpora import dataset
from stag_jax.protocol import splits as splits_lib
from stag_jax.training import checkpoint, history, outcome, workdir
from tests import makers

STEPS = (10, 20, 30)
COUNTS = (7, 3, 5, 2, 6)  # clips of each subject


class Made(NamedTuple):
    """A workdir and what went into it."""

    folder: Path
    corpus: dataset.Corpus
    splits: splits_lib.Splits
    recorded: np.ndarray  # [i, seed, b, k] of the clips that are tested


def corpus(counts=COUNTS, **texts):
    """Random clips of two frames, some of them of one; subjects s0, s1, ... in two corpora."""
    config = makers.tiny_config()
    task, batch, _ = makers.random_study(config, frames=2, counts=counts)
    mask = np.ones(batch.frame_mask.shape, bool)
    mask[::3, 1] = False
    subjects = tuple(f"s{i}" for i, count in enumerate(counts) for _ in range(count))
    made = dataset.Corpus(
        ids=tuple(f"{subject}/c{index:03d}" for index, subject in enumerate(subjects)),
        subjects=subjects,
        datasets=tuple("ab"[int(subject[1:]) % 2] for subject in subjects),
        groups=subjects,
        parts=("",) * len(subjects),
        batch=batch._replace(frame_mask=mask),
        graph=task.network.graph,
        fingerprint="0123",
    )
    return made._replace(**texts)


def statistics(clips, train, classes, exponent):
    """Mean, scale and class weights of the clips in `train`, in loops and 64 bits."""
    rows = [
        clips.batch.nodes[b, t, n].astype(float)
        for b in np.flatnonzero(train)
        for t in np.flatnonzero(clips.batch.frame_mask[b])
        for n in range(clips.batch.nodes.shape[2])
    ]
    index, sign = clips.graph.feature_mirror, clips.graph.feature_sign
    mean = np.mean(rows, axis=0)
    mean = (mean + sign * mean[index]) / 2
    variance = np.mean([(row - mean) ** 2 for row in rows], axis=0)
    counts = np.bincount(clips.batch.label[train], minlength=classes)
    raw = np.array([count**-exponent if count else 0.0 for count in counts])
    return {
        "mean": mean,
        "scale": np.sqrt((variance + variance[index]) / 2 + 1e-6),
        "class_weight": raw * counts.sum() / (raw * counts).sum(),
    }


def save_network(folder, name, clips, train, config):
    """A fold's checkpoint with the right statistics, and no parameters to speak of."""
    found = statistics(clips, train, len(config.data.classes), config.loss.class_balance)
    seeds = len(config.seeds)
    each = {key: np.tile(value.astype(np.float32), (seeds, 1)) for key, value in found.items()}
    checkpoint.save_fold(folder, name, {"params": {"w": np.zeros((seeds, 1), np.float32)}, "statistics": each})


def write(folder, *, clips=None, right=0.6, seed=0, recorded=True, networks=False, **settings):
    """Writes a run of settings `settings` that is right in about a share of the clips."""
    config = makers.tiny_config(**{"seeds": (0, 3), "train__steps": STEPS[-1], **settings})
    clips = clips or corpus()
    splits = splits_lib.make_splits(config.protocol, clips.clips)
    rng = np.random.default_rng(seed)
    shape = (len(STEPS), len(config.seeds), len(clips.ids))
    said = np.where(rng.random(shape) < right, clips.batch.label, rng.integers(0, 3, shape))
    probability = (0.4 * np.eye(3)[said] + 0.6 * rng.dirichlet((5, 5, 5), shape)).astype(np.float32)
    workdir.claim(folder, config, clips, splits)
    units = rng.random((*shape[1:], clips.batch.au.shape[1])).astype(np.float32)
    result = outcome.score(config, folder, clips, splits, probability[-1], units)
    workdir.write_metrics(folder, result)
    kept = probability[:, :, splits.test_mask.any(axis=0)]
    if recorded:
        (folder / history.FOLDER).mkdir()
        for step, each in zip(STEPS, kept, strict=True):
            np.savez(folder / history.FOLDER / f"{step:08d}.npz", probability=each)
    if networks:
        for name, train in zip(splits.names, splits.train_mask, strict=True):
            save_network(folder, name, clips, train, config)
    return Made(folder, clips, splits, kept)


def change(run, **fields):
    """A loaded run with other fields."""
    return dataclasses.replace(run, **fields)


def edit_json(path, **values):
    """Sets keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def picture(rng, size=96):
    """A smooth random picture in colour."""
    return cv2.resize(rng.integers(0, 256, (7, 7, 3)).astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)


def tiles(corpus, seed=0):
    """Of each clip the subject's face twice, a little noisy, and a motion of its own."""
    rng = np.random.default_rng(seed)
    faces = {name: picture(rng) for name in sorted(set(corpus.subjects))}

    def noisy(face):
        return np.clip(face + rng.normal(0, 4, face.shape), 0, 255).astype(np.uint8)

    return {
        name: np.concatenate([noisy(faces[subject]), noisy(faces[subject]), picture(rng)], axis=1)
        for name, subject in zip(corpus.ids, corpus.subjects, strict=True)
    }
