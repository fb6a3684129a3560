"""What must be installed to run an exported network: `benchmark.py runtime`. A fresh environment, and its size."""

import subprocess
import sys
import venv
from pathlib import Path

from absl import flags

from stag_experiments import cli
from stag_experiments.benchmarks import output
from stag_jax.deploy import exporting
from stag_jax.training import checkpoint
from stag_jax.types import UserError

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "stag_jax" / "deploy" / "requirements.txt"
OWN = ("pip", "setuptools", "wheel")  # of the environment rather than of what runs in it
LARGEST = 6  # packages that are named
PROGRAM = """
import json, sys
import numpy as np
from stag_jax.deploy import load_export, scan, stream
from stag_jax.types import ClipBatch
recogniser = load_export(sys.argv[1])
stream.make_step(recogniser, stream.StreamSettings())
t, u = recogniser.config.motion.frames, len(recogniser.config.graph.units)
clip = ClipBatch(np.zeros((1, t, 22, 4 * recogniser.config.motion.patch**2 + 6)), np.arange(t)[None], np.ones((1, t)),
    np.ones((1, t), bool), np.zeros((1, u)), np.zeros((1, u), bool), np.zeros(1, int))
print(json.dumps(np.round(recogniser.forward(clip).probability[0], 4).tolist()))
"""


def define_flags() -> None:
    """Define the flags of `benchmark.py runtime`."""
    cli.workdir_flag()
    output.define_out("Folder for the environment.")


def main() -> None:
    """Make the environment and print the table."""
    out = output.required_out("the environment is").absolute()
    output.show_figures(measure(cli.read_workdir(flags.FLAGS["workdir"]), out))


def measure(folder: Path, out: Path) -> list[tuple[str, str]]:
    """Makes an environment `out`/runtime, runs the first fold of the run in `folder` in it; rows (what, figure).

    Raises:
      UserError: no run, or one of flow images; something cannot be installed, or does not run.
    """
    first = checkpoint.fold_names(folder)[:1]
    path = exporting.export(folder, out, format="stablehlo", precision="int8", folds=first)
    home = out / "runtime"
    venv.create(home, clear=True, with_pip=True)
    python = home / "bin" / "python"
    _run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS])
    _run([python, "-m", "pip", "install", "--quiet", "--no-deps", ROOT])
    said = _run([python, "-c", PROGRAM, path], cwd=out)
    site = next((home / "lib").glob("python*")) / "site-packages"
    sizes = {entry.name: _size(entry) for entry in site.iterdir() if not entry.name.startswith(OWN)}
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:LARGEST]
    return [
        ("Python", sys.version.split()[0]),
        ("answer to a clip without motion", said.strip()),
        ("packages, MB", f"{sum(sizes.values()) / 1e6:.0f}"),
        ("the largest, MB", ", ".join(f"{name} {sizes[name] / 1e6:.0f}" for name in largest)),
        ("the network, MB", f"{path.stat().st_size / 1e6:.3f}"),
    ]


def _size(entry: Path) -> int:
    files = entry.rglob("*") if entry.is_dir() else [entry]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def _run(command: list, cwd: Path | None = None) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        raise UserError(f"{' '.join(map(str, command[1:5]))} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
