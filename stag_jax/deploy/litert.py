"""A JAX function as a LiteRT (TFLite) file of built-in operations, by jax2tf and the converter of TensorFlow."""

from collections.abc import Callable
from typing import Any

import jax

from stag_jax.deploy.artefact import INPUTS, OUTPUTS
from stag_jax.deploy.plain import plain_operations
from stag_jax.types import UserError


def write(
    function: Callable[..., tuple], inputs: tuple[tuple[tuple[int, ...], Any], ...], *, int8: bool = False
) -> bytes:
    """The function of `INPUTS` to `OUTPUTS` for one clip (b = 1); `inputs` are shapes without b, and dtypes.

    `int8`: the larger weights are stored in 8 bits; activations are rounded as they come ("dynamic range").

    Raises:
      UserError: TensorFlow is missing, or its converter refuses an operation.
    """
    try:
        import tensorflow as tf
        from jax.experimental import jax2tf
    except ImportError as error:
        raise UserError('LiteRT files are written with TensorFlow: pip install -e ".[litert]"') from error
    shapes = [jax.ShapeDtypeStruct((1, *shape), dtype) for shape, dtype in inputs]
    plain = jax2tf.convert(plain_operations(function, shapes), with_gradient=False)
    signature = [
        tf.TensorSpec(shape.shape, tf.as_dtype(shape.dtype), name=name)
        for name, shape in zip(INPUTS, shapes, strict=True)
    ]
    traced = tf.function(
        lambda *arrays: dict(zip(OUTPUTS, plain(*arrays), strict=True)), input_signature=signature, autograph=False
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()], tf.Module())
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter has an error class of its own, in a private module
        raise UserError(f"LiteRT cannot express this network: {str(error).partition(chr(10))[0]}") from error
