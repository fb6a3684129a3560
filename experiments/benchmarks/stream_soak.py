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

SOAK_RATE = 15  # frames a second of the film of an hour: what it is about is time and memory
MINUTE = 60_000.0
FILES = 12  # recordings of the folder that is killed


def define_flags() -> None:
    """Define the flags of `benchmark.py soak`."""
    network_flags.define()
    flags.DEFINE_float("minutes", 60.0, "Minutes of video; 0 = none.", lower_bound=0.0)
    flags.DEFINE_integer("kills", 20, "How many.", lower_bound=0)
    output.define_out("Folder for the films.")


def main() -> None:
    """Measure and print the table."""
    given, out, recogniser = flags.FLAGS, output.required_out("the films are"), network_flags.read()
    rows = soak(recogniser, out, given.minutes) if given.minutes else []
    if given.kills:
        network = f"--model={given.model}" if given.model else f"--workdir={given.workdir}"
        rows += kills([network, *(f"--fold={name}" for name in given.fold)], out, given.kills, FILES)
    output.show_figures(rows)


def soak(recogniser: Recogniser, folder: Path, minutes: float) -> list[tuple[str, str]]:
    """Rows of one long film that shows a short one over and over: memory, speed, and how its last pass is told.

    Raises:
      UserError: a network that has no use for video, or less than three passes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, settings = film(folder / "loop.mp4", SOAK_RATE), stream.StreamSettings()
    once = [frame.time_ms for frame in looped(path, 1)]
    length = once[-1] + once[1] - once[0]
    passes = int(minutes * MINUTE / length)
    if passes < 3:
        raise UserError(f"--minutes={minutes:g} is less than three times the film of {length / 1000:.0f} s")
    whole = source.open_path(repeated(path, passes, folder / "long.mp4"))
    process, tracks, memory, stamps = psutil.Process(), set(), [], [time.perf_counter()]
    told: dict[int, list[tuple[int, Score]]] = {1: [], passes - 1: []}  # of the second pass and the last
    with contextlib.closing(stream.results(recogniser, settings, whole.frames())) as found:
        for frame, result in tqdm(found, total=passes * len(once), unit="frame"):
            scores = [(face.track, face.score) for face in result.faces if face.score]
            tracks.update(track for track, _ in scores)
            told.get(int(frame.time_ms / length), []).extend(scores)
            if frame.time_ms >= len(memory) * MINUTE:
                memory.append(process.memory_info().rss / 2**20)
                stamps.append(time.perf_counter())
    seconds = np.diff(stamps)
    each = [_of_pass(scores, recogniser, index * length) for index, scores in told.items()]
    # Of the first minute memory is still being taken, for compiled programs among others.
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
        ("expressions in the second pass and the last", f"{len(each[0])} and {len(each[1])}"),
        ("largest difference of their times", f"{_apart(*each):.0f} ms"),
    ]


def _of_pass(scores: Sequence[tuple[int, Score]], recogniser: Recogniser, start: float) -> list[tuple[float, float]]:
    """Onset and offset, from the start of the pass, of the expressions in windows that lie in it."""
    own = [(track, score) for track, score in scores if start <= score.start_ms]
    return [(one.onset_ms - start, one.offset_ms - start) for one in intervals.found(own, recogniser)]


def _apart(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float:
    if len(one) != len(other) or not one:
        return float("nan") if len(one) != len(other) else 0.0
    return float(np.abs(np.subtract(one, other)).max())


def kills(given: Sequence[str], folder: Path, count: int, files: int, seed: int = 0) -> list[tuple[str, str]]:
    """Rows: `predict.py` over a folder of films, killed (SIGKILL) at random moments, against one left alone.

    Raises:
      UserError: it fails when nobody disturbs it.
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
    moments, ended = random.Random(seed), 0
    for _ in tqdm(range(count), desc="kills", unit="kill"):
        process = start("killed")
        try:
            process.wait(timeout=moments.uniform(0.15, 0.35) * alone_s)
            ended += 1
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
        ("kills", f"{count - ended} (and {ended} sessions that had ended before), seed {seed}"),
        (f"{files} recordings: the same files, JSON and tables byte for byte", "yes" if same else "NO"),
    ]
