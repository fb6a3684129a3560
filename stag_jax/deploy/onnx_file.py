"""A JAX function as an ONNX file, by jax2onnx, and without what ONNX runtimes lack.

The replacements that jax2onnx puts in the place of functions of JAX and Flax know neither `vmap` nor a batch of unknown
size: it gets plain operations on one clip.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from stag_jax.deploy.artefact import INPUTS, OUTPUTS
from stag_jax.deploy.plain import plain_operations
from stag_jax.types import UserError

OPSET = 21
FEW = 16  # numbers of a constant that may as well be written out


def write(function: Callable[..., tuple], inputs: tuple[tuple[tuple[int, ...], Any], ...]) -> bytes:
    """The function of `INPUTS` to `OUTPUTS` for one clip (b = 1); `inputs` are shapes without b, and dtypes.

    Raises:
      UserError: jax2onnx or onnx is missing.
    """
    try:
        import jax2onnx
        import onnx
    except ImportError as error:
        raise UserError(
            f'ONNX files are written with {error.name}, which is not installed: pip install -e ".[export]" and '
            "pip install --no-deps jax2onnx (it asks for an Orbax older than training does, and uses none here)"
        ) from error
    shapes = [jax.ShapeDtypeStruct((1, *shape), dtype) for shape, dtype in inputs]
    plain = plain_operations(function, shapes)
    model = jax2onnx.to_onnx(
        plain, shapes, model_name="stag", opset=OPSET, input_names=list(INPUTS), output_names=list(OUTPUTS)
    )
    _shorten(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _shorten(model: Any) -> None:
    """Writes constants of one repeated number as that number and a shape: they are most of the file otherwise."""
    import onnx

    graph, kept = model.graph, []
    for constant in graph.initializer:
        array = onnx.numpy_helper.to_array(constant)
        if array.size <= FEW or not np.array_equal(array, np.full_like(array, array.flat[0]), equal_nan=True):
            kept.append(constant)
            continue
        shape = f"{constant.name}_shape"
        kept.append(onnx.numpy_helper.from_array(np.asarray(array.shape, np.int64), shape))
        value = onnx.numpy_helper.from_array(array.reshape(-1)[:1])
        node = onnx.helper.make_node("ConstantOfShape", [shape], [constant.name], value=value)
        graph.node.insert(0, node)
    del graph.initializer[:]
    graph.initializer.extend(kept)
