"""Render the missing clips of an archive, for `twin.py` and `benchmark.py twin`."""

from pathlib import Path

from tqdm import tqdm

from stag_datasets import archive, corpus, summary
from stag_datasets.archive import Said
from stag_datasets.synth_me.muscles import UNITS
from stag_datasets.synth_me.script import Recipe
from stag_datasets.twin import stage
from stag_jax.face import action_units
from stag_jax.types import UserError


def render(dataset: str, root: Path, recipe: Recipe) -> None:
    """Render the missing clips of the sheet in `root`, and print which action units could not be rendered."""
    scanned = corpus.scan(dataset, manual_dir=root)
    names = (*(f"{archive.name(clip)}: " for clip in scanned.missing), "no frames of any of ")
    for problem in summary.grouped(line for line in scanned.problems if not line.startswith(names)):
        print(f"left out: {problem}")
    clips = [*(entry.said for entry in scanned.entries), *scanned.missing]
    orders = stage.orders(sorted(clips, key=archive.name), {archive.name(clip): _units(clip) for clip in clips})
    missing = {archive.name(clip) for clip in scanned.missing}
    to_render = [order for order in orders if archive.name(order.said) in missing]
    for _ in tqdm(stage.act(to_render, root, recipe), total=len(to_render), desc="rendering", unit="clip"):
        pass
    annotated = [order for order in orders if order.units is not None]
    partly = sum(any(unit not in UNITS for unit, _ in order.units) for order in annotated)
    still = sum(not any(unit in UNITS for unit, _ in order.units) for order in annotated)
    print(f"{root}: {len(orders)} clips of {len({order.said.subject for order in orders})} subjects")
    if partly:
        unit_list = ", ".join(map(str, sorted(UNITS)))
        print(f"{partly} clips have action units besides {unit_list}, which are not rendered; {still} of all show none")


def _units(said: Said) -> list[tuple[int, str]] | None:
    """Return the certain action units of a clip with their sides; None if it has no annotation."""
    if said.action_units is None:
        return None
    try:
        parsed = action_units.parse(said.action_units, clip=archive.name(said))
    except UserError:
        return None
    return [(unit.unit, unit.side) for unit in parsed if unit.certain]
