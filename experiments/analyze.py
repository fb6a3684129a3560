"""The report of a run: python experiments/analyze.py --workdir=DIR [--compare=DIR2].

Nothing is trained. Each fold's networks are applied to the clips they held out. DIR/report/index.html is one page that
needs no internet connection; next to it are its figures as PNG and SVG and its tables as CSV and LaTeX. An unfinished
run is reported with the folds it has so far.
"""

import stag_experiments.interrupts  # noqa: F401

import dataclasses
import time
from pathlib import Path

import matplotlib
from absl import flags

from stag_experiments import cli
from stag_jax.analysis import load_run, report, require_clips
from stag_jax.training import workdir
from stag_jax.types import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
cli.data_flags()
COMPARE = flags.DEFINE_string("compare", None, "Folder of another run on the same clips, to set the first beside.")


def main() -> None:
    """Load the run, write its report and print the path of the page."""
    if not WORKDIR.value:
        raise UserError("--workdir=DIR is missing")
    matplotlib.use("agg")
    begin = time.perf_counter()
    run = load_run(Path(WORKDIR.value))
    cli.connect(run.config)
    against = load_run(Path(COMPARE.value)) if COMPARE.value else None
    config, prepared = cli.find(run.config)
    run = dataclasses.replace(run, config=config)
    require_clips(run.folder, prepared)
    workdir.keep_programs(run.folder)
    paths = report.write(run, prepared, against=against)
    print(f"{paths[0]} and {len(paths) - 1} files beside it, in {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    cli.run(main)
