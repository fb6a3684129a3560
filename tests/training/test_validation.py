"""Wrong settings are told by key, value and what is allowed, before anything is read."""

import importlib
import math
import pkgutil
import re
from pathlib import Path

import pytest

import stag_configs
from stag_configs import base
from stag_experiments import figures
from stag_jax import config as config_lib
from stag_jax.allowed import Between, Distinct, OddFrom, OneOf
from stag_jax.config import from_config_dict
from stag_jax.model import baselines
from stag_jax.motion import optical_flow
from stag_jax.training import validation
from stag_jax.types import UserError

NAN, INF = math.nan, math.inf
# Every kind of fault once or more: (key, value).
WRONG = [
    *(("seeds", value) for value in ((), (0, 0), (-1,), (2**31,))),
    *(("data.dataset", value) for value in ("", " ")),
    *(("data.classes", value) for value in ((), ("one",), ("a", "a"), ("a", ""))),
    *((f"data.{key}", value) for key, value in (("data_dir", ""), ("labels", "3classes"), ("workers", -2))),
    *(("face.size", value) for value in (0, -128, 10**6)),
    *(("face.smooth", value) for value in (3, 6, -7)),
    *((f"face.{key}", value) for key, value in (("predictor", "/no/such.dat"), ("reference_frames", 0))),
    *((f"face.{key}", value) for key, value in (("min_score", NAN), ("redetect_jump", 0.0), ("max_turn", -1.0))),
    *((f"motion.{key}", "foo") for key in ("first_look", "flow", "reference", "stabilise", "selection")),
    *((f"motion.{key}", value) for key, value in (("average_ms", -1.0), ("frames", 0), ("patch", 0), ("spacing", 0.0))),
    *((f"motion.{key}", value) for key, value in (("window_ms", 0.0), ("hop_ms", INF), ("hop_ms", 501.0))),
    *((f"graph.{key}", value) for key, value in (("kind", "mesh"), ("grid", 1), ("units", ()), ("units", (1, 1)))),
    *((f"graph.{key}", value) for key, value in (("units", (1, 77)), ("nodes", ("nose",)), ("nodes", ("cheek_l",)))),
    *((f"model.{key}", 0) for key in ("width", "heads", "score_dim", "mlp_ratio", "readout_dim")),
    *((f"model.{key}", -1) for key in ("gat_layers", "window", "transformer_layers", "cross_layers")),
    *(("model.heads", value) for value in (-2, 3)),
    *(("model.dropout", value) for value in (1.0, 1.5, -0.5, NAN)),
    *((f"model.{key}", value) for key, value in (("name", "stga"), ("edge_dropout", 1.0), ("dtype", "float16"))),
    *((f"loss.{key}", value) for key, value in (("gamma", -1.0), ("class_balance", 2.0), ("lambda_au", -INF))),
    *(("loss.label_smoothing", value) for value in (1.0, 2.0, -0.1)),
    *((f"distil.{key}", value) for key, value in (("weight", 1.5), ("temperature", 0.0), ("teacher", "/no/such/run"))),
    *(("train.steps", value) for value in (0, -5)),
    *(("train.batch_size", value) for value in (0, -1)),
    *(("train.learning_rate", value) for value in (NAN, INF, -0.1, 0.0)),
    *((f"train.{key}", value) for key, value in (("weight_decay", -1.0), ("clip_norm", 0.0), ("clip_norm", -1.0))),
    ("train.warmup_steps", -1),
    *((f"augment.{key}", value) for key, value in (("mirror", 2.0), ("magnitude", -1.0), ("noise", NAN))),
    *((f"augment.{key}", value) for key, value in (("frame_drop", 1.0), ("mixup", -0.4))),
    *((f"protocol.{key}", value) for key, value in (("split", "foo"), ("folds", 1), ("seed", -1), ("bootstrap", 0))),
    *(("protocol.test", value) for value in (("a", "a"), ("samm",))),
    *((f"parallel.{key}", value) for key, value in (("mode", "map"), ("cpu_devices", -1), ("members_per_chunk", -1))),
    *(("parallel.steps_per_dispatch", value) for value in (0, -3)),
    *((f"checkpoint.{key}", value) for key, value in (("keep", 0), ("every_s", -1.0), ("every_s", NAN))),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_setting_is_told_by_its_key(key, value):
    config = config_lib.replace(from_config_dict(base.get_config()), {key: value})
    group = key if key != "model.heads" or value != 3 else "model.width"  # 32 is no multiple of 3
    with pytest.raises(UserError, match=rf"^config\.{re.escape(group)}\b") as told:
        validation.validate(config)
    text = str(told.value)
    parts = value if isinstance(value, tuple) else (value,)
    shown = repr(value) in text or any(f"{part:g}" if isinstance(part, float) else str(part) in text for part in parts)
    assert shown and "\n" not in text, text


def test_every_number_and_name_has_a_rule_that_refuses_something():
    covered = {key for key, _ in WRONG}
    for setting in config_lib.settings():
        free = setting.type is bool or setting.key in ("data.manual_dir", "face.predictor", "distil.teacher")
        assert setting.meaning and (free or setting.key in covered), setting.key


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(stag_configs.__path__) if not m.ispkg])
def test_every_config_file_is_valid(name):
    validation.validate(from_config_dict(importlib.import_module(f"stag_configs.{name}").get_config()))


def test_names_that_are_allowed_are_those_that_exist():
    rules = {setting.key: setting.rule for setting in config_lib.settings()}
    assert set(rules["motion.flow"].words) == {*optical_flow.BACKENDS, optical_flow.AUTO}
    assert set(rules["model.name"].words) == set(baselines.MODELS)


def test_the_page_of_settings_is_that_of_the_code():
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == figures.settings_page(), "python experiments/figures.py writes it anew"


def test_the_table_has_a_row_for_every_setting():
    rows = validation.rows(base.get_config())
    by_key = {row[0]: row for row in rows}
    assert len(rows) == len(by_key) == len(list(config_lib.settings())) and len(rows) > 60
    assert by_key["train.steps"][1:4] == ("int", "600", "from 1 to 2147483647")
    assert by_key["model.dropout"][1:4] == ("float, tunable", "0.2", "0 or more and below 1")
    assert by_key["data.classes"][1] == "tuple of str" and by_key["distil.teacher"][2] == "(none)"


@pytest.mark.parametrize(
    ("rule", "good", "bad", "text"),
    [
        (Between(0, 1), (0, 1, 0.5), (-0.1, 1.1, NAN), "from 0 to 1"),
        (Between(0, 1, open_high=True), (0, 0.99), (1, INF), "0 or more and below 1"),
        (Between(0, open_low=True), (1e-9, 3), (0, -1, INF, NAN), "above 0"),
        (Between(2, 2**31 - 1), (2, 2**31 - 1), (1, 2**31), "from 2 to 2147483647"),
        (Between(), (-7.0,), (INF, -INF, NAN), "a finite number"),
        (OddFrom(5), (0, 5, 7), (1, 3, 6, -5), "0, or an odd number of 5 or more"),
        (OneOf(("a", "")), ("a", ""), ("b",), "one of a, ''"),
        (
            Distinct(Between(0, 9), 1),
            ((0,), (1, 2)),
            ((), (1, 1), (10,)),
            "1 or more different values, each from 0 to 9",
        ),
    ],
)
def test_a_rule_says_what_it_accepts(rule, good, bad, text):
    assert all(map(rule.accepts, good)) and not any(map(rule.accepts, bad))
    assert str(rule) == text
