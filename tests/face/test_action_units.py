import numpy as np
import pytest

from stag_jax.face import action_units
from stag_jax.face.action_units import ActionUnit
from stag_jax.types import UserError


def units(text):
    return action_units.parse(text, clip="corpus/s1/c1")


def au(unit, side="", intensity="", certain=True):
    return ActionUnit(unit, side, intensity, certain)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("0", []),
        ("?", []),
        ("  ", []),
        ("12", [au(12)]),
        ("14.0", [au(14)]),
        ("4+7", [au(4), au(7)]),
        ("6 + 12", [au(6), au(12)]),
        ("1, 2,5", [au(1), au(2), au(5)]),
        ("1 2 5", [au(1), au(2), au(5)]),
        ("4\uff0c7", [au(4), au(7)]),
        ("L12", [au(12, "L")]),
        ("r14", [au(14, "R")]),
        ("12L", [au(12, "L")]),
        ("R1+L1+R2+R5", [au(1, "R"), au(1, "L"), au(2, "R"), au(5, "R")]),
        ("4D+9B", [au(4, "", "D"), au(9, "", "B")]),
        ("R12B", [au(12, "R", "B")]),
        ("12LB", [au(12, "L", "B")]),
        ("A12B", [au(12, "", "B")]),
        ("T23", [au(23)]),
        ("AU4", [au(4)]),
        ("au4,U1", [au(4), au(1)]),
        ("AUR2", [au(2, "R")]),
        ("AD38", [au(38)]),
        ("M57", [au(57)]),
        ("4?", [au(4, certain=False)]),
        ("4+7?", [au(4), au(7, certain=False)]),
        ("12 or 14", [au(12, certain=False), au(14, certain=False)]),
        ("12 or", [au(12, certain=False)]),
        ("4/7", [au(4, certain=False), au(7, certain=False)]),
        ("10A/B", [au(10, "", "A")]),
        ("(R6 or R12)+R15", [au(6, "R", "", False), au(12, "R", "", False), au(15, "R")]),
        ("AU4(k)+L7", [au(7, "L")]),
        ("4+", [au(4)]),
    ],
)
def test_the_usual_notations(text, expected):
    assert units(text) == tuple(expected)


@pytest.mark.parametrize("text", ["smile", "4+x", "4-7", "123", "L12R", "4++grin", "0+4"])
def test_unknown_text_names_the_clip(text):
    with pytest.raises(UserError, match=r"corpus/s1/c1: cannot read .* in the action units"):
        units(text)


def test_targets_hold_what_was_seen():
    present, known = action_units.targets(units("4+L7+12?+45"), (1, 4, 7, 12))
    np.testing.assert_array_equal(present, [0, 1, 1, 0])
    np.testing.assert_array_equal(known, [True, True, True, False])


def test_a_unit_seen_for_certain_on_one_side_is_known():
    present, known = action_units.targets(units("R4?+L4"), (4,))
    assert present == [1] and known == [True]


def test_no_labels_mask_everything():
    for text in (None, " ? "):
        present, known = action_units.labels(text, (1, 4), clip="c")
        np.testing.assert_array_equal(present, [0, 0])
        np.testing.assert_array_equal(known, [False, False])
    assert action_units.labels("", (1, 4), clip="c")[1].all()
