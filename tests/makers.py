"""Small corpora and configs that the tests make for themselves."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ml_collections import ConfigDict

from stag_configs import base
from stag_jax.config import Config, from_config_dict
from stag_jax.motion import nodes
from stag_jax.protocol import splits as splits_lib
from stag_jax.training import fold
from stag_jax.types import ClipBatch

IMAGES, SHEET = "STSNet_whole_norm_u_v_os", "combined_3_class2_for_optical_flow.csv"
COLUMNS = ("dataset", "sub", "filename_o", "label", "apex", "imagename", "sub_filename")


def flow_image(label: int, rng: np.random.Generator) -> np.ndarray:
    """A 28 x 28 flow image (RGB: u, v, strain) in which each class moves another part of the face, in noise."""
    field = rng.normal(0, 12, (28, 28, 3))
    top = (2, 10, 20)[label]
    field[top : top + 6, 6:22, 1] += 60
    field[top : top + 6, 6:22, 2] += 40
    return np.clip(field + 128, 0, 255).astype(np.uint8)


def write_composite(folder: Path, *, subjects: int = 5, clips: int = 7, seed: int = 0) -> Path:
    """An archive laid out as the public composite is, two corpora, classes in turn; returns `folder`."""
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(subjects):
        dataset, name = ("casme2", f"sub{subject + 1:02d}") if subject % 2 else ("smic", f"s{subject + 1:02d}")
        for clip in range(clips):
            label = (subject + clip) % 3
            rows.append((dataset, name, f"EP{clip + 1:02d}_01", label))
            # The public archive has a space before `.png`.
            path = folder / IMAGES / f"{name}_EP{clip + 1:02d}_01 .png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), flow_image(label, rng)[..., ::-1])
    write_sheet(folder, rows)
    return folder


def write_sheet(folder: Path, rows: Sequence[Sequence[Any]]) -> None:
    """The label sheet; rows are (dataset, subject, clip, label)."""
    with (folder / SHEET).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for dataset, subject, clip, label in rows:
            writer.writerow((dataset, subject, clip, label, "", f"{subject}_{clip}.jpg", ""))


def tiny_settings(**overrides: Any) -> ConfigDict:
    """The defaults, cut down to a model and a schedule that train in seconds; keys are dotted paths."""
    settings = base.get_config()
    small = {
        "data.dataset": "composite_flow",
        "graph.kind": "grid",
        "graph.grid": 3,
        "motion.clip_norm": True,
        "motion.patch": 3,
        "model.width": 8,
        "model.score_dim": 2,
        "model.gat_layers": 0,
        "model.transformer_layers": 0,
        "model.cross_layers": 0,
        "model.readout_dim": 3,
        "train.steps": 30,
        "train.batch_size": 11,
        "train.warmup_steps": 5,
        "train.learning_rate": 5e-3,
        "protocol.bootstrap": 50,
        "parallel.steps_per_dispatch": 7,
    }
    for path, value in {**small, **overrides}.items():
        node = settings
        *parents, last = path.split(".")
        for part in parents:
            node = node[part]
        node[last] = value
    return settings


def tiny_config(**overrides: Any) -> Config:
    """`tiny_settings` as dataclasses; a double underscore stands for a dot."""
    return from_config_dict(tiny_settings(**{key.replace("__", "."): value for key, value in overrides.items()}))


def random_study(
    config: Config, *, frames: int = 1, counts: Sequence[int] = (7, 3, 5, 2, 6)
) -> tuple[fold.Task, ClipBatch, splits_lib.Splits]:
    """Task, random clips of a subject each `counts`, one unit in two labelled, and the splits that leave one out."""
    graph = nodes.graph(config.graph, config.motion)
    rng = np.random.default_rng(3)
    subjects = [f"s{i}" for i, count in enumerate(counts) for _ in range(count)]
    b, n, d, u = len(subjects), len(graph.node_names), len(graph.feature_mirror), len(graph.units)
    label = (np.arange(b) % 3).astype(np.int32)
    batch = ClipBatch(
        nodes=(rng.normal(size=(b, frames, n, d)) + label[:, None, None, None]).astype(np.float32),
        times_ms=np.tile(40 * np.arange(frames, dtype=np.float32), (b, 1)),
        magnitude=rng.uniform(0.5, 2, (b, frames)).astype(np.float32),
        frame_mask=np.ones((b, frames), bool),
        au=rng.integers(0, 2, (b, u)).astype(np.float32),
        au_mask=rng.integers(0, 2, (b, u)).astype(bool),
        label=label,
    )
    held_out = splits_lib.loso(subjects)
    return fold.make_task(config, graph, int((~held_out.test_mask).sum(axis=1).min())), batch, held_out
