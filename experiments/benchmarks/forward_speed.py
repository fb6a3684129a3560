"""What a network costs once it is deployed: `benchmark.py forward`. Time of a window on one core, size, memory, UF1.

Time, size and memory are of the first fold's network, each measured in a separate process. UF1 is of all folds: each
is exported separately and predicts its held-out clips, with the features of the run.
"""

import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import psutil
from absl import flags
from jax import export as jax_export
from jaxtyping import Float, Int
from tqdm import tqdm

from stag_experiments import cli
from stag_experiments.benchmarks import output
from stag_jax import files, processes
from stag_jax.analysis import comparison
from stag_jax.config import Config
from stag_jax.corpora import dataset
from stag_jax.corpora.dataset import Corpus
from stag_jax.deploy import artefact, exporting, recognition
from stag_jax.protocol import compare, metrics
from stag_jax.protocol.metrics import EvaluationSet
from stag_jax.protocol.splits import Splits, make_splits
from stag_jax.training import checkpoint, workdir
from stag_jax.types import ClipBatch, UserError

REPEATS, WARM = 500, 20
RESAMPLES = 2000
HEADER = ("network", "MB", "ms a window, median", "99th percentile", "MB of memory", "UF1", "less the checkpoint's")
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


class Cost(NamedTuple):
    """The cost of one window, b = 1."""

    median_ms: float
    slow_ms: float  # 99th percentile
    memory_mb: float  # largest resident memory minus that before the network was opened


class ForwardTable(NamedTuple):
    """Rows of `HEADER`, and a line for each format that was left out."""

    rows: list[tuple[str, ...]]
    left_out: list[str]


def define_flags() -> None:
    """Define the flags of `benchmark.py forward`."""
    cli.workdir_flag()
    output.define_out("Folder for the exported networks and forward.csv.")


def main() -> None:
    """Measure the networks and print the table; keep the exported files if --out is given."""
    folder, out = cli.read_workdir(flags.FLAGS["workdir"]), output.out_folder()
    config = workdir.read_config(folder)
    corpora = cli.build(config)
    with tempfile.TemporaryDirectory() as temporary:
        table = measure(folder, corpora, config, out or Path(temporary))
    print(comparison.markdown(HEADER, table.rows))
    for line in table.left_out:
        print(line)
    if out:
        print(files.write_table(out / "forward.csv", HEADER, table.rows))


def measure(folder: Path, corpora: Sequence[Path], config: Config, out: Path) -> ForwardTable:
    """Export the run in `folder` into `out` in every possible format, and compare each with the checkpoint.

    Raises:
      UserError: the run is not finished, or was trained on other data.
    """
    if workdir.finished(folder) is None:
        raise UserError(f"{folder} is no finished run")
    corpus = dataset.load(corpora, config)
    workdir.check_data(folder, corpus)
    splits = make_splits(config.protocol, corpus.clips)
    tested = np.flatnonzero(splits.test_mask.any(axis=0))
    held_out = corpus.take(splits.test_mask.any(axis=0))
    checkpoint_predictions = workdir.read_by_seed(folder, held_out, config.data.classes).mean(axis=0).argmax(axis=1)
    first = checkpoint.fold_names(folder)[0]
    clip = ClipBatch(*(np.asarray(array)[:1] for array in held_out.batch))
    rows = [
        _row(
            "checkpoint, jit",
            "",
            _apart(folder, first, clip),
            held_out,
            config,
            checkpoint_predictions,
            checkpoint_predictions,
        )
    ]
    left_out = []
    for format, precisions in exporting.FORMATS.items():
        try:
            exporting.check(format, precisions[0])
        except UserError as error:
            left_out.append(f"{format} is left out: {error}")
            continue
        for precision in precisions:
            path = exporting.export(folder, out, format=format, precision=precision, folds=[first])
            predictions = pooled(folder, format, precision, corpus, splits, out)[tested].argmax(axis=1)
            size = f"{path.stat().st_size / 1e6:.3f}"
            name = f"{format}, {precision}"
            rows.append(_row(name, size, _apart(path, "", clip), held_out, config, predictions, checkpoint_predictions))
    return ForwardTable(rows, left_out)


def pooled(
    folder: Path, format: str, precision: str, corpus: Corpus, splits: Splits, out: Path
) -> Float[np.ndarray, "b k"]:
    """Return the probabilities of each clip from the exported network of its test fold; NaN where untested."""
    probabilities = np.full((len(corpus.ids), len(workdir.read_config(folder).data.classes)), np.nan, np.float32)
    program, ask = None, None
    folds = zip(splits.names, splits.test_mask, strict=True)
    for name, test in tqdm(list(folds), desc=f"{format} {precision}", unit="fold"):
        exported = exporting.load(folder, format, precision, [name])
        program = program or exporting.program(exported, format)
        held_out = ClipBatch(*(np.asarray(array)[test] for array in corpus.batch))
        if format == "stablehlo":
            # Same program and stored weights as in a file, but compiled only once for all folds.
            ask = ask or jax.jit(jax_export.deserialize(bytearray(program)).call)
            weights = artefact.restored(artefact.unpack(*artefact.pack(exported.weights))).values()
            arrays = [np.asarray(getattr(held_out, field)) for field in artefact.INPUTS]
            outputs = [ask(*weights, *(array[row : row + 1] for array in arrays))[0] for row in range(test.sum())]
            probabilities[test] = np.concatenate(outputs)
        else:
            path = exporting.write(out / ".fold.stag", folder, exported, format, precision, program)
            probabilities[test] = artefact.load_export(path).forward(held_out).probability
            path.unlink()
    return probabilities


def _apart(model: Path, fold: str, clip: ClipBatch) -> Cost:
    """Measure the cost in a separate process, on one core."""
    with processes.pool(1) as pool:
        return pool.submit(_cost, model, fold, clip).result()


def _cost(model: Path, fold: str, clip: ClipBatch) -> Cost:
    # Before any thread starts, because pools have the size of the visible cores.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ONE_THREAD}"
    memory_before = psutil.Process().memory_info().rss
    recogniser = recognition.from_run(model, [fold]) if fold else artefact.load_export(model)
    times = []
    for _ in range(WARM + REPEATS):
        begin = time.perf_counter()
        recogniser.forward(clip)
        times.append(1e3 * (time.perf_counter() - begin))
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    timed = times[WARM:]
    return Cost(float(np.median(timed)), float(np.percentile(timed, 99)), (peak - memory_before) / 1e6)


def _row(
    name: str,
    size: str,
    cost: Cost,
    held_out: Corpus,
    config: Config,
    found: Int[np.ndarray, " b"],
    before: Int[np.ndarray, " b"],
) -> tuple[str, ...]:
    clips = EvaluationSet(held_out.batch.label, held_out.subjects, len(config.data.classes), RESAMPLES)
    uf1 = metrics.mean_scores(clips.label, found[None], clips.classes)["uf1"]
    difference = "" if found is before else _difference(clips, found, before)
    cells = (f"{cost.median_ms:.2f}", f"{cost.slow_ms:.2f}", f"{cost.memory_mb:.0f}", f"{uf1:.4f}", difference)
    return (name, size, *cells)


def _difference(clips: EvaluationSet, found: Int[np.ndarray, " b"], before: Int[np.ndarray, " b"]) -> str:
    difference = compare.paired_bootstrap(clips, found[None], before[None])["uf1"]
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
