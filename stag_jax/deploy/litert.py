"""Write a network as a LiteRT (TFLite) file of built-in operations, by jax2tf and TensorFlow's converter.

This is the only module that imports TensorFlow, which is large, is only in the extra `litert`, and is not needed to run
the file.
"""

import os
from typing import Any

import numpy as np

from stag_jax.deploy.artefact import INPUTS, OUTPUTS, restored
from stag_jax.deploy.portable import Portable, program
from stag_jax.types import UserError

NEEDS = 'pip install -e ".[litert]"'


def check_installed() -> None:
    """Raise UserError, with the install command, if a library that writes or reads LiteRT is missing."""
    try:
        import ai_edge_litert.interpreter  # noqa: F401

        _tensorflow()
    except ImportError as error:
        raise UserError(f"LiteRT is written with {error.name}, which is not installed: {NEEDS}") from error


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # else it reports every accelerator that it does not find
    import tensorflow

    return tensorflow


def write(network: Portable, *, int8: bool = False) -> bytes:
    """Return the file's content; its program takes one clip per call.

    Args:
      network: must be `unrolled`, since LiteRT has no axis to spare for members.
      int8: store larger weights in 8 bits, and round the activations they multiply at run time ("dynamic range").

    Raises:
      UserError: a library is missing, or its converter refuses an operation.
    """
    check_installed()
    tf = _tensorflow()
    from jax.experimental import jax2tf

    function, shapes = program(network)
    weights = [np.asarray(array) for array in restored(network.weights).values()]
    plain = jax2tf.convert(
        lambda *arrays: dict(zip(OUTPUTS, function(*weights, *arrays), strict=True)), with_gradient=False
    )
    signature = [
        tf.TensorSpec(shape.shape, tf.as_dtype(shape.dtype), name=name)
        for name, shape in zip(INPUTS, shapes[len(weights) :], strict=True)
    ]
    traced = tf.function(plain, input_signature=signature, autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()], tf.Module())
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter's own error class is in a private module
        raise UserError(f"LiteRT cannot express this network: {str(error).partition(chr(10))[0]}") from error
