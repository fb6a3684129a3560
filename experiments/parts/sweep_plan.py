"""The plan of a sweep as the files of configs/sweeps give it."""

from ml_collections import ConfigDict

from stag_experiments import cli
from stag_jax.protocol import nested
from stag_jax.training import space, trial_groups
from stag_jax.types import UserError


def read(tree: ConfigDict) -> trial_groups.Plan:
    """Return the trials of a sweep: those it names, or those drawn from its space.

    Raises UserError if there are none, or a key does not exist.
    """
    named, space_spec = tree.get("trials"), tree.get("space")
    if "settings" not in tree or bool(named) == bool(space_spec):
        raise UserError("a sweep has `settings` and either `trials` or a `space`, as the files of configs/sweeps do")
    if space_spec:
        count, seed = tree.get("count", 0), tree.get("draw_seed", 0)
        changes_by_name = space.draw(space_spec, tree.get("search", "random"), count, seed)
    else:
        changes_by_name = {name: dict(_flat(changes)) for name, changes in named}
        if len(changes_by_name) < len(named):
            raise UserError("a sweep's trials must have different names")
    trials = {}
    for name, changes in changes_by_name.items():
        settings = tree.settings.copy_and_resolve_references()
        for key, value in changes.items():
            _set(settings, key, value)
        trials[name] = cli.from_config_dict(settings)
    select = tree.get("select", "uf1")
    if select not in nested.SELECT:
        raise UserError(f"a sweep's `select` is one of {', '.join(nested.SELECT)}, got {select!r}")
    return trial_groups.Plan(
        settings=cli.from_config_dict(tree.settings),
        trials=trials,
        changed=changes_by_name,
        inner_folds=tree.get("inner_folds", 0),
        select=select,
        export_all=tree.get("export_all", False),
    )


def _flat(changes: ConfigDict, prefix: str = "") -> list[tuple[str, object]]:
    rows = []
    for key, value in changes.items():
        inner = hasattr(value, "items")
        rows += _flat(value, f"{prefix}{key}.") if inner else [(prefix + key, value)]
    return rows


def _set(settings: ConfigDict, key: str, value: object) -> None:
    *groups, last = key.split(".")
    node = settings
    for index, group in enumerate(groups):
        if not hasattr(node, "keys") or group not in node:
            raise UserError(f"unknown config key config.{'.'.join(groups[: index + 1])}")
        node = node[group]
    # `update` also accepts an unknown key; it is reported when the settings are read as a whole.
    node.update({last: value})
