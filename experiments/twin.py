"""Renders a twin of a corpus from its annotation: python experiments/twin.py --dataset=NAME --sheet=FILE --out=DIR.

Procedural faces with the subjects, action units, sides, timings and labels of the sheet, in the corpus' own folders and
frame names, so that a study can be rehearsed before its recordings are there. No real face is read. The same command
goes on where it was stopped. Then: experiments/train.py --config.data.manual_dir=DIR.
"""

import shutil
from pathlib import Path

from absl import flags
from tqdm import tqdm

from stag_datasets import archive, corpus
from stag_datasets.archive import Said
from stag_datasets.synth_me.muscles import UNITS
from stag_datasets.synth_me.script import Recipe
from stag_datasets.twin import stage
from stag_experiments import cli
from stag_jax.face import action_units
from stag_jax.types import UserError

DATASET = flags.DEFINE_string("dataset", None, "Name of a corpus in datasets/.")
SHEET = flags.DEFINE_list("sheet", [], "Its annotation, as its owners ship it; several files by commas.")
OUT = flags.DEFINE_string("out", None, "Folder of the twin; created, or gone on with.")
SIZE = flags.DEFINE_integer("size", 256, "Side of the frames, pixels.", lower_bound=64)
SEED = flags.DEFINE_integer("seed", 0, "Who is drawn; another seed is another cast.")


def main() -> None:
    """Copies the sheet, renders what its clips lack."""
    if not DATASET.value or not SHEET.value or not OUT.value:
        raise UserError("--dataset=NAME, --sheet=FILE and --out=DIR are needed")
    root = Path(OUT.value)
    for sheet in map(Path, SHEET.value):
        if not sheet.is_file():
            raise UserError(f"{sheet} is not a file")
        root.mkdir(parents=True, exist_ok=True)
        shutil.copy(sheet, root / sheet.name)
    render(DATASET.value, root, Recipe(seed=SEED.value, size=SIZE.value))


def render(dataset: str, root: Path, recipe: Recipe) -> None:
    """Renders what the clips of the sheet in `root` lack, and says what could not be shown."""
    found = corpus.scan(dataset, manual_dir=root)
    names = tuple(f"{archive.name(said)}: " for said in found.missing)
    for problem in found.problems:
        if not problem.startswith(names):
            print(f"left out: {problem}")
    everyone = [*(entry.said for entry in found.entries), *found.missing]
    plan = stage.orders(sorted(everyone, key=archive.name), {archive.name(said): _units(said) for said in everyone})
    missing = {archive.name(said) for said in found.missing}
    wanted = [order for order in plan if archive.name(order.said) in missing]
    for _ in tqdm(stage.act(wanted, root, recipe), total=len(wanted), desc="rendering", unit="clip"):
        pass
    annotated = [order for order in plan if order.units is not None]
    partly = sum(any(unit not in UNITS for unit, _ in order.units) for order in annotated)
    still = sum(not any(unit in UNITS for unit, _ in order.units) for order in annotated)
    print(f"{root}: {len(plan)} clips of {len({order.said.subject for order in plan})} subjects")
    if partly:
        known = ", ".join(map(str, sorted(UNITS)))
        print(f"{partly} clips have action units besides {known}, which are not rendered; {still} of all show none")


def _units(said: Said) -> list[tuple[int, str]] | None:
    """The action units of a clip and their sides, those that are not certain left out."""
    if said.action_units is None:
        return None
    parsed = action_units.parse(said.action_units, clip=archive.name(said))
    return [(unit.unit, unit.side) for unit in parsed if unit.certain]


if __name__ == "__main__":
    cli.run(main)
