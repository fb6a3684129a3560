"""Draw the trials of a sweep from a search space: grids and random search."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from stag_jax.types import UserError

KINDS = ("choice", "uniform", "log_uniform")


def draw(space: Sequence[Sequence[Any]], search: str, count: int, seed: int) -> dict[str, dict[str, Any]]:
    """Return the trials of a search space by name, each with a value for every key.

    Args:
      space: rows of (dotted key, kind, values): ("model.width", "choice", 32, 64), ("model.dropout", "uniform", 0.0,
        0.5), ("train.learning_rate", "log_uniform", 1e-4, 1e-2).
      search: "grid" takes all combinations of choices, the last key changing fastest; "random" draws `count` trials.
      count: number of random trials. The first ones stay the same if more are drawn.
      seed: seed of the draws.

    Raises:
      UserError: an unknown kind or search, an invalid range, a repeated key, or a grid over a range.
    """
    keys = [row[0] for row in space]
    if not space or len(set(keys)) < len(keys):
        raise UserError("a sweep's `space` names one or more keys, each once")
    for key, kind, *values in space:
        if kind not in KINDS:
            raise UserError(f"{key}: {kind!r} is none of {', '.join(KINDS)}")
        if kind == "choice" and not values:
            raise UserError(f"{key}: nothing to choose from")
        if kind != "choice" and not (len(values) == 2 and values[0] < values[1]):
            raise UserError(f"{key}: {kind} needs a lower and a higher end, got {tuple(values)}")
        if kind == "log_uniform" and values[0] <= 0:
            raise UserError(f"{key}: log_uniform needs ends above zero, got {tuple(values)}")
    if search == "grid":
        if ranges := [key for key, kind, *_ in space if kind != "choice"]:
            raise UserError(f"{ranges[0]}: a grid takes choices only; use `search` random for ranges")
        trials = [dict(zip(keys, values, strict=True)) for values in itertools.product(*(row[2:] for row in space))]
    elif search == "random":
        if count < 1:
            raise UserError(f"a sweep's `count` must be 1 or more, got {count}")
        trials = [_one(space, np.random.default_rng((seed, index))) for index in range(count)]
    else:
        raise UserError(f"a sweep's `search` is grid or random, got {search!r}")
    width = len(str(len(trials) - 1))
    return {f"t{index:0{width}d}": values for index, values in enumerate(trials)}


def _one(space: Sequence[Sequence[Any]], rng: np.random.Generator) -> dict[str, Any]:
    values = {}
    for key, kind, *ends in space:
        if kind == "choice":
            values[key] = ends[int(rng.integers(len(ends)))]
        elif kind == "uniform":
            values[key] = _short(rng.uniform(*ends))
        else:
            values[key] = _short(np.exp(rng.uniform(*np.log(ends))))
    return values


def _short(value: float) -> float:
    """Round to six digits, so that tables show exactly the value that was used."""
    return float(f"{value:.6g}")
