"""The comparison of ways to train all members: what it counts, which rows it has, how it is called."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from stag_experiments.benchmarks import members_speed, random_study, torch_reference
from stag_experiments.benchmarks.matrix_rate import matrix_rate
from stag_jax.analysis import cost
from stag_jax.motion import nodes
from stag_jax.types import UserError
from tests import makers

ROOT = Path(__file__).parents[2]
STUDY = '''"""A small study."""
import sys

sys.path.insert(0, {root!r})
from tests import makers


def get_config():
    return makers.tiny_settings(**{{"parallel.cpu_devices": 2, "model.name": "two_stream"}})
'''


@pytest.fixture(scope="module", autouse=True)
def as_the_scripts_have_it():
    """Optax and the normal rules of promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize("kind", ["grid", "roi"])
def test_random_clips_have_the_shapes_of_the_config(kind):
    config = makers.tiny_config(graph__kind=kind, motion__frames=6)
    what = random_study.random_setting(config, 50, 45)
    one = cost.one_clip(nodes.graph(config.graph, config.motion), config)
    for made, known in zip(what.batch, one, strict=True):
        assert made.shape == (50, *known.shape[1:]) and made.dtype == known.dtype
    # Twenty folds, a third seed begun.
    assert len(what.roster.names) == len(what.roster.test_rows) == 45
    assert what.roster.names[-1] == "s04 seed 2" and what.roster.members.seed[-1] == 2
    assert what.task.batch_size == config.train.batch_size
    assert (np.diff(what.batch.times_ms, axis=1) > 0).all()
    assert set(what.batch.label.tolist()) == {0, 1, 2}


def test_the_count_of_a_step_grows_with_its_clips_and_not_with_the_members():
    def count(size, members):
        what = random_study.random_setting(makers.tiny_config(train__batch_size=size), 80, members)
        return random_study.step_flops(what)

    small, large = count(8, 1), count(32, 1)
    assert small > 1e5 and 2 < large / small <= 4
    assert count(8, 20) == small


@pytest.fixture
def built(monkeypatch):
    """What was asked of `members.Members`, which is replaced: no program is compiled, a dispatch takes no time."""
    asked = []

    def build(task, batch, who, parallel, per_device, devices=None):
        asked.append((len(who.names), len(batch.label), parallel.mode, len(devices or jax.devices())))
        return SimpleNamespace(
            place=lambda tree: [tree], train=lambda states, steps: (states, {}), per_device=per_device, compile_s=1.5
        )

    monkeypatch.setattr(members_speed.members, "Members", build)
    monkeypatch.setattr(
        members_speed, "stacked_states", lambda what: {"w": np.zeros((len(what.roster.names), 250), np.float32)}
    )
    monkeypatch.setattr(members_speed, "ENOUGH_S", 0.0)
    return asked


def test_the_curves_have_a_row_a_point(built):
    table = members_speed.curves(makers.tiny_config(), steps=3, counts=(1, 16, 300), clips=(300, 500))
    points = [(1, 300), (16, 300), (300, 300), (16, 500)]
    assert [row[:2] for row in table.rows] == points == [row[:2] for row in built]
    for row in map(lambda row: dict(zip(members_speed.CURVES, row, strict=True)), table.rows):
        assert np.isclose(row["member-steps/s"] * row["s a dispatch"], 3 * row["members"])
        assert (row["steps"], row["compiled in s"], row["state MB"]) == (3, 1.5, row["members"] * 1e-3)


def test_all_devices_are_used_as_training_does_and_by_pmap(built):
    what = random_study.random_setting(makers.tiny_config(), 40, 5)
    one, other = members_speed.all_devices(what, 2, pmap=True)
    assert one.name == "training's own plan, 8 devices (sharded)" and other.name == "the same by pmap, 8 devices (pmap)"
    assert built == [(5, 40, "sharded", 8), (5, 40, "pmap", 8)]
    assert len(one.rates) == members_speed.REPEATS and one.at_once == other.at_once == 1


def test_chunks_of_more_than_there_are_have_no_row(built, monkeypatch):
    what = random_study.random_setting(makers.tiny_config(), 40, 5)
    monkeypatch.setattr(members_speed, "_sequential", lambda *_: members_speed.Way("first", 1, [1.0], 1.0))
    names = [way.name for way in members_speed.one_device(what, 1, members_speed.CHUNKS)]
    assert names == ["first", *(f"vmapped, {size} at once, one device" for size in (1, 2, 4, "all"))]
    assert {asked[-2:] for asked in built} == {("sharded", 1)}


def test_what_does_not_fit_is_a_row_without_figures(built, monkeypatch):
    what = random_study.random_setting(makers.tiny_config(), 40, 3)
    monkeypatch.setattr(members_speed.memory, "SHARE", 0.0)
    monkeypatch.setattr(members_speed, "_sequential", lambda *_: members_speed.Way("first", 1, [1.0], 1.0))
    _, second = members_speed.one_device(what, 1, (0,))
    assert second.rates == [] and built == []
    assert second.name == "vmapped, all at once, one device: too large for the memory"


def test_torch_says_so_where_it_is_missing_or_has_no_such_network(monkeypatch):
    what = random_study.random_setting(makers.tiny_config(model__name="apex_only"), 40, 1)
    if torch_reference.available():
        (way,) = members_speed.eager_torch(what, 1)
        assert way.rates == [] and "apex_only" in way.name
    monkeypatch.setattr(torch_reference, "available", lambda: False)
    assert list(members_speed.eager_torch(what, 1)) == [("eager PyTorch: not installed", None, [], None)]


def test_torch_has_one_thread_and_then_all():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    what = random_study.random_setting(makers.tiny_config(), 40, 1)
    ways = list(members_speed.eager_torch(what, 1))
    assert ways[0].name == "eager PyTorch on cpu, 1 thread, 1 members one after the other"
    assert len(ways) == len({1, before}) and all(min(way.rates) > 0 for way in ways)
    assert torch.get_num_threads() == before


def test_numbers_are_printed_short():
    table = members_speed.SpeedTable("t", ("a",) * 5, [(12345.678, 0.012345, 7, None, "word")])
    assert members_speed.text(table) == [["12346", "0.0123", "7", "", "word"]]


def test_sizes_of_chunks_are_read():
    assert members_speed.read_chunks(None) == members_speed.CHUNKS
    assert members_speed.read_chunks(["1", "4", "all"]) == (1, 4, 0)
    for wrong in (["0"], ["some"], ["1", ""], ["-2"]):
        with pytest.raises(UserError, match="--chunks must be numbers"):
            members_speed.read_chunks(wrong)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an archive and a config file."""
    folder = tmp_path_factory.mktemp("speed")
    makers.write_composite(folder / "archive", subjects=3, clips=6)
    (folder / "study.py").write_text(STUDY.format(root=str(ROOT)))
    return folder


def run(*arguments):
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "experiments" / "benchmark.py"), "members", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)


def test_the_script_prints_and_writes_its_tables(place):
    data = (f"--config.data.data_dir={place / 'data'}", f"--config.data.manual_dir={place / 'archive'}")
    done = run(f"--config={place / 'study.py'}", *data, f"--out={place / 'out'}", "--chunks=all", "--steps=1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "\n| what | figure |\n" in done.stdout
    assert "\n| vmapped, all at once, one device | 3 | " in done.stdout
    figures = dict(read(place / "out" / "members_device.csv"))
    assert figures["devices"].startswith("2 cpu devices") and figures["members"] == "3 folds x 1 seeds"
    assert (figures["clips"], figures["clips a step"], figures["steps a dispatch"]) == ("18", "11", "1")
    header, *rows = read(place / "out" / "members_ways.csv")
    assert tuple(header) == members_speed.WAYS
    assert [row[0] for row in rows[:3]] == [
        "one member after the other, one device",
        "vmapped, all at once, one device",
        "training's own plan, 2 devices (sharded)",
    ]
    assert len(rows) == 4 and rows[3][0].startswith("eager PyTorch") and [row[1] for row in rows[:3]] == ["1", "3", "2"]
    for row in rows[:3]:
        rate, slowest, fastest, ratio, share, compile_s = map(float, row[2:])
        assert 0 < slowest <= rate <= fastest and compile_s > 0
        assert 0 < share < 1 and np.isclose(ratio, rate / float(rows[0][2]))


def read(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--config=FILE is missing"),
        (("--config={}", "--chunks=some"), "--chunks must be numbers"),
        (("--config={}", "--steps=0"), "steps"),
    ],
)
def test_misuse_is_one_line(place, arguments, message):
    done = run(*(each.format(place / "study.py") for each in arguments))
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_products_are_timed_on_all_devices():
    assert matrix_rate(64) > 0 and len(jax.local_devices()) == 8
