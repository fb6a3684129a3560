"""Nothing is lost: `benchmark.py kills`.

A sweep killed (SIGKILL) at random moments ends with the same table as an undisturbed one; and with --signals five
scripts exit properly at SIGINT and SIGTERM, and resume (`signal_safety`).
"""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from stag_experiments import cli
from stag_experiments.benchmarks import output, signal_safety
from stag_jax.analysis import comparison
from stag_jax.types import UserError

TABLE = "trials.csv"


def define_flags() -> None:
    """Define the flags of `benchmark.py kills`."""
    cli.config_flag()
    flags.DEFINE_integer("kills", 20, "How often the sweep of --config is killed.", lower_bound=0)
    flags.DEFINE_integer("signals", 0, "How many signals are sent to the five scripts.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Of the moments.", lower_bound=0)
    output.define_out("Folder for the runs.")


def main() -> None:
    """Run the requested checks and print the tables."""
    out, values = output.required_out("the runs are"), flags.FLAGS
    if values.kills:
        cli.read_settings(values["config"], "configs/sweeps/recipe.py:synth_me")
        output.show_figures(measure(cli.given_config(), out, values.kills, seed=values.seed))
    if values.signals:
        rows = signal_safety.measure(out / "signals", values.signals, values.seed)
        print(comparison.markdown(signal_safety.HEADER, rows))


def measure(given: Sequence[str], folder: Path, kills: int, seed: int) -> list[tuple[str, str]]:
    """Run the sweep of `given` twice into `folder`, the second time killed (SIGKILL) `kills` times, and compare.

    Every kill comes at a random moment of a session, from its first import on, up to a sixth of the time of the
    undisturbed sweep: it may hit compiling, training, saving, or the writing of results.

    Raises:
      UserError: the undisturbed sweep fails.
    """
    script = Path(__file__).parents[1] / "sweep.py"

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, str(script), *given, f"--workdir={folder / name}"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    for name in ("alone", "killed"):
        shutil.rmtree(folder / name, ignore_errors=True)
    begin = time.perf_counter()
    if start("alone").wait():
        raise UserError(f"the sweep fails when left alone: run experiments/sweep.py {' '.join(given)}")
    alone_s = time.perf_counter() - begin
    rng, ended_before, begin = random.Random(seed), 0, time.perf_counter()
    for _ in tqdm(range(kills), desc="kills", unit="kill"):
        process = start("killed")
        try:
            # Short compared with the whole, so that a session still runs at every kill.
            process.wait(timeout=rng.uniform(0, alone_s / 6))
            ended_before += 1
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    code = start("killed").wait()
    killed_s = time.perf_counter() - begin
    tables = [folder / name / TABLE for name in ("alone", "killed")]
    same = code == 0 and tables[0].read_bytes() == tables[1].read_bytes()
    return [
        ("kills", f"{kills - ended_before} (and {ended_before} sessions that had ended before), seed {seed}"),
        (f"{TABLE} the same, byte for byte", "yes" if same else "NO"),
        ("time left alone", f"{alone_s:.0f} s"),
        ("time of all sessions that were killed", f"{killed_s:.0f} s"),
    ]
