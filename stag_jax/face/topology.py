"""The face graph without features: nodes, closeness of nodes, and the nodes that each action unit moves."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from stag_jax.face import regions, template
from stag_jax.types import UserError

REACH = 0.25  # outer eye distances at which the closeness of two regions has fallen to exp(-1/2)
GRID_REACH = 1.0  # the same for patches, in strides
PAIR = 0.5  # closeness of the two sides of a mirror pair
FLOOR = 0.05  # nodes less close than this are not linked
COVER = 0.75  # a patch belongs to a unit if one of the unit's regions is within this many strides of its centre


class Topology(NamedTuple):
    """The topology of one face graph; fields and axes as in `types.FaceGraph`."""

    node_names: tuple[str, ...]
    units: tuple[int, ...]
    adjacency: Float[np.ndarray, "n n2"]
    incidence: Float[np.ndarray, "u n"]
    mirror: Int[np.ndarray, " n"]
    position: Float[np.ndarray, "n 2"]


def roi_topology(units: tuple[int, ...], kept: tuple[str, ...] = ()) -> Topology:
    """Build the graph of the named regions in the canonical face: those in `kept`, or all if it is empty.

    Raises:
      UserError: a unit that moves none of them, or is named twice; and as `regions.places`.
    """
    table = regions.table()
    names = tuple(table)
    centres = regions.roi_centres(template.mean_face())
    swap = {"_l": "_r", "_r": "_l"}
    mirror = np.array([names.index(name[:-2] + swap[name[-2:]] if name[-2:] in swap else name) for name in names])
    topology = Topology(
        node_names=names,
        units=units,
        adjacency=_closeness(centres, REACH, mirror),
        incidence=_moved(units).astype(np.float32),
        mirror=mirror,
        position=template.in_canonical(centres).astype(np.float32),
    )
    validate(topology)
    return _part(topology, regions.places(kept))


def _part(whole: Topology, kept: Int[np.ndarray, " n"]) -> Topology:
    """Select nodes together with their mirror images. The rest may be unconnected: attention reaches over gaps."""
    for unit, has_region in zip(whole.units, whole.incidence[:, kept].any(axis=1), strict=True):
        if not has_region:
            raise UserError(
                f"config.graph.nodes leaves AU {unit} no region; keep one of them, or take it out of config.graph.units"
            )
    return Topology(
        node_names=tuple(whole.node_names[i] for i in kept),
        units=whole.units,
        adjacency=whole.adjacency[np.ix_(kept, kept)],
        incidence=whole.incidence[:, kept],
        mirror=np.searchsorted(kept, whole.mirror[kept]),
        position=whole.position[kept],
    )


def grid_topology(units: tuple[int, ...], grid: int) -> Topology:
    """Build the graph of `grid` x `grid` patches of an onset-to-apex flow image, row by row, overlapping by half.

    A unit moves the patches around its regions in such an image.

    Raises:
      UserError: a unit that moves none of them.
    """
    row, column = (index.ravel() for index in np.mgrid[:grid, :grid])
    cells = np.stack([column, row], axis=1).astype(float)
    position = (cells + 1) / (grid + 1)
    mirror = row * grid + (grid - 1 - column)
    places = template.in_flow_image(regions.roi_centres(template.mean_face())) * (grid + 1) - 1  # in strides
    distance = np.abs(places[:, None] - cells).max(axis=-1)
    # The nearest patch always counts, so that on a coarse grid every unit has a patch.
    covers = (distance <= COVER) | (distance <= distance.min(axis=1, keepdims=True) + 1e-9)
    near = np.abs(cells[:, None] - cells).max(axis=-1) <= 1
    topology = Topology(
        node_names=tuple(f"r{r}c{c}" for r, c in zip(row, column, strict=True)),
        units=units,
        adjacency=_closeness(cells, GRID_REACH, mirror, near),
        incidence=(_moved(units).astype(int) @ covers > 0).astype(np.float32),
        mirror=mirror,
        position=position.astype(np.float32),
    )
    validate(topology)
    return topology


def _moved(units: tuple[int, ...]) -> Bool[np.ndarray, "u n"]:
    table = regions.table()
    known = sorted({unit for region in table.values() for unit in region.units})
    for unit in units:
        if unit not in known:
            raise UserError(f"config.graph.units: AU {unit} moves none of the regions; known are {known}")
    return np.array([[unit in region.units for region in table.values()] for unit in units])


def _closeness(
    points: Float[np.ndarray, "n 2"],
    reach: float,
    mirror: Int[np.ndarray, " n"],
    allowed: Bool[np.ndarray, "n n2"] | None = None,
) -> Float[np.ndarray, "n n2"]:
    squared = ((points[:, None] - points) ** 2).sum(axis=-1)
    closeness = np.exp(-squared / (2 * reach**2))
    closeness = np.where((closeness >= FLOOR) & (True if allowed is None else allowed), closeness, 0)
    # Rounding differs between the two sides of the face; the average makes the symmetry exact.
    closeness = (closeness + closeness[np.ix_(mirror, mirror)]) / 2
    pairs = np.arange(len(points)), mirror
    closeness[pairs] = np.maximum(closeness[pairs], PAIR)
    np.fill_diagonal(closeness, 1)
    return closeness.astype(np.float32)


def validate(topology: Topology) -> None:
    """Check the graph properties that the model relies on.

    Raises:
      ValueError: a property does not hold; this is a mistake in the tables.
    """
    names, units, adjacency, incidence, mirror, position = topology
    n = len(names)
    checks = {
        "node names are not unique": len(set(names)) == n,
        "sizes disagree": adjacency.shape == (n, n)
        and incidence.shape == (len(units), n)
        and mirror.shape == (n,)
        and position.shape == (n, 2),
        "adjacency is not symmetric": np.array_equal(adjacency, adjacency.T),
        "adjacency is not 1 on its diagonal and within 0 to 1": bool(
            (np.diag(adjacency) == 1).all() and adjacency.min() >= 0 and adjacency.max() <= 1
        ),
        "mirror is not an involution": np.array_equal(mirror[mirror], np.arange(n)),
        "mirror changes adjacency": np.array_equal(adjacency, adjacency[np.ix_(mirror, mirror)]),
        "mirror changes incidence": np.array_equal(incidence, incidence[:, mirror]),
        "mirrored positions do not face each other": np.allclose(
            position[mirror], (1, 0) + position * (-1, 1), atol=1e-6
        ),
        "a node lies outside the face": bool((position > 0).all() and (position < 1).all()),
        "a unit moves no node": bool(incidence.any(axis=1).all()),
        "the graph falls apart": bool((np.linalg.matrix_power((adjacency > 0).astype(float), n) > 0).all()),
    }
    for fault, holds in checks.items():
        if not holds:
            raise ValueError(f"face graph: {fault}")


def check_table() -> None:
    """Check the table of regions, with all the units that it names.

    It must have 8 pairs and 6 regions on the midline, no name twice, and be symmetric, connected and inside the face.
    Called when this module is imported, so that a mistake is found before anything is computed with the table.

    Raises:
      ValueError: the table is wrong.
    """
    counts = len(regions.PAIRS), len(regions.MIDLINE)
    if counts != (8, 6) or len(regions.table()) != 22:
        raise ValueError(
            f"face graph: {counts[0]} pairs and {counts[1]} midline regions, not 8 and 6 of different names"
        )
    roi_topology(tuple(sorted({unit for region in regions.table().values() for unit in region.units})))


check_table()
