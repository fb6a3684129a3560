"""Rendering what an archive lacks, for `twin.py` and `benchmark.py twin`."""

from pathlib import Path

from tqdm import tqdm

from stag_datasets import archive, corpus
from stag_datasets.archive import Said
from stag_datasets.synth_me.muscles import UNITS
from stag_datasets.synth_me.script import Recipe
from stag_datasets.twin import stage
from stag_jax.face import action_units


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
