import runpy

import numpy as np
import pytest

from stag_jax.face import regions, template, topology
from stag_jax.types import UserError

UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17)


def every_topology():
    return [topology.roi_topology(UNITS), *(topology.grid_topology(UNITS, g) for g in (2, 3, 5, 6, 7, 11))]


@pytest.mark.parametrize("made", every_topology(), ids=lambda made: str(len(made.node_names)))
def test_flipping_the_face_changes_nothing_but_the_names(made):
    n = len(made.node_names)
    flip = np.eye(n)[made.mirror]
    np.testing.assert_array_equal(flip @ flip, np.eye(n))
    np.testing.assert_array_equal(flip @ made.adjacency @ flip.T, made.adjacency)
    np.testing.assert_array_equal(made.incidence @ flip, made.incidence)
    np.testing.assert_allclose(made.position[made.mirror], made.position * (-1, 1) + (1, 0), atol=1e-6)


@pytest.mark.parametrize("made", every_topology(), ids=lambda made: str(len(made.node_names)))
def test_the_graph_is_connected_and_every_unit_moves_something(made):
    n = len(made.node_names)
    reached = np.zeros(n, bool)
    queue = [0]
    while queue:  # slow and obvious
        i = queue.pop()
        if not reached[i]:
            reached[i] = True
            queue += np.flatnonzero(made.adjacency[i]).tolist()
    assert reached.all()
    assert made.incidence.any(axis=1).all()
    assert set(np.unique(made.incidence)) == {0, 1}
    np.testing.assert_array_equal(np.diag(made.adjacency), 1)


def test_counts_follow_the_table():
    made = topology.roi_topology(UNITS)
    assert len(made.node_names) == 2 * len(regions.PAIRS) + len(regions.MIDLINE) == 22
    assert made.incidence.shape == (12, 22)
    fixed = [name for name, m in zip(made.node_names, made.mirror, strict=True) if made.node_names[m] == name]
    assert fixed == list(regions.MIDLINE)
    grid = topology.grid_topology(UNITS, 5)
    assert len(grid.node_names) == 25 and grid.node_names[7] == "r1c2"
    assert grid.node_names[grid.mirror[5]] == "r1c4"


def test_mirror_pairs_are_linked():
    for made in every_topology():
        assert (made.adjacency[np.arange(len(made.mirror)), made.mirror] >= topology.PAIR).all()


def test_sides_are_the_subjects():
    centres = dict(zip(regions.table(), regions.roi_centres(template.mean_face()), strict=True))
    for name in regions.PAIRS:
        right, left = centres[f"{name}_r"], centres[f"{name}_l"]
        assert right[0] < 0 < left[0]
        np.testing.assert_allclose(left, right * (-1, 1), atol=1e-12)
    for name in regions.MIDLINE:
        assert centres[name][0] == pytest.approx(0)
    order = ("inner_brow_l", "upper_lid_l", "lower_lid_l", "cheek_l", "nasolabial_l", "lip_corner_l", "chin", "jaw")
    heights = [centres[name][1] for name in order]
    assert heights == sorted(heights)


def test_centres_move_and_grow_with_the_landmarks():
    face = template.mean_face()
    moved = regions.roi_centres(face * 37 + (5, 11))
    np.testing.assert_allclose(moved, regions.roi_centres(face) * 37 + (5, 11))


def test_rigid_points_lie_off_the_moving_regions():
    face = template.mean_face()
    apart = np.linalg.norm(regions.rigid_points(face)[:, None] - regions.roi_centres(face), axis=-1)
    centres = [i for i, name in enumerate(regions.table()) if name not in ("nose_root", "nose_wing_l", "nose_wing_r")]
    assert apart[:, centres].min() > 0.09


@pytest.mark.parametrize("make", [topology.roi_topology, lambda units: topology.grid_topology(units, 6)])
def test_impossible_units(make):
    with pytest.raises(UserError, match="AU 99"):
        make((4, 99))


def test_validation_finds_a_broken_table():
    made = topology.roi_topology(UNITS)
    broken = made.adjacency.copy()
    broken[0, 2] += 0.1
    with pytest.raises(ValueError, match="symmetric"):
        topology.validate(made._replace(adjacency=broken))
    with pytest.raises(ValueError, match="involution"):
        topology.validate(made._replace(mirror=np.roll(made.mirror, 1)))
    with pytest.raises(ValueError, match="falls apart"):
        topology.validate(made._replace(adjacency=np.eye(22, dtype=np.float32)))


def broken_tables():
    pairs, midline = regions.PAIRS, regions.MIDLINE
    chin, glabella = midline["chin"], midline["glabella"]
    yield "a region is missing", pairs, {name: midline[name] for name in list(midline)[:-1]}, "8 pairs and 5 midline"
    yield "a pair on the midline", pairs, {**midline, "cheek": pairs["cheek"]}, "8 pairs and 7 midline"
    yield (
        "one name twice",
        pairs,
        {("cheek_r" if name == "jaw" else name): region for name, region in midline.items()},
        "of different names",
    )
    aside = glabella._replace(landmarks=(20, 22))
    yield "not on the midline", pairs, {**midline, "glabella": aside}, "do not face each other"
    moved = glabella._replace(offset=(0.1, 0.05))
    yield "moved aside", pairs, {**midline, "glabella": moved}, "do not face each other"
    yield "below the picture", pairs, {**midline, "chin": chin._replace(offset=(0, 9.0))}, "outside the face"


@pytest.mark.parametrize(
    ("pairs", "midline", "message"), [case[1:] for case in broken_tables()], ids=[case[0] for case in broken_tables()]
)
def test_a_broken_table_stops_the_import(pairs, midline, message, monkeypatch):
    fresh = runpy.run_path(topology.__file__)  # the module's code once more, without touching the module
    assert fresh["roi_topology"] is not topology.roi_topology
    monkeypatch.setattr(regions, "PAIRS", pairs)
    monkeypatch.setattr(regions, "MIDLINE", midline)
    with pytest.raises(ValueError, match=message):
        runpy.run_path(topology.__file__)


def test_units_move_what_facs_says():
    made = topology.roi_topology(UNITS)
    moved = {
        unit: {name.removesuffix("_r").removesuffix("_l") for name, on in zip(made.node_names, row, strict=True) if on}
        for unit, row in zip(UNITS, made.incidence, strict=True)
    }
    assert moved == {
        1: {"inner_brow", "glabella"},
        2: {"outer_brow"},
        4: {"inner_brow", "outer_brow", "glabella", "nose_root"},
        5: {"upper_lid"},
        6: {"lower_lid", "cheek"},
        7: {"upper_lid", "lower_lid"},
        9: {"nose_wing", "nose_root", "glabella", "upper_lip"},
        10: {"nose_wing", "nasolabial", "upper_lip"},
        12: {"lip_corner", "nasolabial", "cheek"},
        14: {"lip_corner", "nasolabial"},
        15: {"lip_corner", "lower_lip", "chin"},
        17: {"lower_lip", "chin"},
    }


FEW = ("chin", "inner_brow_l", "inner_brow_r", "lip_corner_r", "lip_corner_l", "lower_lip", "upper_lip")


def test_a_part_of_the_regions_is_that_part_of_the_graph():
    units = (1, 4, 12, 15, 17)
    whole, part = topology.roi_topology(units), topology.roi_topology(units, FEW)
    assert set(part.node_names) == set(FEW)
    at = [whole.node_names.index(name) for name in part.node_names]
    assert at == sorted(at)  # in the order of the table, whatever the order of the names
    np.testing.assert_array_equal(regions.places(FEW), at)
    for i, a in enumerate(at):  # slow and obvious
        assert part.node_names[part.mirror[i]] == whole.node_names[whole.mirror[a]]
        np.testing.assert_array_equal(part.position[i], whole.position[a])
        np.testing.assert_array_equal(part.incidence[:, i], whole.incidence[:, a])
        for j, b in enumerate(at):
            assert part.adjacency[i, j] == whole.adjacency[a, b]
    everything = topology.roi_topology(units, tuple(reversed(whole.node_names)))
    for one, other in zip(everything, whole, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("units", "kept", "message"),
    [
        ((1, 12), FEW[1:3], r"^config\.graph\.nodes leaves AU 12 no region; keep one of them, or take it out"),
        ((1,), FEW[:2], r"has inner_brow_l without inner_brow_r"),
        ((1,), ("inner_brow_l", "inner_brow_r", "chinn"), r"no region is named 'chinn'; did you mean 'chin'\?$"),
        ((1,), ("qqq",), r"no region is named 'qqq'; there are inner_brow_r, "),
    ],
)
def test_regions_that_cannot_be_kept_alone(units, kept, message):
    with pytest.raises(UserError, match=message):
        topology.roi_topology(units, kept)
