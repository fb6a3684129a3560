"""An exported network as a recogniser. Needs neither a workdir nor Flax: only what runs its kind of model file.

An artefact is a folder of two files, written by `export`: `model.<kind>`, and `artefact.json`, which says what the
network is. The runtimes are imported when a model is opened:

    model.stablehlo   jax, flatbuffers
    model.onnx        onnxruntime
    model.tflite      ai-edge-litert
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stag_jax.config import Config, from_config_dict
from stag_jax.deploy.results import Answer, Recogniser
from stag_jax.types import ClipBatch, UserError

ABOUT = "artefact.json"
FORMAT = 1  # of an artefact; raise it when a reader of the one before would misread it
INPUTS = ("nodes", "times_ms", "magnitude", "frame_mask")
OUTPUTS = ("probability", "au_probability")

Arrays = tuple[np.ndarray, ...]
Call = Callable[[Arrays], Arrays]  # INPUTS to OUTPUTS


def load_export(path: Path, threads: int = 1) -> Recogniser:
    """The network in an artefact's folder; `forward` raises UserError for clips of another shape.

    A model of fixed batch size is called as often as there are clips.

    Args:
      path: the folder.
      threads: cores for one call, of ONNX and LiteRT models; JAX decides on its own.

    Raises:
      UserError: no artefact, a damaged or newer one, or its runtime is missing; the file or package is named.
    """
    path = Path(path)
    about = _read_about(path / ABOUT)
    try:
        kind, model, expected = about["kind"], path / about["model"], about["sha256"]
        shapes = {name: tuple(about["inputs"][name]["shape"]) for name in INPUTS}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path / ABOUT} is damaged: {error} is missing") from error
    config = from_config_dict(about.get("config", {}), Config, f"{path / ABOUT}: config")
    if kind not in OPENERS:
        raise UserError(f"{path / ABOUT}: kind {kind!r} is none of {', '.join(OPENERS)}")
    if not model.is_file():
        raise UserError(f"{model} is missing")
    content = model.read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise UserError(f"{model} is damaged: its checksum is not that of {ABOUT}")
    call = OPENERS[kind](content, model, threads)
    fixed = shapes["nodes"][0] != "b"

    def forward(clips: ClipBatch) -> Answer:
        arrays = _inputs(clips, shapes, path)
        if not fixed:
            return Answer(*call(arrays))
        each = [call(tuple(array[row : row + 1] for array in arrays)) for row in range(len(arrays[0]))]
        return Answer(*(np.concatenate(parts) for parts in zip(*each, strict=True)))

    return Recogniser(path.name, config, forward)


def _read_about(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.parent} is no exported network: {ABOUT} is missing")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        format = int(about["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if format > FORMAT:
        raise UserError(f"{path} has format {format}, of a newer stag-jax; this one reads up to {FORMAT}")
    return about


def _inputs(clips: ClipBatch, shapes: Mapping[str, tuple], path: Path) -> Arrays:
    """The arrays that the network takes. Raises UserError where one has another shape, or there is no clip."""
    clip_count = len(clips.nodes)
    if not clip_count:
        raise UserError(f"{path.name} was given no clip")
    arrays = []
    for name in INPUTS:
        array = np.asarray(getattr(clips, name), bool if name == "frame_mask" else np.float32)
        if array.shape != (clip_count, *shapes[name][1:]):
            raise UserError(f"{path.name} takes {name} of shape {['b', *shapes[name][1:]]}, got {list(array.shape)}")
        arrays.append(array)
    return tuple(arrays)


def _open_stablehlo(content: bytes, path: Path, threads: int) -> Call:
    import jax

    try:
        from jax import export
    except ImportError as error:
        raise UserError(f"{path} needs flatbuffers: pip install flatbuffers") from error
    call = jax.jit(export.deserialize(bytearray(content)).call)
    return lambda arrays: tuple(np.asarray(array) for array in call(*arrays))


def _open_onnx(content: bytes, path: Path, threads: int) -> Call:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path} needs onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # of warnings about constants that it folds there are hundreds
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda arrays: tuple(session.run(list(OUTPUTS), dict(zip(INPUTS, arrays, strict=True))))


def _open_litert(content: bytes, path: Path, threads: int) -> Call:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(f"{path} needs ai-edge-litert: pip install ai-edge-litert") from error
    interpreter = Interpreter(model_content=content, num_threads=threads)
    run = interpreter.get_signature_runner()

    def call(arrays: Arrays) -> Arrays:
        said = run(**dict(zip(INPUTS, arrays, strict=True)))
        return tuple(said[name] for name in OUTPUTS)

    return call


OPENERS: dict[str, Callable[[bytes, Path, int], Call]] = {
    "stablehlo": _open_stablehlo,
    "onnx": _open_onnx,
    "tflite": _open_litert,
}
