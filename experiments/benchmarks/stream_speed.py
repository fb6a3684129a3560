"""What a stream costs: `benchmark.py stream`."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from stag_datasets import corpus
from stag_datasets.synth_me import long
from stag_experiments.benchmarks import network_flags, output
from stag_jax.deploy import realtime, source, stream
from stag_jax.deploy.results import Recogniser
from stag_jax.face import crowd
from stag_jax.motion import watch

SIZE = 640, 480
RATES = 30, 100  # frames a second
WARM = 60  # frames, and
WARM_MS = 1500.0  # ms of film, that do not count: the detector is loaded and the network compiled
REAL_TIME = 20.0  # seconds of the paced run


def define_flags() -> None:
    """Define the flags of `benchmark.py stream`."""
    network_flags.define()
    output.define_out("Folder for the films.")


def main() -> None:
    """Measure and print the table."""
    out = output.required_out("the films are")
    output.show_figures(measure(network_flags.read(), out))


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
    settings, rows = stream.StreamSettings(), []
    for rate in RATES:
        path = film(folder / f"person{rate}.mp4", rate)
        rows.append((f"film of {rate} frames/s, as fast as can be", f"{_throughput(recogniser, settings, path)}"))
    for rate in RATES:
        rows.append((f"camera of {rate} frames/s, in real time", _real_time(recogniser, settings, folder, rate)))
    rows += _parts(recogniser, settings, folder / f"person{RATES[0]}.mp4")
    return rows


def _throughput(recogniser: Recogniser, settings: stream.StreamSettings, path: Path) -> str:
    """Median over thirds of three passes, so that one hiccup does not decide."""
    stamps = []
    with contextlib.closing(stream.results(recogniser, settings, looped(path, 3))) as found:
        for frame, _ in found:
            if len(stamps) >= WARM or frame.time_ms > WARM_MS:
                stamps.append(time.perf_counter())
    parts = [part for part in np.array_split(np.asarray(stamps), 9) if len(part) > 1]
    rates = [(len(part) - 1) / (part[-1] - part[0]) for part in parts]
    return f"{np.median(rates):.0f} frames/s ({min(rates):.0f} to {max(rates):.0f} over {len(rates)} stretches)"


def _real_time(recogniser: Recogniser, settings: stream.StreamSettings, folder: Path, rate: int) -> str:
    step, state = stream.make_step(recogniser, settings), stream.StreamState()
    frames = looped(folder / f"person{rate}.mp4")
    for frame in itertools.takewhile(lambda frame: frame.time_ms < WARM_MS, frames):
        state, _ = step(state, frame.pixels, frame.time_ms)
    paced = realtime.paced(itertools.islice(frames, round(REAL_TIME * rate)))
    report = realtime.run(step, state, paced, capacity=4, on_result=lambda result: None)
    late = 100 * report.dropped / max(report.taken, 1)
    return (
        f"delay p50 {report.latency.p50:.1f} ms, p99 {report.latency.p99:.1f} ms, max {report.latency.max:.0f} ms; "
        f"{late:.1f}% of {report.taken} frames dropped as late"
    )


def _parts(recogniser: Recogniser, settings: stream.StreamSettings, path: Path) -> list[tuple[str, str]]:
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
