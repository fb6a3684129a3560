"""The measurements of `benchmark.py frontend`: rendered clips through face/ and motion/, held against their truth."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags
from jaxtyping import Float, UInt8
from tqdm import tqdm

from stag_configs import base
from stag_datasets.synth_me import render, script
from stag_experiments.benchmarks import output
from stag_jax import media, processes
from stag_jax.analysis import clip_reports
from stag_jax.config import Config, from_config_dict
from stag_jax.face import alignment, tracking
from stag_jax.motion import extract, nodes, observe, optical_flow, selection
from stag_jax.types import Clip, ClipIdentity, UserError

Row = tuple[str, str]
PEAK = (1.0, 3.0)  # range of the largest true movement of frames whose flow is compared, pixels
HEAD = (3.0, 2.0, 0.02)  # shift in pixels of the frame, rotation in degrees, relative growth
SPEED_SIZE, SPEED_FRAME = 480, (480, 640)  # size of the rendered square, and of the frame that contains it
SPEED_CLIPS = 12  # per worker
REPEATS = 5


def define_flags() -> None:
    """Define the flags of `benchmark.py frontend`."""
    flags.DEFINE_integer("clips", 0, "Clips a subject of synth_me, 0 = all.", lower_bound=0)
    flags.DEFINE_string("media", None, "Folder of videos to track as well, frame by frame.")
    output.define_out("Folder for a contact sheet of each video of --media.")


def main() -> None:
    """Measure the front end and print the table."""
    rows = measure(flags.FLAGS.clips)
    if flags.FLAGS.media:
        rows += measure_media(Path(flags.FLAGS.media), output.out_folder())
    output.show_figures(rows)


def measure(clips: int = 0) -> list[Row]:
    """Return all rows of the table; `clips` of each subject, 0 = all."""
    config = from_config_dict(base.get_config())
    cv2.setNumThreads(1)
    comparisons, pairs, norms = [], [], []
    for spec, first, rendered in tqdm(_rendered(clips), desc="clips", unit="clip"):
        clip = _clip(rendered)
        observation = observe.observe(clip, config)
        comparisons.append(_against_truth(rendered, observation))
        pairs += _flow_pairs(rendered, observation, config)
        if first:
            norms.append(_node_norms(spec, rendered, observation, config))
    return [
        *_landmark_rows(comparisons),
        *_flow_rows(pairs),
        *_node_rows(norms),
        *_selection_rows(comparisons),
        *_speed_rows(config),
    ]


def _rendered(clips: int) -> Iterator[tuple[script.ClipSpec, bool, render.Rendered]]:
    """Yield scripts, whether a clip is among the first two of its subject, and the rendered clips."""
    recipe = script.Recipe()
    for subject in range(recipe.subjects):
        specs = script.subject_clips(recipe, subject)
        stage = render.set_stage(specs[0].who, specs[0].size)
        for number, spec in enumerate(specs[: clips or None]):
            yield spec, number < 2, render.render_clip(spec, stage)


def _clip(rendered: render.Rendered) -> Clip:
    spec = rendered.spec
    marks = (rendered.onset, rendered.apex, rendered.offset)
    identity = ClipIdentity(f"{spec.subject}/{spec.clip}", spec.subject, "synth_me", spec.emotion)
    return Clip(identity, None, spec.fps, rendered.frames, *marks)


def _against_truth(rendered: render.Rendered, seen: observe.Observation) -> dict[str, Any]:
    """Return landmark errors as fractions of the distance between the pupils, and phase errors in frames."""
    truth = rendered.landmarks
    pupils = np.linalg.norm(truth[:, 42:48].mean(axis=1) - truth[:, 36:42].mean(axis=1), axis=-1)
    error = np.linalg.norm(seen.track.landmarks - truth, axis=-1) / pupils[:, None]
    phases = selection.phases(seen.magnitude)
    marks = np.array([rendered.onset, rendered.apex, rendered.offset])
    return {"error": error[np.isfinite(error)], "refused": sum(map(bool, seen.track.refused)), "phases": phases - marks}


def _landmark_rows(found: Sequence[dict[str, Any]]) -> list[Row]:
    clean = sum(not clip["refused"] for clip in found)
    error = np.concatenate([clip["error"] for clip in found])
    return [
        ("face found, every frame tracked", f"{clean} of {len(found)} clips ({100 * clean / len(found):.1f}%)"),
        (
            "68 points against the truth, of the distance between the pupils",
            f"median {100 * np.median(error):.2f}%, 95th percentile {100 * np.quantile(error, 0.95):.2f}%",
        ),
    ]


def _to_canonical(field: Float[np.ndarray, "y x 2"], seen: observe.Observation) -> Float[np.ndarray, "y2 x2 2"]:
    """Return a displacement field of the first frame in the coordinates of the canonical face."""
    size = seen.reference.shape[0]
    y, x = np.mgrid[:size, :size]
    raw = alignment.apply(alignment.inverse(seen.transform), np.stack([x, y], axis=-1).astype(float))
    sampled = cv2.remap(field, *np.moveaxis(raw.astype(np.float32), -1, 0), cv2.INTER_LINEAR)
    return sampled @ seen.transform[:, :2].T.astype(np.float32)


def _flow_pairs(rendered: render.Rendered, seen: observe.Observation, config: Config) -> list[dict[str, Any]]:
    """Return pairs of aligned faces whose largest true movement is 1 to 3 pixels: the apex frame, and two others."""
    size = config.face.size
    points = alignment.apply(seen.transform, rendered.landmarks[0]).astype(np.float32)
    inside = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(inside, cv2.convexHull(np.rint(points).astype(np.int32)), 1)
    pairs = []
    for f in {rendered.apex, (rendered.onset + rendered.apex) // 2, (rendered.apex + rendered.offset) // 2} - {0}:
        truth = _to_canonical(rendered.true_flow(f), seen)
        if PEAK[0] <= np.linalg.norm(truth, axis=-1)[inside > 0].max() <= PEAK[1]:
            face = alignment.warp(rendered.frames[f], seen.transform, size)
            pairs.append({"prev": seen.reference, "next": face, "truth": truth, "inside": inside > 0})
    return pairs


def _flow_rows(pairs: Sequence[dict[str, Any]]) -> list[Row]:
    """Compare every backend and scikit-image's TV-L1 on the same pairs, one after the other in one run."""
    prev, next = (np.stack([pair[name] for pair in pairs]) for name in ("prev", "next"))
    rows = []
    for name in ("tvl1", "dis", "farneback"):
        optical_flow.flows(prev[:8], next[:8], name)  # compiles the backends that need it
        flow, seconds = _timed(lambda name=name: optical_flow.flows(prev, next, name))
        rows.append((f"flow {name}", _flow_figure(flow, pairs, seconds / len(pairs))))
    flow, seconds = _scikit_image(prev, next)
    rows.append(("flow scikit-image `optical_flow_tvl1`", _flow_figure(flow, pairs, seconds)))
    return rows


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of `work`, and the median seconds of `REPEATS` repetitions."""
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begin)
    return result, float(np.median(seconds))


def _scikit_image(prev: UInt8[np.ndarray, "f y x"], next: UInt8[np.ndarray, "f y x"]) -> tuple[np.ndarray, float]:
    try:
        from skimage.registration import optical_flow_tvl1
    except ImportError as error:
        raise UserError("the benchmark compares with scikit-image: pip install scikit-image") from error
    flows, seconds = [], []
    for a, b in zip(prev, next, strict=True):
        begin = time.perf_counter()
        v, u = optical_flow_tvl1(a.astype(np.float32) / 255, b.astype(np.float32) / 255, dtype=np.float32)
        seconds.append(time.perf_counter() - begin)
        flows.append(np.stack([u, v], axis=-1))
    return np.stack(flows), float(np.median(seconds))


def _flow_figure(found: np.ndarray, pairs: Sequence[dict[str, Any]], seconds: float) -> str:
    error = np.array([
        np.linalg.norm(field - pair["truth"], axis=-1)[pair["inside"]].mean()
        for field, pair in zip(found, pairs, strict=True)
    ])  # fmt: skip
    low, high = np.quantile(error, (0.25, 0.75))
    return f"{error.mean():.3f} px (quartiles {low:.3f}, {high:.3f}; {len(pairs)} pairs), {1e3 * seconds:.1f} ms a pair"


def _head_path(rendered: render.Rendered) -> Float[np.ndarray, "f 2 3"]:
    """Return a head movement that reaches its maximum, `HEAD`, at the apex of the expression."""
    shift, degrees, growth = HEAD
    progress = 0.5 - 0.5 * np.cos(np.pi * np.clip(np.arange(len(rendered.frames)) / max(rendered.apex, 1), 0, 1))
    centre = rendered.landmarks[0, 27:31].mean(axis=0)
    path = []
    for part in progress:
        turn = (1 + growth * part) * np.exp(1j * np.deg2rad(degrees * part))
        linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
        path.append(np.column_stack([linear, centre - linear @ centre + np.array([0.8, 0.6]) * shift * part]))
    return np.stack(path)


def _node_norms(
    spec: script.ClipSpec, rendered: render.Rendered, seen: observe.Observation, config: Config
) -> dict[str, float]:
    """Return squared norms over node features: of those of the true muscle movement, and of the differences from them.

    "default" and "dis" are the measured features, by the config and with DIS in both passes, minus the true ones;
    "head" is the change of the measured ones by an added head movement.
    """
    motion = config.motion
    dis_config = dataclasses.replace(config, motion=dataclasses.replace(motion, first_look="dis", flow="dis"))
    muscles = np.stack([_to_canonical(rendered.muscle_flow(f), seen) for f in seen.index])
    moved = _clip(render.render_clip(spec, head=_head_path(rendered)))
    observations = {
        "default": seen,
        "dis": observe.observe(_clip(rendered), dis_config, keep=seen.index),
        "head": observe.observe(moved, config, keep=seen.index),
        "truth": seen._replace(flow=muscles),
    }
    nodes_of = {
        name: nodes.node_features(look.flow, optical_flow.strain(look.flow), look.centres, motion.patch, motion.spacing)
        for name, look in observations.items()
    }
    against = {"default": "truth", "dis": "truth", "head": "default"}
    norms = {name: ((nodes_of[name] - nodes_of[other]) ** 2).sum() for name, other in against.items()}
    return {name: float(norm) for name, norm in (norms | {"truth": (nodes_of["truth"] ** 2).sum()}).items()}


def _node_rows(norms: Sequence[dict[str, float]]) -> list[Row]:
    per_clip = {name: [np.sqrt(clip[name] / clip["truth"]) for clip in norms] for name in ("default", "dis", "head")}
    overall = {name: np.sqrt(sum(c[name] for c in norms) / sum(c["truth"] for c in norms)) for name in per_clip}
    below = sum(fraction < 0.1 for fraction in per_clip["head"])
    return [
        (
            "node features less those of the true muscle movement, as shares of the latter (2-norm over clips, frames "
            "kept and features)",
            f"{overall['default']:.2f}, by clip median {np.median(per_clip['default']):.2f} "
            f"(DIS in both looks: {overall['dis']:.2f}, {np.median(per_clip['dis']):.2f}); {len(norms)} clips",
        ),
        (
            "change of the node features by 3 px, 2 degrees and 2% of head movement, in the same norm",
            f"{100 * overall['head']:.1f}%, by clip median {100 * np.median(per_clip['head']):.1f}%, "
            f"below 10% in {below} of {len(norms)}",
        ),
    ]


def _selection_rows(found: Sequence[dict[str, Any]]) -> list[Row]:
    phases = np.abs([clip["phases"] for clip in found])
    onset, apex, offset = np.median(phases, axis=0)
    return [
        (
            "frame of largest movement to the true apex, 100 fps",
            f"median {apex:.1f} frames, at most 2 in {100 * (phases[:, 1] <= 2).mean():.0f}% "
            f"(onset found: median {onset:.1f}, offset {offset:.1f})",
        )
    ]


def _speed_rows(config: Config) -> list[Row]:
    """Time 640 x 480 frames from decoded to node features on all cores, as `training.features`, without start-up."""
    rows = []
    workers = processes.cores()
    for name in ("dis", config.motion.flow):
        speed_config = dataclasses.replace(config, motion=dataclasses.replace(config.motion, flow=name))
        with processes.pool(workers) as pool:
            results = list(pool.map(_work, range(workers), [speed_config] * workers))
        rate = sum(frames / seconds for frames, seconds, _ in results)
        percent = 100 * np.mean([tracking for _, _, tracking in results])
        looks = f"`{optical_flow.resolve(speed_config.motion.first_look)}` for all, `{name}` for those kept"
        title = f"640x480 frames to node features, {looks}, {workers} processes"
        rows.append((title, f"{rate:.0f} frames/s (tracking takes {percent:.0f}% of the time)"))
    return rows


def _work(number: int, config: Config) -> tuple[int, float, float]:
    """Return frames, total seconds and the fraction of time for tracking, for one of several parallel processes."""
    cv2.setNumThreads(1)
    recipe = script.Recipe(size=SPEED_SIZE)
    clips = [_widened(_clip(render.render_clip(spec))) for spec in script.subject_clips(recipe, number)[:SPEED_CLIPS]]
    extract.extract(clips[0], config)  # loads the predictor
    begin = time.perf_counter()
    for clip in clips:
        extract.extract(clip, config)
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    for clip in clips:
        tracking.track(clip.frames, config.face, clip=clip.identity.id)
    return sum(len(clip.frames) for clip in clips), seconds, (time.perf_counter() - begin) / seconds


def _widened(clip: Clip) -> Clip:
    left = (SPEED_FRAME[1] - SPEED_SIZE) // 2
    frames = [cv2.copyMakeBorder(frame, 0, 0, left, left, cv2.BORDER_REPLICATE) for frame in clip.frames]
    return clip._replace(frames=np.stack(frames))


def measure_media(folder: Path, out: Path | None) -> list[Row]:
    """Track every frame of every video in a folder; with `out`, draw a contact sheet of each."""
    config = from_config_dict(base.get_config())
    rows = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in (".mp4", ".avi", ".mkv", ".mov")):
        clip = media.read_clip(path)
        begin = time.perf_counter()
        track = tracking.track(clip.frames, config.face, clip=path.name)
        rate = len(clip.frames) / (time.perf_counter() - begin)
        reasons = Counter(reason or "tracked" for reason in track.refused)
        text = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        rows.append((f"`{path.name}`, {len(clip.frames)} frames", f"{text} ({rate:.0f} frames/s)"))
        if out:
            clip_reports.write_track_sheet(clip.frames, track, out / f"{path.stem}.png")
    return rows
