"""A network as an ONNX file, by jax2onnx, and in 8 bits, by ONNX Runtime.

jax2onnx is given plain operations on one clip: what it puts in the place of functions of JAX and Flax knows no `vmap`.
Weights are inputs of what it writes and are bound afterwards, so that one translation serves every fold.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stag_jax.deploy.artefact import INPUTS, OUTPUTS, restored
from stag_jax.deploy.network import Network, program
from stag_jax.types import ClipBatch, UserError

OPSET = 21
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


def translate(network: Network) -> Any:
    """The program of a network as an ONNX model whose weights are inputs.

    Raises:
      UserError: a library is missing.
    """
    check_installed()
    import jax2onnx

    for name in ("jax2onnx", "onnx_ir"):  # they tell of plugins for libraries that are not installed
        logging.getLogger(name).setLevel(logging.CRITICAL)
    function, shapes = program(network)
    names = [WEIGHT.format(index) for index in range(len(shapes) - len(INPUTS))]
    model = jax2onnx.to_onnx(
        function,
        shapes,
        model_name="stag",
        opset=OPSET,
        input_names=[*names, *INPUTS],
        output_names=list(OUTPUTS),
    )
    # Shapes and origins of every intermediate: two thirds of the file, and a runtime finds them out by itself.
    del model.graph.value_info[:]
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    return model


def bind(model: Any, network: Network) -> bytes:
    """The translated program with the weights of a network in it, whatever depends on weights alone worked out."""
    import onnx

    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    graph = bound.graph
    taken = [one for one in graph.input if one.name in INPUTS]
    del graph.input[:]
    graph.input.extend(taken)
    for index, array in enumerate(restored(network.weights).values()):
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), WEIGHT.format(index)))
    onnx.checker.check_model(bound, full_check=True)
    return _shortened(_optimised(bound.SerializeToString()))


def _optimised(content: bytes) -> bytes:
    """By ONNX Runtime, as far as any runtime still understands the result."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return Path(options.optimized_model_filepath).read_bytes()


def _shortened(content: bytes) -> bytes:
    """With short names and without those of nodes: in a small network they are most of the file."""
    import onnx

    model = onnx.load_from_string(content)
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
            del node.input[2]  # nothing to add; the quantiser takes it for a vector
    del graph.value_info[:]
    model.producer_name = "stag-jax"
    return model.SerializeToString()


def quantise(content: bytes, clips: ClipBatch) -> bytes:
    """The same in 8 bits, weights by channel, activations by the ranges that they have on `clips`."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(feeds(clips))

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self.rows, None)

    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "plain.onnx", Path(folder) / "small.onnx"
        plain.write_bytes(content)
        quantization.quantize_static(
            str(plain),
            str(small),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return _shortened(small.read_bytes())


def feeds(clips: ClipBatch) -> Sequence[dict[str, np.ndarray]]:
    """Each clip as a runtime takes it."""
    arrays = {name: np.asarray(getattr(clips, name), bool if name == "frame_mask" else np.float32) for name in INPUTS}
    return [{name: array[row : row + 1] for name, array in arrays.items()} for row in range(len(clips.nodes))]
