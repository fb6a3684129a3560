"""Write an exported network as one file (`*.stag`), and load it as a recogniser. `exporting` makes the content.

A file is a ZIP, compressed by deflate: `manifest.json` describes the network and holds the SHA-256 of every other
member; the program is one member; its weights are another, unless the program contains them. Reading a file needs
neither a workdir nor Flax nor any other package of training, only the runtime of its format, which is imported when the
file is opened:

    stablehlo    jax, flatbuffers
    onnx         onnxruntime
    tflite       ai-edge-litert
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from stag_jax.config import Config, completed, from_config_dict
from stag_jax.deploy import unzip
from stag_jax.deploy.results import Answer, Recogniser
from stag_jax.files import write_atomically
from stag_jax.types import ClipBatch, UserError

VERSION = 1  # of the format; raise it when an older reader would misread a file
MANIFEST, WEIGHTS = "manifest.json", "weights.bin"
LIMITS = {MANIFEST: 1 << 20}  # bytes; the bundled network's has 18 kB; parsed JSON takes 30 times as much memory
PROGRAMS = {"stablehlo": "program.stablehlo", "onnx": "model.onnx", "tflite": "model.tflite"}
SCALE = "|scale"  # suffix: NAME|scale is the factor of the 8-bit weight NAME
INPUTS = ("nodes", "times_ms", "magnitude", "frame_mask")
OUTPUTS = ("probability", "au_probability")
ANY = "b"  # in a shape: any number of clips
EPOCH = (1980, 1, 1, 0, 0, 0)  # date of every member, so that the same network gives the same bytes
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "int8": np.int8}

Arrays = tuple[np.ndarray, ...]
Call = Callable[[Arrays], Arrays]  # maps the arrays of INPUTS to those of OUTPUTS


class Artefact(NamedTuple):
    """The content of a file, checked against its checksums."""

    path: Path
    manifest: Mapping[str, Any]
    members: Mapping[str, bytes]


def pack(weights: Mapping[str, np.ndarray]) -> tuple[bytes, list[dict[str, Any]]]:
    """Concatenate arrays into bytes; also return the name, dtype and shape of each, which `unpack` needs.

    Arrays may have any shape, and a dtype in `DTYPES`.
    """
    about = [{"name": name, "dtype": x.dtype.name, "shape": list(x.shape)} for name, x in weights.items()]
    return b"".join(np.ascontiguousarray(x).tobytes() for x in weights.values()), about


def unpack(content: bytes, about: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Return the arrays that `pack` wrote.

    Raises:
      ValueError, KeyError: the content does not match its description.
    """
    arrays, start = {}, 0
    for entry in about:
        dtype = np.dtype(DTYPES[entry["dtype"]])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        arrays[entry["name"]] = np.frombuffer(content, dtype, count, start).reshape(entry["shape"])
        start += count * dtype.itemsize
    if start != len(content):
        raise ValueError(f"{WEIGHTS} has {len(content)} bytes where {start} are needed")
    return arrays


def restored(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return stored weights ready to compute with: 8-bit ones times their scales, and float16 ones, as float32."""
    return {
        name: _number(array, weights.get(name + SCALE)) for name, array in weights.items() if not name.endswith(SCALE)
    }


def _number(array: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    if scale is not None:
        return array.astype(np.float32) * scale.astype(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def write(path: Path, manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> Path:
    """Write a file atomically, with the checksums of `members` in its manifest; return its path.

    Raises:
      UserError: the file cannot be written, or is too large to be read again; names the file.
    """
    if (size := sum(map(len, members.values()))) > unzip.UNPACKED - LIMITS[MANIFEST]:
        raise UserError(f"{path} is not written: {size / 1e9:.1f} GB is more than one file holds; take fewer folds")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    text = json.dumps({"version": VERSION, **manifest, "sha256": digests}, indent=1) + "\n"
    try:
        with write_atomically(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
            for name, content in ((MANIFEST, text.encode()), *members.items()):
                info = zipfile.ZipInfo(name, EPOCH)
                info.external_attr = 0o644 << 16
                file.writestr(info, content, zipfile.ZIP_DEFLATED, 9)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def read(path: Path) -> Artefact:
    """Read a file and check it.

    Raises:
      UserError: the file is missing, of another kind, of a newer version, damaged, or larger than `unzip` reads; names
        the file.
    """
    members = unzip.read_members(path, LIMITS)
    try:
        manifest = json.loads(members.pop(MANIFEST))
        version, digests = int(manifest["version"]), dict(manifest["sha256"].items())
    # RuntimeError: JSON nested too deeply. ArithmeticError: the version is infinity.
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise UserError(f"{path} is damaged: {MANIFEST} is not to be understood ({error!r})") from error
    if version > VERSION:
        raise UserError(f"{path} has version {version}, of a newer stag-jax; this one reads up to {VERSION}")
    for name in sorted(digests.keys() | members.keys()):
        if name not in members:
            raise UserError(f"{path} is damaged: {' '.join(name[:100].split())} is missing")
        if hashlib.sha256(members[name]).hexdigest() != digests.get(name):
            raise UserError(f"{path} is damaged: {name} has another checksum than {MANIFEST} says")
    return Artefact(path, manifest, members)


def load_export(path: Path | str, threads: int = 1) -> Recogniser:
    """Load the network in a file; its `forward` raises UserError for clips of another shape.

    A program for one clip is called once per clip.

    Args:
      path: the file.
      threads: CPU threads of one call, for ONNX and LiteRT; XLA chooses its own.

    Raises:
      UserError: the file is missing, damaged or of a newer version, or its runtime is missing; names the file or the
        package.
    """
    file = read(Path(path))
    try:
        config = from_config_dict(completed(file.manifest["config"]), Config, f"{path}: config")
        shapes = {name: tuple(file.manifest["inputs"][name]["shape"]) for name in INPUTS}
        program = file.members[PROGRAMS[file.manifest["format"]]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {MANIFEST} is not to be understood ({error!r})") from error
    call = OPENERS[file.manifest["format"]](file, program, threads)
    one_by_one = shapes["nodes"][0] != ANY

    def forward(clips: ClipBatch) -> Answer:
        arrays = _arrays(clips, shapes, file.path)
        if not one_by_one:
            return Answer(*call(arrays))
        answers = [call(tuple(array[row : row + 1] for array in arrays)) for row in range(len(arrays[0]))]
        return Answer(*(np.concatenate(parts) for parts in zip(*answers, strict=True)))

    digest = hashlib.sha256(json.dumps(file.manifest["sha256"], sort_keys=True).encode()).hexdigest()
    return Recogniser(file.path.name, config, forward, digest)


def _arrays(clips: ClipBatch, shapes: Mapping[str, tuple], path: Path) -> Arrays:
    """Return the program's inputs. Raises UserError if an array has another shape, or there is no clip."""
    count = len(clips.nodes)
    if not count:
        raise UserError(f"{path.name} was given no clip")
    arrays = []
    for name in INPUTS:
        array = np.asarray(getattr(clips, name), bool if name == "frame_mask" else np.float32)
        if array.shape != (count, *shapes[name][1:]):
            raise UserError(f"{path.name} takes {name} of shape {[ANY, *shapes[name][1:]]}, got {list(array.shape)}")
        arrays.append(array)
    return tuple(arrays)


def _open_stablehlo(found: Artefact, program: bytes, threads: int) -> Call:
    import jax

    try:
        from jax import export
    except ImportError as error:
        raise UserError(f"{found.path} needs flatbuffers: pip install flatbuffers") from error
    try:
        weights = list(restored(unpack(found.members[WEIGHTS], found.manifest["weights"])).values())
        exported = export.deserialize(bytearray(program))
    # jax has no error class for a program that it cannot read, such as one of a much newer jax.
    except Exception as error:
        raise UserError(f"{found.path} cannot be read by jax {jax.__version__}: {error}") from error
    # Weights as constants: XLA computes what depends on them alone at compile time, and a call passes only the clip.
    run = jax.jit(lambda *arrays: exported.call(*weights, *arrays))
    return lambda arrays: tuple(np.asarray(array) for array in run(*arrays))


def _open_onnx(found: Artefact, program: bytes, threads: int) -> Call:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{found.path} needs onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors only: it gives hundreds of warnings about folded constants
    session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    # Inputs that do not affect the outputs are not part of the program.
    taken = {tensor.name for tensor in session.get_inputs()}

    def call(arrays: Arrays) -> Arrays:
        named = {name: array for name, array in zip(INPUTS, arrays, strict=True) if name in taken}
        return tuple(session.run(list(OUTPUTS), named))

    return call


def _open_litert(found: Artefact, program: bytes, threads: int) -> Call:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(f"{found.path} needs ai-edge-litert: pip install ai-edge-litert") from error
    run = Interpreter(model_content=program, num_threads=threads).get_signature_runner()
    taken = run.get_input_details()

    def call(arrays: Arrays) -> Arrays:
        outputs = run(**{name: array for name, array in zip(INPUTS, arrays, strict=True) if name in taken})
        return tuple(outputs[name] for name in OUTPUTS)

    return call


OPENERS: dict[str, Callable[[Artefact, bytes, int], Call]] = {
    "stablehlo": _open_stablehlo,
    "onnx": _open_onnx,
    "tflite": _open_litert,
}
