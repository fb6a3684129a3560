"""What a stream costs: `benchmark.py stream`; and whether it stays so for an hour: `benchmark.py soak`."""

import contextlib
import itertools
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
from jaxtyping import UInt8
from tqdm import tqdm

from stag_datasets import corpus
from stag_datasets.synth_me import long
from stag_jax.deploy import intervals, live, source, stream
from stag_jax.deploy.results import Recogniser, Score
from stag_jax.face import crowd
from stag_jax.motion import watch
from stag_jax.types import UserError

SIZE = 640, 480
RATES = 30, 100  # frames a second
WARM = 60  # frames, and
WARM_MS = 1500.0  # ms of film, that do not count: the detector is loaded and the network compiled
SOAK_RATE = 15  # frames a second of the film of an hour: what it is about is time and memory
REAL_TIME = 20.0  # seconds of the paced run
MINUTE = 60_000.0


def film(path: Path, rate: int, frames: int = 1200) -> Path:
    """A person of `synth_me/long` on 640 x 480, H.264, so many frames a second of its own time.

    The rendered frames are 100 a second; a film of fewer leaves some out.
    """
    recipe = corpus.builder("synth_me/long", data_dir="").builder_config.recipe
    made = long.recording(recipe, 0)
    every = made.fps / rate
    with av.open(str(path), "w") as container:
        out = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        out.width, out.height, out.pix_fmt = *SIZE, "yuv420p"
        due = 0.0
        for f, frame in enumerate(itertools.islice(made.frames, frames)):
            if f < due:
                continue
            due += every
            image = av.VideoFrame.from_ndarray(_fitted(frame), format="rgb24")
            container.mux(out.encode(image))
        container.mux(out.encode())
    return path


def _fitted(frame: UInt8[np.ndarray, "y x 3"]) -> UInt8[np.ndarray, "y2 x2 3"]:
    width, height = SIZE
    frame = cv2.resize(frame, (height, height), interpolation=cv2.INTER_CUBIC)
    side = (width - height) // 2
    return cv2.copyMakeBorder(frame, 0, 0, side, side, cv2.BORDER_REPLICATE)


def looped(path: Path, passes: int | None = None) -> Iterator[source.Frame]:
    """The frames of a film over and over, their times going on."""
    recording = source.open_path(path)
    tick = 1000 / (recording.fps or 30.0)
    start = 0.0
    for _ in range(passes) if passes else itertools.count():
        last = start
        for frame in recording.frames():
            if frame.pixels is not None:
                last = start + frame.time_ms
                yield frame._replace(time_ms=last)
        start = last + tick


def repeated(path: Path, passes: int, target: Path) -> Path:
    """One film that shows another so many times; its packets are copied."""
    with av.open(str(target), "w") as container:
        out, start = None, 0
        for _ in range(passes):
            with av.open(str(path)) as source_container:
                stream = source_container.streams.video[0]
                out = out or container.add_stream_from_template(stream)
                end = start
                for packet in source_container.demux(stream):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + start, packet.dts + start, out
                    end = max(end, packet.pts + (packet.duration or 0))
                    container.mux(packet)
                start = end
    return target


def measure(recogniser: Recogniser, folder: Path) -> list[tuple[str, str]]:
    """Rows (what, figure): frames a second through everything, the delay of a frame in real time, and the parts of it.

    Raises:
      UserError: a network that has no use for video.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings, rows = stream.Settings(), []
    for rate in RATES:
        path = film(folder / f"person{rate}.mp4", rate)
        rows.append((f"film of {rate} frames/s, as fast as can be", f"{_throughput(recogniser, settings, path)}"))
    for rate in RATES:
        rows.append((f"camera of {rate} frames/s, in real time", _real_time(recogniser, settings, folder, rate)))
    rows += _parts(recogniser, settings, folder / f"person{RATES[0]}.mp4")
    return rows


def _throughput(recogniser: Recogniser, settings: stream.Settings, path: Path) -> str:
    """Median over thirds of three passes, so that one hiccup does not decide."""
    stamps = []
    with contextlib.closing(stream.results(recogniser, settings, looped(path, 3))) as found:
        for frame, _ in found:
            if len(stamps) >= WARM or frame.time_ms > WARM_MS:
                stamps.append(time.perf_counter())
    parts = [part for part in np.array_split(np.asarray(stamps), 9) if len(part) > 1]
    rates = [(len(part) - 1) / (part[-1] - part[0]) for part in parts]
    return f"{np.median(rates):.0f} frames/s ({min(rates):.0f} to {max(rates):.0f} over {len(rates)} stretches)"


def _real_time(recogniser: Recogniser, settings: stream.Settings, folder: Path, rate: int) -> str:
    step, state = stream.make_step(recogniser, settings), stream.State()
    frames = looped(folder / f"person{rate}.mp4")
    for frame in itertools.takewhile(lambda frame: frame.time_ms < WARM_MS, frames):
        state, _ = step(state, frame.pixels, frame.time_ms)
    paced = live.paced(itertools.islice(frames, round(REAL_TIME * rate)))
    report = live.run(step, state, paced, capacity=4, on_result=lambda result: None)
    late = 100 * report.dropped / max(report.taken, 1)
    return (
        f"delay p50 {report.latency.p50:.1f} ms, p99 {report.latency.p99:.1f} ms, max {report.latency.max:.0f} ms; "
        f"{late:.1f}% of {report.taken} frames dropped as late"
    )


def _parts(recogniser: Recogniser, settings: stream.Settings, path: Path) -> list[tuple[str, str]]:
    config = stream.prepared(recogniser, settings)
    spent: dict[str, list[float]] = {
        name: [] for name in ("decoding", "finding the face", "motion", "network, a window")
    }
    people, following = crowd.Crowd(), ()
    frames = looped(path, 2)
    while True:
        begin = time.perf_counter()
        frame = next(frames, None)
        if frame is None:
            break
        marks = [begin, time.perf_counter()]
        people, found = crowd.step(people, frame.pixels, frame.time_ms, config.face, settings.faces)
        marks.append(time.perf_counter())
        following, watched = watch.measure(following, found, frame.pixels, frame.time_ms, config)
        marks.append(time.perf_counter())
        for name, start, end in zip(spent, marks, marks[1:], strict=False):
            spent[name].append(end - start)
        for face in watched:
            if face.window:
                begin = time.perf_counter()
                stream.score(face.window, recogniser, settings.threshold)
                spent["network, a window"].append(time.perf_counter() - begin)
    return [
        (f"{name}: one thread", "p50 {:.2f} ms, p99 {:.2f} ms".format(*1000 * np.quantile(each[WARM:], (0.5, 0.99))))
        for name, each in spent.items()
    ]


def soak(recogniser: Recogniser, folder: Path, minutes: float) -> list[tuple[str, str]]:
    """Rows of one long film that shows a short one over and over: memory, speed, and how its last pass is told.

    Raises:
      UserError: a network that has no use for video, or less than three passes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, settings = film(folder / "loop.mp4", SOAK_RATE), stream.Settings()
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
    script = Path(__file__).with_name("predict.py")

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
