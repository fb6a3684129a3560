"""A finished run as one file that runs without it: python experiments/export.py --workdir=DIR --out=DIR --format=...

--format is stablehlo, onnx or tflite, --precision f32, bf16 (stablehlo only) or int8; what is written is
OUT/<format>-<precision>.stag. --fold=NAME,.. takes some folds instead of the mean of all. A file is only there if its
answers are those of the checkpoint. docs/deploy.md says what is in a file, and what its user must install.
"""

import stag_experiments.interrupts  # noqa: F401

from pathlib import Path

from absl import flags

from stag_experiments import cli
from stag_jax.deploy import exporting
from stag_jax.types import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run.")
OUT = flags.DEFINE_string("out", None, "Folder for the file.")
FORMAT = flags.DEFINE_string("format", "stablehlo", f"One of {', '.join(exporting.FORMATS)}.")
PRECISION = flags.DEFINE_string("precision", "f32", "f32, bf16 or int8.")
FOLD = flags.DEFINE_list("fold", [], "Folds of the run, by commas; all are averaged if missing.")


def main() -> None:
    """Exports and names the file."""
    if not OUT.value:
        raise UserError("--out=DIR is missing")
    folder = cli.read_workdir(WORKDIR)
    path = exporting.export(folder, Path(OUT.value), format=FORMAT.value, precision=PRECISION.value, folds=FOLD.value)
    print(f"{path}: {path.stat().st_size / 1e6:.3f} MB")


if __name__ == "__main__":
    cli.run(main)
