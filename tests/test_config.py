import dataclasses
import importlib
import json
import pkgutil
import re
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

import stag_configs.sweeps
from stag_configs import base
from stag_configs.sweeps import ablation, smaller
from stag_datasets import corpus
from stag_experiments import cli
from stag_experiments.parts import sweep_plan
from stag_jax.analysis import cost
from stag_jax.config import Config, from_config_dict, get, is_off, replace, to_dict, tunable_keys
from stag_jax.motion import nodes
from stag_jax.protocol import labels
from stag_jax.types import UserError


def tree(**changes):
    """The default settings as plain dicts, with `group__key=value` changed."""
    made = to_dict(from_config_dict(base.get_config()))
    for path, value in changes.items():
        *groups, key = path.split("__")
        node = made
        for group in groups:
            node = node[group]
        node[key] = value
    return made


def test_there_and_back():
    config = from_config_dict(base.get_config())
    plain = json.loads(json.dumps(to_dict(config)))
    assert from_config_dict(plain) == config
    assert to_dict(from_config_dict(plain)) == plain
    assert hash(config) == hash(from_config_dict(plain))
    assert config != from_config_dict(tree(model__width=34))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seeds = (1,)


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(stag_configs.__path__) if not m.ispkg])
def test_every_config_names_corpora_and_classes_that_there_are(name):
    data = from_config_dict(importlib.import_module(f"stag_configs.{name}").get_config()).data
    for one in data.dataset.split("+"):
        corpus.builder(one, data_dir="unused")
        if data.labels:
            scheme = labels.SCHEMES[data.labels][one.partition("/")[0]]
            assert set(data.classes) <= set(scheme.values())


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(stag_configs.__path__) if not m.ispkg])
def test_every_config_file_is_a_config(name):
    module = importlib.import_module(f"stag_configs.{name}")
    config = from_config_dict(module.get_config())
    assert isinstance(config, Config)
    if name != "base":  # it opens with the command that runs it, and it changes something
        assert f"--config=configs/{name}.py" in module.__doc__
        assert config != from_config_dict(base.get_config())
    assert module.get_config() is not module.get_config()


def test_every_config_file_is_installed():
    folder = Path(__file__).parents[1] / "configs"
    for inside, package in ((folder, stag_configs), (folder / "sweeps", stag_configs.sweeps)):
        there = {path.stem for path in inside.glob("*.py")} - {"__init__"}
        assert there == {module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg} > set()


@pytest.mark.parametrize(
    "corpus, like", [("synth_me/order", "synth_me_order"), ("synth_me/tiny", "synth_me"), ("casme9", "base")]
)
def test_a_corpus_finds_its_config(corpus, like):
    expected = importlib.import_module(f"stag_configs.{like}").get_config()
    assert from_config_dict(cli.named_config(corpus)) == from_config_dict(expected)


@pytest.mark.parametrize("study", ablation.STUDIES)
def test_every_ablation_changes_one_thing_that_matters(study):
    found = sweep_plan.read(ablation.get_config(study)).trials
    first, *others = found.values()
    assert next(iter(found)) == "full" and len(others) >= 8
    for name, config in found.items():
        old, new = (flat(to_dict(each)) for each in (first, config))
        changed = {key for key in old if old[key] != new[key]}
        assert len(changed) == (name != "full"), (name, changed)
    assert ("no_time_edges" in found) == (first.graph.kind == "roi")


def flat(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {path: value for key, each in tree.items() for path, value in flat(each, f"{prefix}.{key}").items()}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, "a sweep has `settings`"),
        ({"trials": (("x", {}),), "space": (("loss.gamma", "choice", 1.0),)}, "either `trials` or a `space`"),
        ({"trials": (("x", {}), ("x", {}))}, "different names"),
        ({"space": (("modle.width", "choice", 3),), "search": "grid"}, "unknown config key config.modle"),
        ({"space": (("model.widht", "choice", 3),), "search": "grid"}, "unknown config key config.model.widht"),
        ({"trials": (("x", {"model": {"widht": 3}}),)}, "unknown config key config.model.widht"),
        ({"trials": (("x", {"model": {"width": "wide"}}),)}, "width"),
    ],
)
def test_a_sweep_that_cannot_be(settings, message):
    tree = ConfigDict({"settings": base.get_config(), "trials": ()} | settings)
    with pytest.raises((UserError, TypeError), match=message):
        sweep_plan.read(tree)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model__widht": 3}, "unknown config key config.model.widht; did you mean config.model.width?"),
        ({"modle": {}}, "unknown config key config.modle; did you mean config.model?"),
        ({"qqqq": 1}, "unknown config key config.qqqq"),
        ({"model__width": "32"}, "config.model.width must be of type int, got '32'"),
        ({"model__width": 32.0}, "config.model.width must be of type int, got 32.0"),
        ({"model__width": True}, "config.model.width must be of type int, got True"),
        ({"model__width": None}, "config.model.width must be of type int, got None"),
        ({"model__dropout": True}, "config.model.dropout must be of type float, got True"),
        ({"model__dropout": "0.1"}, "config.model.dropout must be of type float, got '0.1'"),
        ({"model__dynamic": 1}, "config.model.dynamic must be of type bool, got 1"),
        ({"data__dataset": 3}, "config.data.dataset must be of type str, got 3"),
        ({"data__classes": "negative"}, "config.data.classes must be a tuple, got 'negative'"),
        ({"data__classes": ["negative", 3]}, "config.data.classes must be of type str, got 3"),
        ({"graph__units": 4}, "config.graph.units must be a tuple, got 4"),
        ({"seeds": [0, True]}, "config.seeds must be of type int, got True"),
        ({"model": 3}, "config.model must be a group of keys, got 3"),
        ({"model": "stag"}, "config.model must be a group of keys, got 'stag'"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        from_config_dict(tree(**changes))


@pytest.mark.parametrize("group, key", [("model", "width"), ("train", "steps"), ("checkpoint", "keep")])
def test_a_missing_key_is_named(group, key):
    plain = tree()
    del plain[group][key]
    with pytest.raises(UserError, match=rf"^config key config\.{group}\.{key} is missing$"):
        from_config_dict(plain)
    del plain[group]
    with pytest.raises(UserError, match=rf"^config key config\.{group} is missing$"):
        from_config_dict(plain)


def test_what_means_the_same_is_taken():
    config = from_config_dict(tree(model__dropout=0, data__classes=["a", "b"], seeds=(3, 5)))
    assert config.model.dropout == 0.0 and type(config.model.dropout) is float
    assert config.data.classes == ("a", "b")
    assert config.seeds == (3, 5)


def test_what_may_differ_between_members_of_a_program():
    keys = tunable_keys()
    assert {"train.learning_rate", "model.dropout", "augment.mixup", "loss.lambda_au"} <= set(keys)
    assert not {"model.width", "train.steps", "seeds", "model.dynamic", "motion.average_ms"} & set(keys)
    config = from_config_dict(base.get_config())
    changed = replace(config, {"model.dropout": 0.4, "train.steps": 7})
    assert (changed.model.dropout, changed.train.steps, config.model.dropout) == (0.4, 7, 0.2)
    assert dataclasses.replace(changed.model, dropout=0.2) == config.model
    assert [get(config, key) for key in ("loss.gamma", "seeds")] == [2.0, (0,)]
    assert is_off(0.0) and not is_off(0.1) and not is_off(jax.numpy.zeros(()))


@pytest.mark.parametrize("study", smaller.STUDIES)
def test_every_student_is_there_taught_and_alone_and_no_larger_than_its_teacher(study):
    plan = sweep_plan.read(smaller.get_config(study))
    names = list(plan.trials)
    assert names[::2] == [f"{name}_alone" for name in smaller.STUDENTS] and len(names) == 2 * len(smaller.STUDENTS)
    sizes = [cost.parameters(plan.settings)]
    for alone, taught in zip(names[::2], names[1::2], strict=True):
        one, other = plan.trials[alone], plan.trials[taught]
        assert one.distil.weight == 0 < other.distil.weight and one.distil.teacher == other.distil.teacher != ""
        assert replace(one, {"distil.weight": other.distil.weight}) == other
        nodes.graph(one.graph, one.motion)  # no unit is left without a region
        sizes.append(cost.parameters(one))
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0] / 10
    assert plan.inner_folds == 0 and plan.export_all


@pytest.mark.parametrize("name", ["recipe", "widths"])
def test_every_search_is_one(name):
    tree = importlib.import_module(f"stag_configs.sweeps.{name}").get_config()
    plan = sweep_plan.read(tree)
    assert len(plan.trials) >= 8 and plan.inner_folds >= 2
    for trial, own in plan.changed.items():
        assert {key: get(plan.trials[trial], key) for key in own} == own
