"""An exported network in one file, and back from it as a recogniser. `export` makes what is written here.

A file `*.stag` is a ZIP, compressed by deflate: `manifest.json` says what the network is and holds the SHA-256 of every
other member; the program is one member, its weights another where they are not part of the program. Reading one needs
neither a workdir nor Flax nor any other package of training, only what runs its kind of program, which is imported when
a file is opened:

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

VERSION = 1  # of the format; raise it when a reader of the one before would misread a file
MANIFEST, WEIGHTS = "manifest.json", "weights.bin"
LIMITS = {MANIFEST: 1 << 20}  # bytes; the network that comes with stag-jax has 18 kB, and JSON takes 30 times as much
PROGRAMS = {"stablehlo": "program.stablehlo", "onnx": "model.onnx", "tflite": "model.tflite"}
SCALE = "|scale"  # ends the name of what an 8-bit weight of the same name is multiplied by
INPUTS = ("nodes", "times_ms", "magnitude", "frame_mask")
OUTPUTS = ("probability", "au_probability")
ANY = "b"  # in the place of a number of clips: whatever it is
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member, so that the same network gives the same bytes
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "int8": np.int8}

Arrays = tuple[np.ndarray, ...]
Call = Callable[[Arrays], Arrays]  # arrays of INPUTS to arrays of OUTPUTS


class Artefact(NamedTuple):
    """What a file holds, checked against its checksums."""

    path: Path
    manifest: Mapping[str, Any]
    members: Mapping[str, bytes]


def pack(weights: Mapping[str, np.ndarray]) -> tuple[bytes, list[dict[str, Any]]]:
    """Arrays one after the other, and the name, dtype and shape of each, by which `unpack` finds them."""
    about = [{"name": name, "dtype": x.dtype.name, "shape": list(x.shape)} for name, x in weights.items()]
    return b"".join(np.ascontiguousarray(x).tobytes() for x in weights.values()), about


def unpack(content: bytes, about: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The arrays of `pack`. Raises ValueError or KeyError where the two do not fit each other."""
    arrays, start = {}, 0
    for one in about:
        dtype = np.dtype(DTYPES[one["dtype"]])
        count = int(np.prod(one["shape"], dtype=np.int64))
        arrays[one["name"]] = np.frombuffer(content, dtype, count, start).reshape(one["shape"])
        start += count * dtype.itemsize
    if start != len(content):
        raise ValueError(f"{WEIGHTS} has {len(content)} bytes where {start} are needed")
    return arrays


def restored(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stored weights as numbers to compute with: those in 8 bits times their scales, in float32."""
    return {
        name: _number(array, weights.get(name + SCALE)) for name, array in weights.items() if not name.endswith(SCALE)
    }


def _number(array: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    if scale is not None:
        return array.astype(np.float32) * scale.astype(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def write(path: Path, manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> Path:
    """Writes a whole file or none; the checksums of `members` are put into the manifest. Returns the path.

    Raises:
      UserError: it cannot be written, or is too large to be read again; the file is named.
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
    """What is in a file.

    Raises:
      UserError: no such file, none of this kind, one of a newer version, a damaged one, or one that claims more than
        `unzip` reads; the file is named.
    """
    members = unzip.read_members(path, LIMITS)
    try:
        manifest = json.loads(members.pop(MANIFEST))
        version, digests = int(manifest["version"]), dict(manifest["sha256"].items())
    # RuntimeError: nested too deeply. ArithmeticError: infinity for a version.
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
    """The network in a file; its `forward` raises UserError for clips of another shape.

    A program for one clip is called as often as there are clips.

    Args:
      path: the file.
      threads: cores for one call, of ONNX and LiteRT; XLA decides on its own.

    Raises:
      UserError: no such file, a damaged or newer one, or its runtime is missing; the file or package is named.
    """
    found = read(Path(path))
    try:
        config = from_config_dict(completed(found.manifest["config"]), Config, f"{path}: config")
        shapes = {name: tuple(found.manifest["inputs"][name]["shape"]) for name in INPUTS}
        program = found.members[PROGRAMS[found.manifest["format"]]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {MANIFEST} is not to be understood ({error!r})") from error
    call = OPENERS[found.manifest["format"]](found, program, threads)
    one_by_one = shapes["nodes"][0] != ANY

    def forward(clips: ClipBatch) -> Answer:
        arrays = _arrays(clips, shapes, found.path)
        if not one_by_one:
            return Answer(*call(arrays))
        each = [call(tuple(array[row : row + 1] for array in arrays)) for row in range(len(arrays[0]))]
        return Answer(*(np.concatenate(parts) for parts in zip(*each, strict=True)))

    digest = hashlib.sha256(json.dumps(found.manifest["sha256"], sort_keys=True).encode()).hexdigest()
    return Recogniser(found.path.name, config, forward, digest)


def _arrays(clips: ClipBatch, shapes: Mapping[str, tuple], path: Path) -> Arrays:
    """What the program takes. Raises UserError where an array has another shape, or there is no clip."""
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
    # jax has no class of its own for a program that it cannot read, such as one of a jax much newer.
    except Exception as error:
        raise UserError(f"{found.path} cannot be read by jax {jax.__version__}: {error}") from error
    # As constants: XLA works out beforehand what depends on weights alone, and a call passes nothing but the clip.
    run = jax.jit(lambda *arrays: exported.call(*weights, *arrays))
    return lambda arrays: tuple(np.asarray(array) for array in run(*arrays))


def _open_onnx(found: Artefact, program: bytes, threads: int) -> Call:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{found.path} needs onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # of warnings about constants that it folds there are hundreds
    session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    # An input that does not matter to the answer is none of the program.
    taken = {one.name for one in session.get_inputs()}

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
        said = run(**{name: array for name, array in zip(INPUTS, arrays, strict=True) if name in taken})
        return tuple(said[name] for name in OUTPUTS)

    return call


OPENERS: dict[str, Callable[[Artefact, bytes, int], Call]] = {
    "stablehlo": _open_stablehlo,
    "onnx": _open_onnx,
    "tflite": _open_litert,
}
