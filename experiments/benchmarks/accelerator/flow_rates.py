"""The part "flow": TV-L1 frame pairs per second beside the bound of the memory, and its error beside that of DIS."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator import rendered_clips
from stag_experiments.benchmarks.accelerator.bench import CLIPS, Bench, Clock, Row, Rows
from stag_jax.motion import optical_flow, tvl1

FLOAT = 4  # bytes
# Numbers a pixel that an iteration reads at least (the flow, its dual variables for two directions, and the data term's
# three of A and two of c) and that it writes (flow and dual variables): each array once.
ITERATION = (2 + 4 + 5) + (2 + 4)
# A warp reads both pictures, the gradient and the flow, and writes the data term.
WARP = (2 + 2 + 2) + 5


def measure(bench: Bench, clock: Clock) -> Rows:
    """Yield rates by side and pairs at once, then errors by side and method."""
    copying = copy_rate(bench.size.copied_mb, bench.size.seconds)
    bench.facts["copying on the first device, GB/s read and written"] = copying / 1e9
    for side in bench.size.sides:
        bound = copying / bytes_moved(side, side)
        found = rendered_clips.pairs(bench.size.rendered, rendered_clips.at_size(bench.config(CLIPS).face, side))
        for count in bench.size.pairs:
            yield {"what": "TV-L1", "side": side, "pairs at once": count, **_rate(bench, found, count, bound)}
        yield from _errors(found, side)
        if clock.left() < 0:
            return


def copy_rate(megabytes: int, seconds: float) -> float:
    """Return the bytes per second, read and written together, of a pass over an array on the first device."""
    array = jax.device_put(jnp.ones(megabytes * 2**20 // FLOAT, jnp.float32), jax.devices()[0])
    scaled = jax.jit(lambda x: x * np.float32(1.5))
    return 2 * array.nbytes / bench_lib.repeated(lambda: scaled(array).block_until_ready(), seconds / 2)


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


def _rate(bench: Bench, found: Sequence[rendered_clips.Pair], count: int, bound: float) -> Row:
    if not found:
        return {"note": "no rendered pair moves as it should"}
    index = np.arange(count) % len(found)
    pictures = [jax.device_put(np.stack([getattr(found[i], name) for i in index])) for name in ("first", "second")]
    try:
        watch = bench_lib.Stopwatch()
        tvl1.tvl1(*pictures).block_until_ready()
        compile_s = watch.seconds()
        seconds = bench_lib.repeated(lambda: tvl1.tvl1(*pictures).block_until_ready(), bench.size.seconds)
    except jax.errors.JaxRuntimeError as error:
        return {"note": bench_lib.reason(error)}
    rate = count / seconds
    share = f"{100 * rate / bound:.2g}%"
    return {"pairs/s": rate, "bound, pairs/s": bound, "share of the bound": share, "compiled in s": compile_s}


def _errors(found: Sequence[rendered_clips.Pair], side: int) -> Rows:
    """Yield the error of each method against the truth, and how far TV-L1 is from DIS."""
    if not found:
        return
    first, second = (np.stack([getattr(pair, name) for pair in found]) for name in ("first", "second"))
    fields = {}
    for name, backend in (("TV-L1", "tvl1"), ("OpenCV DIS, one core", "dis")):
        watch = bench_lib.Stopwatch()
        fields[name] = optical_flow.flows(first, second, backend)
        seconds = watch.seconds()
        rate = {"pairs/s": len(found) / seconds} if backend == "dis" else {}
        yield {
            "what": f"error of {name}",
            "side": side,
            "error px": _distance(fields[name], [pair.truth for pair in found], found),
            "note": f"{len(found)} rendered pairs, true motion",
            **rate,
        }
    apart = _distance(fields["TV-L1"], fields["OpenCV DIS, one core"], found)
    yield {"what": "TV-L1 from DIS", "side": side, "error px": apart, "note": f"{len(found)} rendered pairs"}
    still = _distance(np.zeros_like(first, np.float32)[..., None], [pair.truth for pair in found], found)
    yield {"what": "motion itself", "side": side, "error px": still, "note": "what a flow of zero errs by"}


def _distance(
    fields: Sequence[np.ndarray], others: Sequence[np.ndarray], found: Sequence[rendered_clips.Pair]
) -> float:
    """Return the mean distance over the pixels of the face, mean over pairs."""
    each = [
        np.linalg.norm(field - other, axis=-1)[pair.inside].mean()
        for field, other, pair in zip(fields, others, found, strict=True)
    ]
    return float(np.mean(each))
