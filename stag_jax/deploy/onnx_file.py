"""Write a network as an ONNX file, by jax2onnx, and quantise it to 8 bits, by ONNX Runtime.

jax2onnx gets plain operations on one clip, because its replacements of JAX and Flax functions do not support `vmap`.
Weights are inputs of the translated model and are bound afterwards, so that one translation serves every fold.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stag_jax.deploy.artefact import INPUTS, OUTPUTS, restored
from stag_jax.deploy.portable import Portable, program
from stag_jax.types import UserError

OPSET = 21
BROADCASTING = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Where", "Equal", "Greater", "GreaterOrEqual", "Less")
MOVING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Identity")
WEIGHT = "w{}"  # input name of weight i
NEEDS = (
    'pip install -e ".[onnx]" && pip install --no-deps jax2onnx '
    "(it asks for an Orbax older than training does, and uses none here)"
)


def check_installed() -> None:
    """Raise UserError, with the install command, if a library that writes ONNX is missing."""
    try:
        import jax2onnx  # noqa: F401
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX is written with {error.name}, which is not installed: {NEEDS}") from error


def translate(network: Portable) -> Any:
    """Translate the program of a network into an ONNX model whose weights are inputs.

    Raises:
      UserError: a library is missing.
    """
    check_installed()
    import jax2onnx

    function, shapes = program(network)
    names = [WEIGHT.format(index) for index in range(len(shapes) - len(INPUTS))]
    with _quiet("", "jax2onnx", "onnx_ir"):  # they report plugins for libraries that are not installed
        model = jax2onnx.to_onnx(
            function,
            shapes,
            model_name="stag",
            opset=OPSET,
            input_names=[*names, *INPUTS],
            output_names=list(OUTPUTS),
        )
    for node in model.graph.node:
        del node.metadata_props[:]  # source locations, which would be most of the file
        node.ClearField("doc_string")
    del model.metadata_props[:]
    model = _optimised(model)
    _narrow(model)
    return model


def bind(model: Any, network: Portable) -> bytes:
    """Return the translated program with the weights of a network as constants, serialised."""
    import onnx

    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    graph = bound.graph
    inputs = [tensor for tensor in graph.input if tensor.name in INPUTS]
    del graph.input[:]
    graph.input.extend(inputs)
    for index, array in enumerate(restored(network.weights).values()):
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), WEIGHT.format(index)))
    _fold(graph)
    _shorten(bound)
    onnx.checker.check_model(bound, full_check=True)
    return bound.SerializeToString()


def _optimised(model: Any) -> Any:
    """Optimise a model by ONNX Runtime, only as far as every runtime still understands the result."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def _narrow(model: Any) -> None:
    """Replace constants that repeat one number by a scalar, if all their users broadcast it to the same shape."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in graph.value_info}
    used: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            used.setdefault(name, []).append(node)
    for constant in model.graph.initializer:
        array = onnx.numpy_helper.to_array(constant)
        if array.size < 2 or not np.array_equal(array, np.full_like(array, array.flat[0]), equal_nan=True):
            continue
        nodes = used.get(constant.name, [])
        if all(
            node.op_type in BROADCASTING and list(array.shape) in [shapes.get(o) for o in node.input] for node in nodes
        ):
            constant.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array.flat[0]), constant.name))


def _fold(graph: Any) -> None:
    """Fold operations that only rearrange weights, so that products use the weights directly.

    Nothing else is folded: computed constants can be larger than the weights, and runtimes fold them on loading.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept_nodes = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type not in MOVING or not all(name in arrays for name in inputs):
            kept_nodes.append(node)
            continue
        outputs = ReferenceEvaluator(node).run(None, {name: arrays[name] for name in inputs})
        arrays |= {name: np.asarray(array) for name, array in zip(node.output, outputs, strict=True)}
    used = {name for node in kept_nodes for name in node.input} | {tensor.name for tensor in graph.output}
    del graph.node[:]
    graph.node.extend(kept_nodes)
    del graph.initializer[:]
    graph.initializer.extend(onnx.numpy_helper.from_array(arrays[name], name) for name in arrays if name in used)


def _shorten(model: Any) -> None:
    """Shorten tensor names and remove node names: in a small network names are most of the file."""
    import onnx

    graph, short = model.graph, {name: name for name in (*INPUTS, *OUTPUTS, "")}

    def name(long: str) -> str:
        return short.setdefault(long, f"t{len(short)}")

    for constant in graph.initializer:
        constant.name = name(constant.name)
    zeros = {scalar.name for scalar in graph.initializer if not scalar.dims and not onnx.numpy_helper.to_array(scalar)}
    for node in graph.node:
        node.name = ""
        node.input[:] = [name(long) for long in node.input]
        node.output[:] = [name(long) for long in node.output]
        if node.op_type == "Gemm" and node.input[2:] and node.input[2] in zeros:
            del node.input[2]
        if (
            node.op_type == "Gemm"
            and len(node.input) == 2
            and not any(a.name[:5] == "trans" and a.i for a in node.attribute)
        ):
            node.op_type = "MatMul"  # equivalent here, and quantisers know it
            del node.attribute[:]
    del graph.value_info[:]
    model.producer_name = "stag-jax"


def quantise(content: bytes, members: int) -> bytes:
    """Quantise a model: weights of products are stored in 8 bits, and activations rounded to 8 bits within their range.

    One scale per channel; one per weight array if it stacks several members, since runtimes support no other. Ranges
    of activations are those of each clip ("dynamic"): fixed ranges from training clips changed answers three times as
    much and were no faster (docs/deploy.md).
    """
    import onnx
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "plain.onnx", Path(folder) / "small.onnx"
        plain.write_bytes(content)
        with _quiet(""):  # it asks for a preprocessing that `translate` has done already
            quantization.quantize_dynamic(
                str(plain),
                str(small),
                op_types_to_quantize=["MatMul"],
                per_channel=members == 1,
                weight_type=quantization.QuantType.QInt8,
            )
        model = onnx.load(str(small))
    _shorten(model)
    return model.SerializeToString()


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Silence the loggers of these names."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
