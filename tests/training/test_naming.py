"""Names of folds as folders: any text, reversibly, on any disk."""

from hypothesis import given
from hypothesis import strategies as st

from stag_jax.training import naming

ODD = [
    "g1/a",
    "..",
    ".",
    "",
    " ",
    "a b",
    "Bob",
    "bob",
    "BOB",
    "x" * 300,
    "é" * 120,
    "a|b",
    "50%",
    "%41",
    "a+",
    "+",
    "~",
]


@given(st.text(max_size=400))
def test_any_text_comes_back(name):
    path = naming.encode(name)
    assert naming.decode(path) == name
    for part in path.split("/"):
        assert part and part not in (".", "..") and len(part.encode()) <= 255
        assert part.isascii() and part == part.lower() and not part.endswith((".", " "))


@given(st.lists(st.text(max_size=40), unique=True, min_size=2, max_size=5))
def test_no_two_names_meet_on_a_disk_that_ignores_case(names):
    assert len({naming.encode(name).casefold() for name in names}) == len(names)


def test_plain_names_are_left_as_they_are():
    for name in ("synth_me_s01", "casme2_sub01", "group1", "smic_s1-2.b"):
        assert naming.encode(name) == name


def test_folders_are_listed_and_found(tmp_path):
    root = tmp_path / "folds"
    assert naming.names(root) == []
    for name in ODD:
        naming.find(root, name).mkdir(parents=True)
    assert naming.names(root) == sorted(ODD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folds"]  # nothing left the folder


def test_folders_of_earlier_versions_are_found(tmp_path):
    for name in ("casme3_spNO.1", "Bob"):
        (tmp_path / name).mkdir()
        assert naming.find(tmp_path, name) == tmp_path / name
    assert naming.find(tmp_path, "bob") == tmp_path / "bob" and not naming.find(tmp_path, "x/y").is_dir()
    assert naming.names(tmp_path) == ["Bob", "casme3_spNO.1"]
    (tmp_path / "g1" / "a").mkdir(parents=True)  # as "g1/a" once was written: no fold of its own
    assert naming.find(tmp_path, "g1/a") == tmp_path / "g1%2fa"


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\0"), max_size=9), max_size=4))
def test_a_cell_holds_any_names(names):
    assert naming.split(naming.join(names)) == names


def test_cells_of_plain_names_are_as_before():
    assert naming.join(["b", "a"]) == "b|a" and naming.join([]) == "" and naming.split("") == []
    assert naming.join(["a|b", "c"]) == '"a|b"|c'
