"""Renders a twin of a corpus from its annotation: python experiments/twin.py --dataset=NAME --sheet=FILE --out=DIR.

Procedural faces with the subjects, action units, sides, timings and labels of the sheet, in the corpus' own folders and
frame names, so that a study can be rehearsed before its recordings arrive. No real face is read. The same command
resumes where it was stopped. Then: experiments/train.py --config.data.manual_dir=DIR.
"""

import stag_experiments.interrupts  # noqa: F401

import shutil
from pathlib import Path

from absl import flags

from stag_datasets.synth_me.script import Recipe
from stag_experiments import cli
from stag_experiments.parts import twin_corpus
from stag_jax.types import UserError

DATASET = flags.DEFINE_string("dataset", None, "Name of a corpus in datasets/.")
SHEET = flags.DEFINE_list("sheet", [], "Its annotation, as its owners ship it; several files by commas.")
OUT = flags.DEFINE_string("out", None, "Folder of the twin; created, or gone on with.")
SIZE = flags.DEFINE_integer("size", 256, "Side of the frames, pixels.", lower_bound=64)
SEED = flags.DEFINE_integer("seed", 0, "Who is drawn; another seed is another cast.")


def main() -> None:
    """Copy the sheet and render the missing frames of its clips."""
    if not DATASET.value or not SHEET.value or not OUT.value:
        raise UserError("--dataset=NAME, --sheet=FILE and --out=DIR are needed")
    root = Path(OUT.value)
    for sheet in map(Path, SHEET.value):
        if not sheet.is_file():
            raise UserError(f"{sheet} is not a file")
        root.mkdir(parents=True, exist_ok=True)
        shutil.copy(sheet, root / sheet.name)
    twin_corpus.render(DATASET.value, root, Recipe(seed=SEED.value, size=SIZE.value))


if __name__ == "__main__":
    cli.run(main)
