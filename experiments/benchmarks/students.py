"""The table of `benchmark.py smaller`: students of a run, how far they are from it, and what they cost."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from absl import flags

from stag_experiments import cli, interrupts
from stag_experiments.benchmarks import output
from stag_jax import config as config_lib
from stag_jax import files, processes
from stag_jax.analysis import comparison, cost
from stag_jax.config import Config
from stag_jax.corpora import dataset
from stag_jax.protocol import compare, metrics, splits
from stag_jax.protocol.metrics import EvaluationSet
from stag_jax.training import trial_groups, workdir
from stag_jax.types import Preempted, UserError

TABLE = "smaller.csv"
HEADER = (
    *("network", "what is smaller", "UF1, mean over seeds", "less the teacher", "less the same untaught"),
    *("parameters", "kB", "ms a clip, one core", "temporary kB"),
)
BYTES = 4  # per parameter


def define_flags() -> None:
    """Define the flags of `benchmark.py smaller`."""
    cli.config_flag()
    cli.workdir_flag()
    output.define_out("Folder for the students.")


def main() -> None:
    """Train the missing students, print and write the table."""
    cli.read_settings(flags.FLAGS["config"], "configs/sweeps/smaller.py")
    out, teacher = output.required_out("the students are"), cli.read_workdir(flags.FLAGS["workdir"])
    train(cli.given_config(), teacher, out)
    rows = measure(teacher, out)
    print(comparison.markdown(HEADER, map(cells, rows)))
    print(write(rows, out))


class StudentRow(NamedTuple):
    """One network; scores are UF1, mean over seeds, with 95% intervals over subjects."""

    name: str
    settings: str  # differences from the teacher
    uf1: float
    low: float
    high: float
    less_teacher: compare.Difference | None
    less_untaught: compare.Difference | None
    parameters: int
    ms: float  # median time of one clip, with its mirror image, on one core
    temporary: int | None  # bytes in addition to parameters and input


def train(given: Sequence[str], teacher: Path, out: Path) -> None:
    """Run the sweep of `given` into `out`, or resume it.

    Raises:
      UserError: the sweep fails; its own message gives the reason.
      Preempted: it was stopped; the same call resumes.
    """
    given = [*given, f"--config.settings.distil.teacher={teacher}", f"--workdir={out}"]
    # The sweep's own table, of trials against the first, is also in `out`.
    command = [sys.executable, str(Path(__file__).parents[1] / "sweep.py"), *given]
    code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if code == interrupts.TRY_AGAIN:
        raise Preempted(f"{out}: stopped; the same command goes on")
    if code:
        raise UserError(f"the students were not trained: sweep.py {' '.join(given)} has failed")


def measure(teacher: Path, out: Path) -> list[StudentRow]:
    """Score the teacher and every student in `out/trials` on the clips and folds of the teacher.

    Raises:
      UserError: a run is not finished, or has other splits or other clips.
    """
    folders = {"teacher": teacher} | {
        name: trial_groups.trial_folder(out, name) for name in trial_groups.trial_names(out)
    }
    configs = {name: workdir.read_config(folder) for name, folder in folders.items()}
    first = configs["teacher"]
    student = next(config for name, config in configs.items() if name != "teacher")
    # The teacher may come from another machine, so use the folders of its students.
    first = config_lib.replace(
        first, {"data.data_dir": student.data.data_dir, "data.manual_dir": student.data.manual_dir}
    )
    corpus = dataset.load(cli.build(first), first)
    corpus = corpus.take(splits.make_splits(first.protocol, corpus.clips).test_mask.any(axis=0))
    predictions = {
        name: comparison.of_run(folder, corpus, first).probability.argmax(axis=-1) for name, folder in folders.items()
    }
    clips = EvaluationSet(
        corpus.batch.label, corpus.subjects, len(first.data.classes), resamples=first.protocol.bootstrap
    )

    def less(name: str, other: str | None) -> compare.Difference | None:
        if other in (None, name):
            return None
        return compare.paired_bootstrap(clips, predictions[name], predictions[other])["uf1"]

    rows = []
    for (name, config), forward in zip(configs.items(), on_one_core(list(configs.values())), strict=True):
        bounds = metrics.subject_bootstrap(clips, predictions[name])["uf1"]
        rows.append(
            StudentRow(
                name=name,
                settings=differing(first, config),
                uf1=metrics.mean_scores(clips.label, predictions[name], clips.classes)["uf1"],
                low=bounds[0],
                high=bounds[1],
                less_teacher=less(name, "teacher"),
                less_untaught=less(name, _untaught(name, configs)),
                parameters=cost.parameters(config),
                ms=forward.ms,
                temporary=forward.temporary,
            )
        )
    return rows


def _untaught(name: str, configs: dict[str, Config]) -> str | None:
    """Return the name of the student with the same settings but no teacher; None if there is none."""
    wanted = config_lib.replace(configs[name], {"distil.weight": 0.0})
    return next((other for other, config in configs.items() if config == wanted), None)


def differing(one: Config, other: Config) -> str:
    """Return the settings of `other` that differ from `one` and make a network smaller; nodes as their number."""
    differences = []
    for group in ("motion", "graph", "model"):
        for key, value in vars(getattr(other, group)).items():
            if value != getattr(getattr(one, group), key):
                differences.append(f"{key} {len(value)}" if isinstance(value, tuple) else f"{key} {value}")
    return ", ".join(differences)


def on_one_core(configs: Sequence[Config]) -> list[cost.Forward]:
    """Measure a forward pass of each config in a separate process that is restricted to one CPU core."""
    with processes.pool(1, _keep_to_one_core) as pool:
        return list(pool.map(cost.forward, configs))


def _keep_to_one_core() -> None:
    jax.config.update("jax_platforms", "cpu")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def write(rows: Sequence[StudentRow], out: Path) -> Path:
    """Write the rows as numbers into a CSV file."""
    pairs = ("less_teacher", "less_untaught")
    header = [
        cell
        for name in StudentRow._fields
        for cell in ([f"{name}_{part}" for part in compare.Difference._fields] if name in pairs else [name])
    ]
    body = []
    for row in rows:
        values_by_pair = {name: getattr(row, name) or [""] * len(compare.Difference._fields) for name in pairs}
        body.append([cell for name, value in row._asdict().items() for cell in values_by_pair.get(name, [value])])
    return files.write_table(out / TABLE, header, body)


def cells(row: StudentRow) -> tuple[str, ...]:
    """Return a row as the text cells of `HEADER`."""

    def far(difference: compare.Difference | None) -> str:
        return "" if difference is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference)

    return (
        row.name,
        row.settings,
        f"{row.uf1:.3f} [{row.low:.3f}, {row.high:.3f}]",
        far(row.less_teacher),
        far(row.less_untaught),
        f"{row.parameters:,}",
        f"{row.parameters * BYTES / 1e3:.0f}",
        f"{row.ms:.2f}",
        "" if row.temporary is None else f"{row.temporary / 1e3:.0f}",
    )
