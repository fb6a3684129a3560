"""Wrong settings on the command line, with nothing prepared: one line, exit code 2, within seconds, nothing written."""

import subprocess
import sys
import time

import pytest

from tests import commands

# As on the command line: what comes after --config=configs/synth_me.py, and what the line must name.
WRONG = [
    ("--config.seeds=(0,0)", "config.seeds", "(0, 0)"),
    ("--config.seeds=()", "config.seeds", "()"),
    ("--config.seeds=(-1,)", "config.seeds", "-1"),
    (f"--config.seeds=({2**31},)", "config.seeds", str(2**31)),
    ("--config.data.dataset=casme9", "casme9", "there are: casme"),
    ("--config.data.dataset=synth_me/huge", "huge", "there are: default"),
    ("--config.data.labels=3classes", "config.data.labels", "3classes"),
    ("--config.data.classes=('a',)", "config.data.classes", "2 or more"),
    ("--config.data.workers=-2", "config.data.workers", "-2"),
    ("--config.face.size=0", "config.face.size", "from 32 to 1024"),
    ("--config.face.smooth=6", "config.face.smooth", "0, or an odd number of 5 or more"),
    ("--config.face.predictor=nowhere.dat", "config.face.predictor", "nowhere.dat"),
    ("--config.motion.flow=raft", "config.motion.flow", "auto, dis, farneback, tvl1"),
    ("--config.motion.frames=0", "config.motion.frames", "0"),
    ("--config.motion.hop_ms=900", "config.motion.hop_ms", "at most window_ms (500)"),
    ("--config.graph.units=()", "config.graph.units", "()"),
    ("--config.graph.units=(1,77)", "config.graph.units", "77"),
    ("--config.graph.nodes=('nose',)", "config.graph.nodes", "nose"),
    ("--config.model.name=stagg", "config.model.name", "stag, apex_only, two_stream"),
    ("--config.model.width=0", "config.model.width", "0"),
    ("--config.model.heads=0", "config.model.heads", "0"),
    ("--config.model.heads=3", "config.model.width", "heads (3)"),
    ("--config.model.dropout=1.0", "config.model.dropout", "0 or more and below 1"),
    ("--config.model.dropout=-0.5", "config.model.dropout", "-0.5"),
    ("--config.model.widht=3", "config.model.widht", "did you mean config.model.width?"),
    ("--config.model.foo=3", "config.model.foo", "unknown config key"),
    ("--config.loss.label_smoothing=2", "config.loss.label_smoothing", "2"),
    ("--config.distil.teacher=runs/nowhere", "config.distil.teacher", "is no workdir of a run"),
    ("--config.train.steps=0", "config.train.steps", "0"),
    ("--config.train.steps=-5", "config.train.steps", "-5"),
    ("--config.train.steps=many", "config.train.steps", "many"),
    ("--config.train.batch_size=0", "config.train.batch_size", "0"),
    ("--config.train.batch_size=-1", "config.train.batch_size", "-1"),
    ("--config.train.learning_rate=nan", "config.train.learning_rate", "above 0"),
    ("--config.train.learning_rate=inf", "config.train.learning_rate", "inf"),
    ("--config.train.learning_rate=-0.1", "config.train.learning_rate", "-0.1"),
    ("--config.train.weight_decay=-1", "config.train.weight_decay", "-1"),
    ("--config.train.clip_norm=0", "config.train.clip_norm", "0"),
    ("--config.train.warmup_steps=-1", "config.train.warmup_steps", "-1"),
    ("--config.augment.mirror=2", "config.augment.mirror", "from 0 to 1"),
    ("--config.protocol.split=foo", "config.protocol.split", "loso, group"),
    ("--config.protocol.folds=1", "config.protocol.folds", "1"),
    ("--config.protocol.bootstrap=0", "config.protocol.bootstrap", "0"),
    ("--config.protocol.test=('samm',)", "config.protocol.test", "samm"),
    ("--config.parallel.mode=mapped", "config.parallel.mode", "sharded, pmap, data"),
    ("--config.parallel.steps_per_dispatch=0", "config.parallel.steps_per_dispatch", "0"),
    ("--config.parallel.steps_per_dispatch=-3", "config.parallel.steps_per_dispatch", "-3"),
    ("--config.parallel.cpu_devices=-1", "config.parallel.cpu_devices", "-1"),
    ("--config.parallel.members_per_chunk=-1", "config.parallel.members_per_chunk", "-1"),
    ("--config.checkpoint.keep=0", "config.checkpoint.keep", "0"),
]
SYNTH = f"--config={commands.ROOT / 'configs' / 'synth_me.py'}"
RECIPE = f"--config={commands.ROOT / 'configs' / 'sweeps' / 'recipe.py'}"


@pytest.fixture(scope="module")
def train():
    with commands.Script("train") as script:
        yield script


@pytest.mark.parametrize(("flag", "name", "detail"), WRONG)
def test_a_wrong_setting_is_one_line(train, tmp_path, flag, name, detail):
    started = time.monotonic()
    done = train.run(SYNTH, flag, "--workdir=run", "--config.data.data_dir=data", folder=tmp_path)
    seconds = time.monotonic() - started
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.errors, done.stderr
    assert name in done.errors[0] and detail in done.errors[0]
    assert not list(tmp_path.iterdir()) and done.stdout == ""
    assert seconds < 10  # importing is paid for once, below


def test_with_importing_it_is_told_within_15_seconds(tmp_path):
    started = time.monotonic()
    command = [sys.executable, str(commands.ROOT / "experiments" / "train.py"), SYNTH, "--config.model.heads=3"]
    done = subprocess.run([*command, "--workdir=run"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "error: config.model.width must be a multiple of heads (3), got 32\n"
    assert time.monotonic() - started < 15 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((f"{RECIPE}:synth_me", "--config.settings.model.heads=0"), "config.model.heads must be"),
        ((f"{RECIPE}:nothing",), "no study 'nothing'; there are: synth_me"),
        ((f"{RECIPE}:synth_me", "--config.count=0"), "`count` must be 1 or more, got 0"),
        ((f"{RECIPE}:synth_me", "--config.inner_folds=1"), "`inner_folds` must be 0, or 2 or more, got 1"),
        ((f"{RECIPE}:synth_me", "--config.search=bayes"), "`search` is grid or random, got 'bayes'"),
        ((f"{RECIPE}:synth_me", "--config.select=test"), "is one of uf1, log_loss, got 'test'"),
        ((f"{RECIPE}:synth_me", "--config.settings.data.dataset=casme9"), "no corpus named 'casme9'"),
        (("--config=nowhere.py",), "there is no file nowhere.py"),
        (("--config=broken.py",), "broken.py: NameError: name 'ConfigDikt' is not defined"),
        (("--config=space.py",), "trial t1: config.model.dropout must be 0 or more and below 1, got 1.5"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_wrong_sweep_is_one_line(sweep, tmp_path, flags, message):
    (tmp_path / "broken.py").write_text("def get_config():\n    return ConfigDikt()\n")
    (tmp_path / "space.py").write_text(
        "from ml_collections import ConfigDict\nfrom stag_configs import synth_me\n\ndef get_config():\n"
        '    space = (("model.dropout", "choice", 0.5, 1.5),)\n'
        '    return ConfigDict({"settings": synth_me.get_config(), "space": space, "search": "grid"})\n'
    )
    before = sorted(tmp_path.iterdir())
    done = sweep.run(*flags, "--workdir=run", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.errors[0], done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def sweep():
    with commands.Script("sweep") as script:
        yield script


def test_help_prints_every_setting(train):
    done = train.run("--help")
    assert done.returncode == 0 and "--workdir" in done.stdout
    assert "  train.steps (600): int, from 1 to 2147483647; optimiser steps of a member" in done.stdout
