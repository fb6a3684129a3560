"""Whether a stream costs the same for an hour, and survives kills: `benchmark.py soak`."""

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from absl import flags
from tqdm import tqdm

from stag_experiments.benchmarks import network_flags, output
from stag_experiments.benchmarks.stream_speed import RATES, film, looped, repeated
from stag_jax.deploy import intervals, source, stream
from stag_jax.deploy.results import Recogniser, Score
from stag_jax.types import UserError

SOAK_RATE = 15  # frames per second of the film of an hour; low, because only time and memory matter
MINUTE = 60_000.0
FILES = 12  # recordings in the folder of the kill test


def define_flags() -> None:
    """Define the flags of `benchmark.py soak`."""
    network_flags.define()
    flags.DEFINE_float("minutes", 60.0, "Minutes of video; 0 = none.", lower_bound=0.0)
    flags.DEFINE_integer("kills", 20, "How many.", lower_bound=0)
    output.define_out("Folder for the films.")


def main() -> None:
    """Run the soak and kill tests and print the table."""
    values, out, recogniser = flags.FLAGS, output.required_out("the films are"), network_flags.read()
    rows = soak(recogniser, out, values.minutes) if values.minutes else []
    if values.kills:
        network = f"--model={values.model}" if values.model else f"--workdir={values.workdir}"
        rows += kills([network, *(f"--fold={name}" for name in values.fold)], out, values.kills, FILES)
    output.show_figures(rows)


def soak(recogniser: Recogniser, folder: Path, minutes: float) -> list[tuple[str, str]]:
    """Measure memory, speed and the last pass of a long film that repeats a short one; return (what, figure) rows.

    Raises:
      UserError: the network cannot process video, or there are less than three passes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, settings = film(folder / "loop.mp4", SOAK_RATE), stream.StreamSettings()
    once = [frame.time_ms for frame in looped(path, 1)]
    length = once[-1] + once[1] - once[0]
    passes = int(minutes * MINUTE / length)
    if passes < 3:
        raise UserError(f"--minutes={minutes:g} is less than three times the film of {length / 1000:.0f} s")
    long_film = source.open_path(repeated(path, passes, folder / "long.mp4"))
    process, tracks, memory, stamps = psutil.Process(), set(), [], [time.perf_counter()]
    scores_by_pass: dict[int, list[tuple[int, Score]]] = {1: [], passes - 1: []}  # of the second pass and the last
    with contextlib.closing(stream.results(recogniser, settings, long_film.frames())) as results:
        for frame, result in tqdm(results, total=passes * len(once), unit="frame"):
            scores = [(face.track, face.score) for face in result.faces if face.score]
            tracks.update(track for track, _ in scores)
            scores_by_pass.get(int(frame.time_ms / length), []).extend(scores)
            if frame.time_ms >= len(memory) * MINUTE:
                memory.append(process.memory_info().rss / 2**20)
                stamps.append(time.perf_counter())
    seconds = np.diff(stamps)
    times_by_pass = [_of_pass(scores, recogniser, index * length) for index, scores in scores_by_pass.items()]
    # During the first minute memory still grows, among others for compiled programs.
    settled = memory[2:] or memory
    slope = float(np.polyfit(np.arange(len(settled)), settled, 1)[0]) if len(settled) > 1 else 0.0
    return [
        (
            "video",
            f"{passes * length / MINUTE:.1f} min of {SOAK_RATE} frames/s, {passes * len(once)} frames, {passes} passes",
        ),
        ("time", f"{stamps[-1] - stamps[0]:.0f} s, {passes * len(once) / (stamps[-1] - stamps[0]):.0f} frames/s"),
        ("slowest and fastest minute", f"{seconds[1:].max():.1f} s and {seconds[1:].min():.1f} s"),
        ("memory after 2 minutes, at the end", f"{settled[0]:.0f} MB, {settled[-1]:.0f} MB"),
        ("growth", f"{slope:+.3f} MB a minute"),
        ("faces that were numbered", str(len(tracks))),
        ("expressions in the second pass and the last", f"{len(times_by_pass[0])} and {len(times_by_pass[1])}"),
        ("largest difference of their times", f"{_apart(*times_by_pass):.0f} ms"),
    ]


def _of_pass(scores: Sequence[tuple[int, Score]], recogniser: Recogniser, start: float) -> list[tuple[float, float]]:
    """Return onset and offset, relative to the start of the pass, of the expressions in its windows."""
    scores_of_pass = [(track, score) for track, score in scores if start <= score.start_ms]
    return [(found.onset_ms - start, found.offset_ms - start) for found in intervals.found(scores_of_pass, recogniser)]


def _apart(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float:
    if len(one) != len(other) or not one:
        return float("nan") if len(one) != len(other) else 0.0
    return float(np.abs(np.subtract(one, other)).max())


def kills(given: Sequence[str], folder: Path, count: int, files: int, seed: int = 0) -> list[tuple[str, str]]:
    """Compare `predict.py` over a folder of films, killed (SIGKILL) at random moments, with an undisturbed run.

    Raises:
      UserError: the undisturbed run fails.
    """
    films = folder / "films"
    films.mkdir(parents=True, exist_ok=True)
    data = film(folder / "one.mp4", RATES[0]).read_bytes()
    for index in range(files):
        (films / f"part{index:02d}.mp4").write_bytes(data)
    script = Path(__file__).parents[1] / "predict.py"

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, str(script), *given, f"--video={films}", f"--out={folder / name}", "--nofilm"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    begin = time.perf_counter()
    if start("alone").wait():
        raise UserError(f"predict.py fails when left alone: run experiments/predict.py {' '.join(given)}")
    alone_s = time.perf_counter() - begin
    rng, ended_before = random.Random(seed), 0
    for _ in tqdm(range(count), desc="kills", unit="kill"):
        process = start("killed")
        try:
            process.wait(timeout=rng.uniform(0.15, 0.35) * alone_s)
            ended_before += 1
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    code = start("killed").wait()
    names = sorted(path.name for path in (folder / "alone").iterdir())
    same = code == 0 and names == sorted(path.name for path in (folder / "killed").iterdir())
    same = same and all(
        (folder / "alone" / name).read_bytes() == (folder / "killed" / name).read_bytes()
        for name in names
        if not name.endswith(".png")
    )
    return [
        ("kills", f"{count - ended_before} (and {ended_before} sessions that had ended before), seed {seed}"),
        (f"{files} recordings: the same files, JSON and tables byte for byte", "yes" if same else "NO"),
    ]
