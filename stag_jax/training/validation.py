"""Validate a config before a corpus is read, and list all settings with their rules."""

import types
from collections.abc import Mapping
from typing import Any, cast, get_args, get_origin

from stag_jax import config as config_lib
from stag_jax.config import Config, Tunable
from stag_jax.face import landmarks
from stag_jax.model import baselines
from stag_jax.motion import nodes
from stag_jax.training import teacher
from stag_jax.types import UserError

HEADER = ("setting", "type", "default", "allowed", "meaning")


def validate(config: Config) -> None:
    """Check every setting by its rule, then settings against each other, without reading a corpus.

    Checks that need a corpus, such as the number of subjects, are in `dataset.load`.

    Raises:
      UserError: a setting is out of range, contradicts another, or names a file, region, unit, scheme or teacher that
        does not exist. The message names the key, the value and the allowed values.
    """
    for setting in config_lib.settings():
        value = config_lib.get(config, setting.key)
        if not setting.rule.accepts(value):
            raise UserError(f"config.{setting.key} must be {setting.rule}, got {value!r}")
    data, protocol, motion = config.data, config.protocol, config.motion
    if motion.hop_ms > motion.window_ms:
        raise UserError(f"config.motion.hop_ms must be at most window_ms ({motion.window_ms:g}), got {motion.hop_ms:g}")
    if protocol.test and protocol.split not in ("dataset", "part"):
        raise UserError(
            f"config.protocol.test must be empty where config.protocol.split is {protocol.split!r} and not dataset or "
            f"part, got {protocol.test!r}"
        )
    if config.face.predictor:
        landmarks.predictor_path(config.face.predictor)
    nodes.graph(config.graph, motion)  # regions and units
    baselines.make_model(config.model, len(data.classes))
    teacher.check(config)


def rows(defaults: Mapping[str, Any] | Any) -> list[tuple[str, str, str, str, str]]:
    """List all settings as rows of text with the columns `HEADER`.

    Args:
      defaults: the config of `configs/base.py`.
    """
    listed = []
    for setting in config_lib.settings():
        default: Any = defaults
        for part in setting.key.split("."):
            default = default[part]
        text = "(none)" if default in ("", ()) else repr(default).strip("'")
        listed.append((setting.key, _type_name(setting.type), text, str(setting.rule), setting.meaning))
    return listed


def _type_name(kind: Any) -> str:
    if isinstance(kind, types.UnionType) and kind == Tunable:
        return "float, tunable"
    if get_origin(kind) is tuple:
        return f"tuple of {get_args(kind)[0].__name__}"
    return str(cast(Any, kind).__name__)
