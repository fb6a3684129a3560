"""Export a finished run as one self-contained file: raw features in, probabilities out. `artefact` reads it back.

stablehlo   f32, bf16, int8; one program for cpu, cuda and tpu
onnx        f32, int8
"""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from stag_jax import config as config_lib
from stag_jax.deploy import artefact, litert, onnx_file, portable, recognition
from stag_jax.deploy.artefact import INPUTS, OUTPUTS, PROGRAMS, WEIGHTS
from stag_jax.deploy.portable import Portable
from stag_jax.training import workdir
from stag_jax.types import ClipBatch, UserError

FORMATS = {"stablehlo": ("f32", "bf16", "int8"), "onnx": ("f32", "int8"), "tflite": ("f32", "int8")}
PLATFORMS = ("cpu", "cuda", "tpu")
MADE_UP = 7  # number of random clips on which the file is compared with the checkpoint
# Largest allowed difference of a file's probabilities from the checkpoint's: maximum, and mean.
TOLERANCE, MEAN_TOLERANCE = {"f32": 1e-4, "bf16": 1.0, "int8": 1.0}, {"f32": 1e-4, "bf16": 0.05, "int8": 0.05}
PACKAGES = (
    "stag-jax",
    "jax",
    "jaxlib",
    "numpy",
    "flax",
    "onnx",
    "onnxruntime",
    "jax2onnx",
    "tensorflow",
    "ai-edge-litert",
)
WARNING = (
    "For research. A posed or involuntary facial movement is no proof of what a person feels or intends; "
    "accuracy holds for people, cameras and light like those of the corpus in config.data, and nowhere else."
)


def check(format: str, precision: str) -> None:
    """Raise UserError if the format or precision does not exist, or the library that writes it is missing."""
    if format not in FORMATS:
        raise UserError(f"--format={format} is none of {', '.join(FORMATS)}")
    if precision not in portable.PRECISIONS:
        raise UserError(f"--precision={precision} is none of {', '.join(portable.PRECISIONS)}")
    if precision not in FORMATS[format]:
        raise UserError(
            f"--precision={precision} is none of --format={format} ({', '.join(FORMATS[format])}): "
            "its runtime has no bfloat16 kernels for a CPU; stablehlo has it"
        )
    if format == "onnx":
        onnx_file.check_installed()
    if format == "tflite":
        litert.check_installed()


def export(
    folder: Path,
    out: Path,
    *,
    format: str,
    precision: str,
    folds: Sequence[str] = (),
) -> Path:
    """Export the mean over the named folds (default: all) of the run in `folder`; return the file's path.

    The file is `<out>/<format>-<precision>.stag`. It is written only if its answers agree with the checkpoint's.

    Args:
      folder: workdir of a finished run.
      out: output folder, created if missing.
      format: a key of `FORMATS`.
      precision: one that the format supports.
      folds: names of folds.

    Raises:
      UserError: no such run, fold, format or precision; a library is missing; or the answers differ from the
        checkpoint's.
    """
    check(format, precision)
    made = load(folder, format, precision, folds)
    path = out / f"{format}-{precision}.stag"
    draft = path.with_name(f".{path.name}")
    try:
        write(draft, folder, made, format, precision, program(made, format))
        _check_answers(folder, made, draft, precision)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def load(folder: Path, format: str, precision: str, folds: Sequence[str] = ()) -> Portable:
    """Load the network that `write` takes. Raises UserError if there is no such run or fold."""
    rounding = precision if format == "stablehlo" else "f32"  # the other formats' writers quantise themselves
    return portable.load(folder, rounding, folds, unrolled=format == "tflite")


def write(path: Path, folder: Path, made: Portable, format: str, precision: str, program: Any) -> Path:
    """Write a network of the run in `folder`, unchecked; `program` may come from another fold of the run."""
    return artefact.write(path, _manifest(folder, made, format, precision), members(made, format, precision, program))


def program(made: Portable, format: str) -> Any:
    """Return the program without weights; networks of one run, precision and number of members share it.

    None for LiteRT, whose program contains its weights.
    """
    if format == "tflite":
        return None
    return stablehlo(made) if format == "stablehlo" else onnx_file.translate(made)


def members(made: Portable, format: str, precision: str, program: Any) -> dict[str, bytes]:
    """Return the members of an artefact except its manifest. An ONNX or LiteRT model contains its weights."""
    if format == "tflite":
        return {PROGRAMS[format]: litert.write(made, int8=precision == "int8")}
    if format == "stablehlo":
        return {PROGRAMS[format]: program, WEIGHTS: artefact.pack(made.weights)[0]}
    content = onnx_file.bind(program, made)
    if precision == "int8":
        content = onnx_file.quantise(content, len(made.weights["mean"]))
    return {PROGRAMS[format]: content}


def stablehlo(made: Portable) -> bytes:
    """Return the program of a network for `PLATFORMS`, serialised by jax.

    Raises:
      UserError: flatbuffers is not installed.
    """
    from jax import export as jax_export

    function, shapes = portable.program(made)
    # Source locations are useless in a file, and take a third of a program.
    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        return bytes(jax_export.export(jax.jit(function), platforms=PLATFORMS)(*shapes).serialize())
    except ImportError as error:  # jax does not declare it as a dependency
        raise UserError("StableHLO needs flatbuffers, which is not installed: pip install flatbuffers") from error
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def made_up(made: Portable) -> ClipBatch:
    """Return random clips with the feature statistics of the first fold; the second clip has masked frames."""
    rng = np.random.default_rng(0)
    (t, n, d), units = made.inputs[0][0], len(made.config.graph.units)
    mean, scale = made.weights["mean"][0], made.weights["scale"][0]
    mask = np.ones((MADE_UP, t), bool)
    mask[1, (t + 1) // 2 :] = False
    return ClipBatch(
        nodes=(mean + scale * rng.normal(size=(MADE_UP, t, n, d)) * mask[..., None, None]).astype(np.float32),
        times_ms=np.cumsum(rng.uniform(5, 60, size=(MADE_UP, t)), axis=1).astype(np.float32),
        magnitude=(rng.uniform(0.1, 2, size=(MADE_UP, t)) * mask).astype(np.float32),
        frame_mask=mask,
        au=np.zeros((MADE_UP, units), np.float32),
        au_mask=np.zeros((MADE_UP, units), bool),
        label=np.zeros(MADE_UP, np.int32),
    )


def _check_answers(folder: Path, made: Portable, path: Path, precision: str) -> None:
    """Raise UserError if the file's answers differ from the checkpoint's."""
    clips = made_up(made)
    expected = recognition.from_run(folder, made.folds).forward(clips)
    actual = artefact.load_export(path).forward(clips)
    for name in OUTPUTS:
        error = np.abs(np.asarray(getattr(expected, name)) - np.asarray(getattr(actual, name)))
        error = error[~np.isnan(getattr(expected, name))]
        if error.size and not (error.max() <= TOLERANCE[precision] and error.mean() <= MEAN_TOLERANCE[precision]):
            raise UserError(
                f"{path.name.lstrip('.')} is not written: its {name} is {error.max():.2g} from that of the checkpoint, "
                f"{error.mean():.2g} in the mean"
            )


def _manifest(folder: Path, made: Portable, format: str, precision: str) -> dict[str, Any]:
    about = workdir.read_about(folder)
    config = config_lib.to_dict(made.config)
    # Folders of the training machine are left out.
    config["data"] |= {"data_dir": "", "manual_dir": ""}
    config["distil"] |= {"teacher": Path(config["distil"]["teacher"]).name}
    dtypes = {name: np.dtype(dtype).name for name, (_, dtype) in zip(INPUTS, made.inputs, strict=True)}
    shapes = {name: [1, *shape] for name, (shape, _) in zip(INPUTS, made.inputs, strict=True)}
    return {
        "format": format,
        "precision": precision,
        "classes": list(made.config.data.classes),
        "action_units": list(made.config.graph.units),
        "inputs": {name: {"shape": shapes[name], "dtype": dtypes[name]} for name in INPUTS},
        "outputs": list(OUTPUTS),
        "weights": artefact.pack(made.weights)[1] if format == "stablehlo" else [],
        "normalisation": {name: _mean(made.weights[name]) for name in ("mean", "scale")},
        "provenance": {
            "run": folder.resolve().name,
            "folds": list(made.folds),
            "seeds": list(made.config.seeds),
            "git_revision": about["git_revision"],
            "data_fingerprint": about["data_fingerprint"],
            "trained_with": about["packages"],
            "exported_with": _versions(),
        },
        "warning": WARNING,
        "config": config,
    }


def _mean(each: Float[np.ndarray, "m d"]) -> list[float]:
    """Average over folds, for human readers; the network uses each fold's own values."""
    return [float(f"{value:.6g}") for value in each.mean(axis=0)]


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
