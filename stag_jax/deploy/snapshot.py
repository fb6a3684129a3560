"""Save records, arrays and plain values in one file, exactly, and read them. Unlike pickle it executes nothing."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stag_jax.files import write_atomically

TREE = "tree"  # the member with the structure; arrays are named by their numbers


def write(path: Path, tree: Any) -> None:
    """Write a tree atomically: NamedTuples, tuples, lists, dicts, arrays, numbers, texts, True, False and None.

    Raises:
      TypeError: the tree holds anything else.
      OSError: the file cannot be written.
    """
    arrays: list[np.ndarray] = []
    text = json.dumps(_encoded(tree, arrays))
    with write_atomically(path) as temporary:
        np.savez(temporary, **{TREE: np.array(text)}, **{str(index): array for index, array in enumerate(arrays)})


def read(path: Path, kinds: Sequence[type]) -> Any:
    """Read what `write` wrote: the same types, shapes and bits; arrays are contiguous.

    Args:
      path: the file.
      kinds: the NamedTuples that may be in it.

    Raises:
      ValueError: the file is damaged, or holds a record that is not in `kinds`.
      OSError: the file cannot be read.
    """
    by_name = {_name(kind): kind for kind in kinds}
    try:
        # Opened here, because numpy does not close a file that is not an archive.
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            return _decoded(json.loads(str(file[TREE])), file, by_name)
    except (zipfile.BadZipFile, KeyError, TypeError, EOFError) as error:
        raise ValueError(f"{path} holds no snapshot: {error!r}") from error


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _encoded(value: Any, arrays: list[np.ndarray]) -> Any:
    """Convert a value to JSON; types that JSON does not have become lists that begin with their kind."""
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.hasobject:
            raise TypeError(f"an array of {value.dtype} cannot be kept")
        arrays.append(np.asarray(value))
        return ["array" if isinstance(value, np.ndarray) else "scalar", len(arrays) - 1]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return ["record", _name(type(value)), *(_encoded(part, arrays) for part in value)]
    if isinstance(value, tuple | list):
        return [type(value).__name__, *(_encoded(part, arrays) for part in value)]
    if isinstance(value, Mapping):
        return ["dict", *([_encoded(key, arrays), _encoded(part, arrays)] for key, part in value.items())]
    raise TypeError(f"{type(value).__name__} cannot be kept")


def _decoded(value: Any, file: Mapping[str, np.ndarray], known: Mapping[str, type]) -> Any:
    if not isinstance(value, list):
        return value
    kind, *parts = value
    if kind in ("array", "scalar"):
        array = file[str(parts[0])]
        return array if kind == "array" else array[()]
    if kind == "dict":
        return {_decoded(key, file, known): _decoded(part, file, known) for key, part in parts}
    if kind == "record":
        return known[parts[0]](*(_decoded(part, file, known) for part in parts[1:]))
    return {"tuple": tuple, "list": list}[kind](_decoded(part, file, known) for part in parts)
