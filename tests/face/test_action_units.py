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
        # SAMM
        ("A2", [au(2)]),
        ("A/L12", [au(12)]),
        ("R14A or 17A or 24A", [au(14, "R", "A", False), au(17, "", "A", False), au(24, "", "A", False)]),
        ("ref(7B)+43", [au(7, "", "B", False), au(43)]),
        ("B18", [au(18)]),
        ("R14+17+soft focus", [au(14, "R"), au(17)]),
        ("soft focus", []),
        ("12B ", [au(12, "", "B")]),
        ("/", []),
        # CASME II, CAS(ME)^3, MMEW, DFME, 4DME
        ("U1", [au(1)]),
        ("L1+L2", [au(1, "L"), au(2, "L")]),
        ("0.0", []),
        ("AUR2+12(k)+45", [au(2, "R"), au(45)]),
        ("12 (K)", []),
        ("4\u30017\uff0b\uff2c12\uff08k\uff09\uff1b9\uff1f", [au(4), au(7), au(9, certain=False)]),
        ("\uff1f", []),
        ("AU 4 + ad 31\n+m57", [au(4), au(31), au(57)]),
        # Written as a hand may write them.
        ("L 12+AU r14b", [au(12, "L"), au(14, "R", "B")]),
        ("12BL", [au(12, "L", "B")]),
        ("4B/L18", [au(4, "", "B", False), au(18, "L", "", False)]),
        ("6+(12 or L14)+17", [au(6), au(12, certain=False), au(14, "L", "", False), au(17)]),
        ("(6+12) or 14", [au(6, certain=False), au(12, certain=False), au(14, certain=False)]),
        ("(6+12)+14", [au(6), au(12), au(14)]),
        ("12or14", [au(12, certain=False), au(14, certain=False)]),
    ],
)
def test_the_usual_notations(text, expected):
    assert units(text) == tuple(expected)


NONSENSE = ["smile", "4+x", "4-7", "123", "L12R", "4++grin", "0+4", "soft", "14.5", "1.2.5", "12L14", "4(7", "4)", "or"]
NONSENSE += ["+", "()", "?4", "4+?", "4(k", "AU", "R", "LL4", "4AB", "neutral", "4+ref7", "4+none", "4 and 7", "4??"]


@pytest.mark.parametrize("text", NONSENSE)
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
    """Words for not known, and what cannot be read: training goes on without the clip's units."""
    unknown = (None, " ? ", "none", "None", "nan", "NaN", "N/A", "n/a", "-", "unknown")
    for text in (*unknown, *NONSENSE):
        present, known = action_units.labels(text, (1, 4), clip="c")
        np.testing.assert_array_equal(present, [0, 0])
        np.testing.assert_array_equal(known, [False, False])
    assert action_units.labels("", (1, 4), clip="c")[1].all()


def canonical(unit):
    return f"{unit.side}{unit.unit}{unit.intensity}{'' if unit.certain else '?'}"


def by_hand(unit, rng):
    """The same, as one of many hands would write it."""
    prefix = rng.choice(["", "AU", "AU ", "U", "AD"])
    before, behind = (unit.side + prefix, "") if rng.random() < 0.5 else (prefix, unit.side)
    if unit.intensity and rng.random() < 0.5:
        behind, intensity = "", unit.intensity + behind
    else:
        intensity = unit.intensity
    doubt = "" if unit.certain else rng.choice(["?", " ?"])
    text = f"{before}{unit.unit:0{rng.integers(1, 3)}d}{behind}{intensity}{doubt}"
    return text.lower() if rng.random() < 0.3 else text


def test_what_is_written_is_read_back():
    rng = np.random.default_rng(0)
    for _ in range(500):
        written = tuple(
            au(
                int(rng.integers(1, 99)),
                str(rng.choice(["", "L", "R"])),
                str(rng.choice(["", *"ABCDE"])),
                rng.random() < 0.8,
            )
            for _ in range(rng.integers(0, 7))
        )
        assert units("+".join(map(canonical, written))) == written
        join = rng.choice(["+", " + ", ", ", ",", ";", "\uff0c", "\uff0b"])
        text = join.join(by_hand(unit, rng) for unit in written)
        assert units(text) == written, text


def test_any_text_is_read_or_refused():
    rng = np.random.default_rng(0)
    pieces = [*"LRATBUDK+,/?() 0479", "12", "or", "ref(", "(k)", "AU", "soft focus", "x", "."]
    refused = 0
    for _ in range(2000):
        text = "".join(rng.choice(pieces, rng.integers(1, 9)))
        try:
            read = units(text)
        except UserError as error:
            assert "corpus/s1/c1" in str(error)
            refused += 1
        else:
            assert all(0 < unit.unit < 100 and unit.side in ("", "L", "R") for unit in read)
            assert len(read) <= sum(character.isdigit() for character in text)
    assert 500 < refused < 1990
