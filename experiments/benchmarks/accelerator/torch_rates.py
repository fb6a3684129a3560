"""The part "torch": one member after the other in eager PyTorch and in torch.compile, by the same recipe.

jax has only the CPU in this process, so that the whole memory of the device is torch's.
"""

import numpy as np

from stag_experiments.benchmarks import torch_reference
from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator.bench import CLIPS, COMPOSITE, SEEDS, Bench, Job, Rows
from stag_jax.types import ClipBatch

MEMBERS = 2
EAGER, COMPILED, GRAPHS = None, "default", "reduce-overhead"  # modes of torch.compile
NAMES = {EAGER: "eager", COMPILED: "torch.compile", GRAPHS: "torch.compile with CUDA graphs"}
EAGER_S, COMPILED_S = 14.0, 60.0


def jobs(bench: Bench) -> list[Job]:
    """Return a job a method and network."""
    found = []
    for mode in (EAGER, COMPILED, GRAPHS):
        for kind in (COMPOSITE, CLIPS):
            wanted, seconds = ("eager torch", EAGER_S) if mode is EAGER else ("compiled torch", COMPILED_S)
            measure = lambda clock, how=(kind, mode): _measure(bench, *how)  # noqa: E731
            found.append(Job(f"{kind}, {NAMES[mode]}", wanted, seconds, measure))
    return found


def _measure(bench: Bench, kind: str, mode: str | None) -> Rows:
    torch = torch_reference.torch
    device = "cuda" if torch.cuda.is_available() and bench.facts.get("_platform") == "gpu" else "cpu"
    torch.set_float32_matmul_precision("high")  # tf32, as jax has it by default
    row = {"network": kind, "method": f"{NAMES[mode]} on {device}"}
    if mode == GRAPHS and device == "cpu":
        yield row | {"note": "left out: for GPUs"}
        return
    try:
        yield row | _rate(bench, kind, mode, device)
    except Exception as error:  # whatever a compiler comes up with
        yield row | {"note": bench_lib.reason(error)}


def _rate(bench: Bench, kind: str, mode: str | None, device: str) -> dict:
    setting = bench.setting(kind, MEMBERS)
    batch = ClipBatch(*map(np.asarray, setting.batch))
    wait = torch_reference.torch.cuda.synchronize if device == "cuda" else lambda: None
    watch = bench_lib.Stopwatch()
    rates, first_s = [], None
    for train_mask in setting.roster.members.train_mask:
        step = torch_reference.make_member(setting.config, setting.graph, batch, train_mask, device=device, mode=mode)
        for _ in range(torch_reference.WARM_UP):
            step()
        wait()
        first_s = watch.seconds() if first_s is None else first_s

        def several(step=step) -> None:
            for _ in range(bench.size.steps):
                step()
            wait()

        rates.append(bench.size.steps / bench_lib.repeated(several, bench.size.seconds / 2))
    rate = float(np.median(rates))
    _, folds, _ = bench_lib.KINDS[kind]
    whole = {"68 folds x 5 seeds s, EXTRAPOLATED": folds * SEEDS * setting.config.train.steps / rate}
    return {"member-steps/s": rate, "first steps s": first_s} | (whole if kind == COMPOSITE else {})
