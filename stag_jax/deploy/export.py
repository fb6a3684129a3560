"""A finished run as one artefact that runs without it: raw features in, probabilities out (`artefact` reads it back).

Normalisation, the mirror image, the softmax, the mean over folds and seeds are all inside; parameters are baked in.

    stablehlo   f32, bf16, int8; any number of clips; one program for cpu, cuda and tpu
    onnx        f32, int8; one clip a call
    tflite      f32, int8; one clip a call
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from stag_jax import config as config_lib
from stag_jax.deploy import artefact, litert, onnx_file
from stag_jax.training import dataset, fold, restore, workdir
from stag_jax.types import ClipBatch, UserError

FORMATS = {"stablehlo": ("f32", "bf16", "int8"), "onnx": ("f32", "int8"), "tflite": ("f32", "int8")}
MISSING = {
    "bf16": "runtimes have no bfloat16 kernels for most of its operations; "
    "use --format=stablehlo, or --precision=int8 for a small file",
}
WARNING = (
    "For research. A posed or involuntary facial movement is no proof of what a person feels or intends; "
    "accuracy holds for people, cameras and light like those of the corpus in `config.data`, and nowhere else."
)
RUNTIMES = {"stablehlo": ["jax", "flatbuffers"], "onnx": ["onnxruntime"], "tflite": ["ai-edge-litert"]}
MIN_SIZE = 64  # numbers; a smaller parameter of a member is not worth its scales


class Network(NamedTuple):
    """What is to be written: `function` of the arrays of `inputs`, `artefact.INPUTS` to `artefact.OUTPUTS`."""

    function: Callable[..., tuple[Array, Array]]
    inputs: tuple[tuple[tuple[int, ...], Any], ...]  # shape without b, dtype
    run: restore.Run
    folds: tuple[str, ...]


class Quantised(NamedTuple):
    """A parameter in 8 bits: value * scale. The leading axis is that of members, the last that of channels."""

    value: Array
    scale: Array


def export(folder: Path, out: Path, format: str, precision: str = "f32", fold_name: str = "") -> Path:
    """Writes the run in `folder`, or one fold of it, as an artefact into the new folder `out`; returns it.

    Raises:
      UserError: `out` is there already; no run, fold, or such a format or precision; a library is missing.
    """
    if format not in FORMATS:
        raise UserError(f"format {format!r} is none of {', '.join(FORMATS)}")
    if precision not in ("f32", "bf16", "int8"):
        raise UserError(f"precision {precision!r} is none of f32, bf16, int8")
    if precision not in FORMATS[format]:
        raise UserError(f"{format} has no precision {precision}: {MISSING[precision]}")
    if out.exists():
        raise UserError(f"{out} is there already; name a new folder")
    # LiteRT rounds weights itself, and knows arrays of few axes only: none to spare for members.
    lite = format == "tflite"
    made = network(folder, "f32" if lite else precision, fold_name, unrolled=lite)
    batch: str | int = "b" if format == "stablehlo" else 1
    if format == "stablehlo":
        content = _stablehlo(made)
    elif format == "onnx":
        content = onnx_file.write(made.function, made.inputs)
    else:
        content = litert.write(made.function, made.inputs, int8=precision == "int8")
    name = f"model.{format}"
    about = _about(made, batch) | {
        "kind": format,
        "model": name,
        "precision": precision,
        "sha256": hashlib.sha256(content).hexdigest(),
        "needs": RUNTIMES[format],
    }
    _write_folder(out, {name: content, artefact.ABOUT: (json.dumps(about, indent=2) + "\n").encode()})
    return out


def network(folder: Path, precision: str = "f32", fold_name: str = "", *, unrolled: bool = False) -> Network:
    """The mean over all folds and seeds of a run, or over the seeds of one fold, as one pure function.

    (nodes [b, t, n, d], times_ms [b, t], magnitude [b, t], frame_mask [b, t]) to (probability [b, k], au_probability
    [b, t, u]), of raw features. As from a checkpoint, action units have one frame where a network looks at one, and
    are NaN where it has no head for frames. Members are one axis of all arrays, or, `unrolled`, written out.

    Raises:
      UserError: no run, no such fold, or none trained.
    """
    run = restore.open_run(folder)
    names = (fold_name,) if fold_name else tuple(restore.fold_names(run))
    if not names:
        raise UserError(f"{folder} has no trained fold")
    each = [restore.load_fold(run, name) for name in names]
    params, statistics = jax.tree.map(
        lambda *leaves: jnp.concatenate([jnp.asarray(leaf) for leaf in leaves]),
        *((one.params, one.statistics) for one in each),
    )
    config, task = run.config, run.task
    if precision == "bf16":
        config = config_lib.replace(config, {"model.dtype": "bfloat16"})
        task = fold.make_task(config, task.graph, task.batch_size)
        params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    elif precision == "int8":
        params = quantise(params)
    hidden = None if config.model.strain else dataset.strain_features(config.motion.patch)
    units = len(config.graph.units)

    def function(nodes: Array, times_ms: Array, magnitude: Array, frame_mask: Array) -> tuple[Array, Array]:
        b = nodes.shape[0]
        if hidden is not None:
            nodes = jnp.where(hidden[None, None, None], jnp.float32(0), nodes)
        # Labels are part of a batch, and no part of an answer.
        labels = jnp.zeros((b, units)), jnp.zeros((b, units), bool), jnp.zeros(b, jnp.int32)
        clips = ClipBatch(nodes, times_ms, magnitude, frame_mask, *labels)

        def member(params: Any, statistics: fold.Statistics) -> tuple[Array, Array]:
            logits, aux = fold.forward(task, clips, params, statistics)
            au = aux.get("au_probability", jnp.full((b, 1, units), jnp.nan))
            return jax.nn.softmax(logits), au.astype(jnp.float32)

        members = dequantise(params), statistics
        if unrolled:
            count = statistics.mean.shape[0]
            each = [member(*jax.tree.map(lambda x, i=i: x[i], members)) for i in range(count)]
            return tuple(sum(said) / count for said in zip(*each, strict=True))
        probability, au = jax.vmap(member)(*members)
        return jnp.mean(probability, axis=0), jnp.mean(au, axis=0)

    t, n, d = config.motion.frames, len(task.graph.node_names), len(task.graph.feature_mirror)
    inputs = (((t, n, d), jnp.float32), ((t,), jnp.float32), ((t,), jnp.float32), ((t,), jnp.bool_))
    return Network(function, inputs, run, names)


def quantise(params: Any) -> Any:
    """Parameters [m, ..., channel] with the large ones in 8 bits, one scale a member and channel: of weights only.

    Activations stay as they are, and so do vectors, so the answer depends on no calibration clips.
    """

    def one(x: Float[Array, "m *rest"]) -> Any:
        if x.ndim < 3 or x[0].size < MIN_SIZE:
            return x
        scale = jnp.max(jnp.abs(x), axis=tuple(range(1, x.ndim - 1)), keepdims=True) / 127
        scale = jnp.where(scale > 0, scale, 1)
        return Quantised(jnp.round(x / scale).astype(jnp.int8), scale)

    return jax.tree.map(one, params)


def dequantise(params: Any) -> Any:
    """The parameters as numbers again."""
    return jax.tree.map(
        lambda x: x.value.astype(jnp.float32) * x.scale if isinstance(x, Quantised) else x,
        params,
        is_leaf=lambda x: isinstance(x, Quantised),
    )


def _stablehlo(made: Network) -> bytes:
    try:
        from jax import export as jax_export

        (b,) = jax_export.symbolic_shape("b")
        shapes = [jax.ShapeDtypeStruct((b, *shape), dtype) for shape, dtype in made.inputs]
        exported = jax_export.export(jax.jit(made.function), platforms=("cpu", "cuda", "tpu"))(*shapes)
        return bytes(exported.serialize())
    except ImportError as error:
        raise UserError('StableHLO is written with flatbuffers: pip install -e ".[export]"') from error


def _about(made: Network, batch: str | int) -> dict[str, Any]:
    config, about = made.run.config, workdir.read_about(made.run.folder)
    dtypes = {name: np.dtype(dtype).name for name, (_, dtype) in zip(artefact.INPUTS, made.inputs, strict=True)}
    shapes = {name: [batch, *shape] for name, (shape, _) in zip(artefact.INPUTS, made.inputs, strict=True)}
    return {
        "format": artefact.FORMAT,
        "inputs": {name: {"shape": shapes[name], "dtype": dtypes[name]} for name in artefact.INPUTS},
        "outputs": list(artefact.OUTPUTS),
        "classes": list(config.data.classes),
        "units": list(config.graph.units),
        "config": config_lib.to_dict(config),
        "source": {
            "folds": list(made.folds),
            "seeds": list(config.seeds),
            "data_fingerprint": about["data_fingerprint"],
            "git_revision": about["git_revision"],
        },
        "warning": WARNING,
    }


def _write_folder(out: Path, files: dict[str, bytes]) -> None:
    """All files of a new folder, or none: a reader never meets half of one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
