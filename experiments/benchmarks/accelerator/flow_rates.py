"""The part "flow": TV-L1 frame pairs per second beside the bound of the memory, and its error beside that of DIS."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator import rendered_clips
from stag_experiments.benchmarks.accelerator.bench import CLIPS, Bench, Clock, Job, Rows
from stag_experiments.benchmarks.accelerator.programs import Later, Program
from stag_jax.motion import optical_flow, tvl1

FLOAT = 4  # bytes
# Numbers a pixel that an iteration reads at least (the flow, its dual variables for two directions, and the data term's
# three of A and two of c) and that it writes (flow and dual variables): each array once.
ITERATION = (2 + 4 + 5) + (2 + 4)
# A warp reads both pictures, the gradient and the flow, and writes the data term.
WARP = (2 + 2 + 2) + 5

Flow = Callable[..., jax.Array]


def jobs(bench: Bench) -> list[Job]:
    """Return rates by side and pairs at once, and errors by side."""
    found = []
    for side in bench.size.sides:
        first = side == bench.size.sides[0]
        for count in bench.size.pairs:
            smallest = count == bench.size.pairs[0]
            wanted = ("flow" if smallest else "more flow") if first else "larger pictures"
            found.append(_rate(bench, side, count, wanted))
            if smallest:
                found.append(_errors(bench, side, count, wanted))
    return found


def _program(side: int, count: int) -> Program:
    pictures = jax.ShapeDtypeStruct((count, side, side), np.uint8)
    return Program(f"TV-L1 {side} px {count} pairs", lambda later: later(tvl1.tvl1.lower(pictures, pictures).compile))


def _rate(bench: Bench, side: int, count: int, wanted: str) -> Job:
    """Return the rate of so many pairs at once. All runs a fixed number of times, so any pictures do."""
    program = _program(side, count)

    def measure(clock: Clock, estimate: Flow) -> Rows:
        rng = np.random.default_rng(0)
        pictures = [jax.device_put(rng.integers(0, 256, (count, side, side), np.uint8)) for _ in range(2)]
        rate = count / bench_lib.repeated(lambda: estimate(*pictures).block_until_ready(), bench.size.seconds)
        bound = bench.facts["_copying"] / bytes_moved(side, side) if "_copying" in bench.facts else None
        yield {
            "what": "TV-L1",
            "side": side,
            "pairs at once": count,
            "pairs/s": rate,
            "bound, pairs/s": bound,
            "share of the bound": f"{100 * rate / bound:.2g}%" if bound else None,
            "compiled in s": bench.programs.seconds(program.name),
        }

    return Job(f"{side} px, {count} pairs", wanted, 6, measure, (program,))


def bytes_moved(height: int, width: int, settings: tvl1.TVL1Settings = tvl1.DEFAULT) -> float:
    """Return the bytes that the flow of one pair reads and writes at least, were every array touched once a pass.

    Pyramid, filters and spline coefficients are left out: it is a lower bound.
    """
    pixels = 0
    while True:
        pixels += height * width
        height, width = (height + 1) // 2, (width + 1) // 2
        if min(height, width) < settings.coarsest:
            break
    return float(FLOAT * pixels * settings.warps * (settings.iterations * ITERATION + WARP))


def _errors(bench: Bench, side: int, count: int, wanted: str) -> Job:
    """Return the error of each method against the truth, and how far TV-L1 is from DIS."""
    face = rendered_clips.at_size(bench.config(CLIPS).face, side)
    pairs = Program(f"faces of {side} px", lambda later: later(lambda: rendered_clips.pairs(bench.size.rendered, face)))

    def measure(clock: Clock, estimate: Flow, rendered: Later) -> Rows:
        found = rendered.result()
        if not found:
            yield {"what": "errors", "side": side, "note": "no rendered pair moves as it should"}
            return
        first, second = (np.stack([getattr(pair, name) for pair in found]) for name in ("first", "second"))
        watch = bench_lib.Stopwatch()
        dis = optical_flow.flows(first, second, "dis")
        dis_rate = len(found) / watch.seconds()
        fields = {"TV-L1": _in_blocks(estimate, first, second, count), "OpenCV DIS, one core": dis}
        truth, note = [pair.truth for pair in found], f"{len(found)} rendered pairs, true motion"
        for name, field in fields.items():
            row = {"what": f"error of {name}", "side": side, "error px": _distance(field, truth, found), "note": note}
            yield row | ({"pairs/s": dis_rate} if field is dis else {})
        apart = _distance(fields["TV-L1"], dis, found)
        yield {"what": "TV-L1 from DIS", "side": side, "error px": apart, "note": f"{len(found)} rendered pairs"}
        still = _distance(np.zeros_like(first, np.float32)[..., None], truth, found)
        yield {"what": "motion itself", "side": side, "error px": still, "note": "what a flow of zero errs by"}

    return Job(f"{side} px, errors", wanted, 8, measure, (_program(side, count), pairs))


def _in_blocks(estimate: Flow, first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Return the flow of any number of pairs by a program for `count`; the last block is filled up."""
    fields = []
    for start in range(0, len(first), count):
        rows = np.minimum(np.arange(start, start + count), len(first) - 1)
        fields.append(np.asarray(estimate(first[rows], second[rows])))
    return np.concatenate(fields)[: len(first)]


def _distance(
    fields: Sequence[np.ndarray], others: Sequence[np.ndarray], found: Sequence[rendered_clips.Pair]
) -> float:
    """Return the mean distance over the pixels of the face, mean over pairs."""
    each = [
        np.linalg.norm(field - other, axis=-1)[pair.inside].mean()
        for field, other, pair in zip(fields, others, found, strict=True)
    ]
    return float(np.mean(each))
