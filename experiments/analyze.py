"""Tables and figures of a finished run: python experiments/analyze.py --workdir=DIR.

Applies each fold's checkpoint to the clips it held out, checks predictions.csv against them, and writes the confusion
matrix and the per-class table to DIR/report.
"""

from pathlib import Path

from absl import flags

from stag_datasets import corpus
from stag_experiments import cli
from stag_jax.analysis import report
from stag_jax.training import workdir
from stag_jax.types import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run.")


def main() -> None:
    """Loads, writes, names what was written."""
    if not WORKDIR.value:
        raise UserError("--workdir=DIR is missing")
    folder = Path(WORKDIR.value)
    config = workdir.read_config(folder)
    data = config.data
    prepared = corpus.build_all(data.dataset, data_dir=data.data_dir, manual_dir=data.manual_dir)
    for path in report.write(folder, report.collect(folder, prepared)):
        print(path)


if __name__ == "__main__":
    cli.run(main)
