"""The builder on corpora of growing size: `benchmark.py builder`."""

import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from stag_datasets import corpus
from stag_experiments.benchmarks import output
from stag_jax.files import write_table

FRAMES, PER_SUBJECT, SIDE, QUALITY = 60, 15, 120, 75
CLIPS = 10_000
SHARES = (4, 2, 1)  # a quarter, a half, all


def define_flags() -> None:
    """Define the flags of `benchmark.py builder`."""
    flags.DEFINE_integer("clips", CLIPS, "Clips of the largest corpus.", lower_bound=SHARES[0])


def main() -> None:
    """Build the corpora and print the table."""
    output.show_figures(measure(flags.FLAGS.clips))


def measure(clips: int) -> list[tuple[str, str]]:
    """Measure memory and speed of building a quarter, a half and all of `clips` clips of `FRAMES` frames."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for divisor in SHARES:
            count = clips // divisor
            root = Path(folder, str(count))
            _write(root / "archive", count)
            # In a separate process, to measure its own peak memory.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, peak, size = pool.apply(_build, (root,))
            rows.append(
                (
                    f"{count} clips of {FRAMES} frames, {size / 1e9:.1f} GB",
                    f"{count / seconds:.0f} clips/s, {seconds:.0f} s, peak memory {peak / 1e9:.2f} GB",
                )
            )
    return rows


def _write(root: Path, clips: int) -> None:
    """Write a corpus for the manifest builder. The clips of a subject share pictures of noise through links."""
    rows, rng = [], np.random.default_rng(0)
    for clip in range(clips):
        subject = root / f"s{clip // PER_SUBJECT:04d}"
        source = subject / "pictures"
        if not source.exists():
            source.mkdir(parents=True)
            for frame in range(FRAMES):
                noise = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
                cv2.imwrite(str(source / f"{frame}.jpg"), noise, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
        folder = subject / f"c{clip}"
        folder.mkdir()
        for frame in range(FRAMES):
            os.link(source / f"{frame}.jpg", folder / f"{frame}.jpg")
        rows.append((subject.name, folder.relative_to(root), "positive", 100))
    write_table(root / "clips.csv", ("subject", "path", "emotion", "fps"), rows)


def _build(root: Path) -> tuple[float, float, int]:
    start = time.perf_counter()
    built = corpus.build("manifest", data_dir=root / "data", manual_dir=root / "archive")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return seconds, peak, sum(path.stat().st_size for path in built.iterdir())
