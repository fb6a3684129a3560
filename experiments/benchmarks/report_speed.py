"""What a report takes: `benchmark.py report`. A run of 60 folds and over 500 clips, of a few steps, and its page."""

import dataclasses
import shutil
import subprocess
import sys
import time
from pathlib import Path

from stag_configs import synth_me
from stag_experiments import cli
from stag_experiments.benchmarks import output
from stag_jax.analysis import page, report
from stag_jax.config import from_config_dict
from stag_jax.training import loop
from stag_jax.types import UserError

STEPS = 20  # few, because the cost of a report does not depend on training


def define_flags() -> None:
    """Define the flags of `benchmark.py report`."""
    output.define_out("Folder for the corpus, the run and its report.")


def main() -> None:
    """Make the report and print the table."""
    output.show_figures(measure(output.required_out("the corpus, the run and its report are")))


def measure(out: Path) -> list[tuple[str, str]]:
    """Build the corpus and the run in `out`, unless they exist, and write the report in a separate process.

    Compiled programs of an earlier report are removed, so that the time is that of a first report.

    Raises:
      UserError: the report cannot be written.
    """
    settings = synth_me.get_config()
    settings.data.dataset, settings.data.data_dir = "synth_me/many", str(out / "data")
    settings.data.skip_faceless = True  # the tracker refuses one of the sixty faces
    settings.train.steps = STEPS
    config = from_config_dict(settings)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, warmup_steps=STEPS // 2))
    cli.connect(config)
    result = loop.run(*cli.set_up(config, out / "run"))
    shutil.rmtree(out / "run" / "cache", ignore_errors=True)
    script = Path(__file__).parents[1] / "analyze.py"
    begin = time.perf_counter()
    if subprocess.run([sys.executable, str(script), f"--workdir={out / 'run'}"], stdout=subprocess.DEVNULL).returncode:
        raise UserError(f"the report cannot be written: run experiments/analyze.py --workdir={out / 'run'}")
    wall_s = time.perf_counter() - begin
    size = (out / "run" / report.REPORT / page.INDEX).stat().st_size
    return [
        ("clips, folds", f"{result['n_clips']}, {result['n_folds']}"),
        ("report, first time, nothing compiled yet", f"{wall_s:.0f} s"),
        ("index.html", f"{size / 1e6:.2f} MB"),
    ]
