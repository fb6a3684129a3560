"""A network as an ONNX file, by jax2onnx, and in 8 bits, by ONNX Runtime.

jax2onnx is given plain operations on one clip: what it puts in the place of functions of JAX and Flax knows no `vmap`.
Weights are inputs of what it writes and are bound afterwards, so that one translation serves every fold.
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
WEIGHT = "w{}"  # the name of a weight among the inputs
NEEDS = (
    'pip install -e ".[onnx]" && pip install --no-deps jax2onnx '
    "(it asks for an Orbax older than training does, and uses none here)"
)


def check_installed() -> None:
    """Raises UserError, with the command that mends it, where a library that writes ONNX is missing."""
    try:
        import jax2onnx  # noqa: F401
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX is written with {error.name}, which is not installed: {NEEDS}") from error


def translate(network: Portable) -> Any:
    """The program of a network as an ONNX model whose weights are inputs.

    Raises:
      UserError: a library is missing.
    """
    check_installed()
    import jax2onnx

    function, shapes = program(network)
    names = [WEIGHT.format(index) for index in range(len(shapes) - len(INPUTS))]
    with _quiet("", "jax2onnx", "onnx_ir"):  # they tell of plugins for libraries that are not installed
        model = jax2onnx.to_onnx(
            function,
            shapes,
            model_name="stag",
            opset=OPSET,
            input_names=[*names, *INPUTS],
            output_names=list(OUTPUTS),
        )
    for node in model.graph.node:
        del node.metadata_props[:]  # where in the source it comes from: most of the file
        node.ClearField("doc_string")
    del model.metadata_props[:]
    model = _optimised(model)
    _narrow(model)
    return model


def bind(model: Any, network: Portable) -> bytes:
    """The translated program with the weights of a network in it."""
    import onnx

    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    graph = bound.graph
    taken = [one for one in graph.input if one.name in INPUTS]
    del graph.input[:]
    graph.input.extend(taken)
    for index, array in enumerate(restored(network.weights).values()):
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), WEIGHT.format(index)))
    _fold(graph)
    _shorten(bound)
    onnx.checker.check_model(bound, full_check=True)
    return bound.SerializeToString()


def _optimised(model: Any) -> Any:
    """By ONNX Runtime, as far as any runtime still understands the result."""
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
    """Puts one number in the place of every array that repeats it, where it is broadcast to the same shape again."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {one.name: [d.dim_value for d in one.type.tensor_type.shape.dim] for one in graph.value_info}
    used: dict[str, list[Any]] = {}
    for node in graph.node:
        for each in node.input:
            used.setdefault(each, []).append(node)
    for constant in model.graph.initializer:
        array = onnx.numpy_helper.to_array(constant)
        if array.size < 2 or not np.array_equal(array, np.full_like(array, array.flat[0]), equal_nan=True):
            continue
        users = used.get(constant.name, [])
        if all(
            node.op_type in BROADCASTING and list(array.shape) in [shapes.get(o) for o in node.input] for node in users
        ):
            constant.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array.flat[0]), constant.name))


def _fold(graph: Any) -> None:
    """Works out what only moves numbers of weights, so that products have weights as they are; nothing else, since what
    is computed from weights can be larger than they are, and runtimes do that when they open a file."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    known = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    kept = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type not in MOVING or not all(name in known for name in inputs):
            kept.append(node)
            continue
        found = ReferenceEvaluator(node).run(None, {name: known[name] for name in inputs})
        known |= {name: np.asarray(array) for name, array in zip(node.output, found, strict=True)}
    used = {name for node in kept for name in node.input} | {one.name for one in graph.output}
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(onnx.numpy_helper.from_array(known[name], name) for name in known if name in used)


def _shorten(model: Any) -> None:
    """Gives short names, and none to nodes: in a small network they are most of the file."""
    import onnx

    graph, short = model.graph, {name: name for name in (*INPUTS, *OUTPUTS, "")}

    def name(long: str) -> str:
        return short.setdefault(long, f"t{len(short)}")

    for constant in graph.initializer:
        constant.name = name(constant.name)
    zeros = {each.name for each in graph.initializer if not each.dims and not onnx.numpy_helper.to_array(each)}
    for node in graph.node:
        node.name = ""
        node.input[:] = [name(each) for each in node.input]
        node.output[:] = [name(each) for each in node.output]
        if node.op_type == "Gemm" and node.input[2:] and node.input[2] in zeros:
            del node.input[2]
        if (
            node.op_type == "Gemm"
            and len(node.input) == 2
            and not any(a.name[:5] == "trans" and a.i for a in node.attribute)
        ):
            node.op_type = "MatMul"  # which it is, and which is what quantisers know
            del node.attribute[:]
    del graph.value_info[:]
    model.producer_name = "stag-jax"


def quantise(content: bytes, members: int) -> bytes:
    """The same with weights of products in 8 bits, and activations rounded to 8 bits by the range that they have.

    Scales are one a channel; one a weight where several members' lie in one stack, for which runtimes know no other.
    Ranges of activations are those of each clip ("dynamic"): fixed ones, found on training clips, changed answers three
    times as much and were no faster (docs/deploy.md).
    """
    import onnx
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "plain.onnx", Path(folder) / "small.onnx"
        plain.write_bytes(content)
        with _quiet(""):  # it asks to be given what `translate` has done already
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
    """Lets no logger of these names say anything."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
