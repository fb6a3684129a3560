"""Whatever an annotator may have typed is read or refused in one line that names the clip."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stag_jax.face import action_units
from stag_jax.types import UserError

TERMS = st.sampled_from(
    [
        *("4", "12", "L12", "12R", "R12B", "A12B", "A/L12", "10A/B", "T23", "B18", "AD38", "M57", "U1", "14.0", "AUL4"),
        *("12 or 14", "(R6 or R12)+R15", "4/7", "12 or", "4?", "ref(7B)+43", "4(k)", "AU R2", "R14A or 17A or 24A"),
        *(
            "",
            "0",
            "?",
            "/",
            "soft focus",
            "n/a",
            "00",
            "L",
            "((",
            "4)",
            "or",
            "+",
            ",",
            "\uff0c",
            "\uff21\uff35\uff14",
            "4D+9B",
        ),
    ]
)
SIGNS = st.text(alphabet="LRATBUDKEC0123456789+,;&/?(). orefu\uff0c\uff14\n\t", max_size=24)


def check(text):
    try:
        units = action_units.parse(text, clip="corpus/s1/c1")
    except UserError as error:
        assert str(error).startswith("corpus/s1/c1: ") and "\n" not in str(error)
        return
    for unit in units:
        assert 0 < unit.unit < 100 and unit.side in ("", "L", "R") and unit.intensity in ("", *"ABCDE")
    present, known = action_units.labels(text, (1, 2, 4, 12), clip="corpus/s1/c1")
    assert present.shape == known.shape == (4,) and set(present) <= {0.0, 1.0}


@settings(max_examples=400, deadline=None)
@given(st.lists(TERMS, max_size=4), st.sampled_from(["+", ", ", " ", "\uff0c", ";", ""]))
def test_terms_of_the_sheets_in_any_combination(terms, joint):
    check(joint.join(terms))


@settings(max_examples=400, deadline=None)
@given(SIGNS)
def test_signs_in_any_order(text):
    check(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text(text):
    check(text)
