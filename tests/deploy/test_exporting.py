"""A run as one file: its answers, what it holds, what it says of damage, and that it runs without what trained it."""

import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stag_datasets.synth_me import render, script
from stag_jax import config as config_lib
from stag_jax.analysis import cost
from stag_jax.deploy import artefact, exporting, load_export, portable, recognition
from stag_jax.model import network
from stag_jax.model.network import Statistics, Weights
from stag_jax.types import ClipBatch, UserError
from tests import makers

ROOT = Path(__file__).parents[2]
FOLDS = ("synth_me_s02", "synth_me_s05")
HAVE_ONNX = all(importlib.util.find_spec(name) for name in ("jax2onnx", "onnx", "onnxruntime"))
HAVE_LITERT = all(importlib.util.find_spec(name) for name in ("tensorflow", "ai_edge_litert"))
litert_only = pytest.mark.skipif(not HAVE_LITERT, reason='TensorFlow is in the extra "litert" alone')
onnx_only = pytest.mark.skipif(not HAVE_ONNX, reason="jax2onnx is in no extra; see docs/deploy.md")
KINDS = [
    pytest.param(format, precision, marks={"onnx": [onnx_only], "tflite": [litert_only]}.get(format, []))
    for format, precisions in exporting.FORMATS.items()
    for precision in precisions
]
MEMBER = {"stablehlo": "program.stablehlo", "onnx": "model.onnx", "tflite": "model.tflite"}


@pytest.fixture(autouse=True)
def standard_promotion():
    """Orbax and optax mix dtypes on purpose."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """exported(format, precision): the file of two folds; each is made once."""
    out, made = tmp_path_factory.mktemp("exported"), {}

    def get(format="stablehlo", precision="f32"):
        key = format, precision
        if key not in made:
            with jax.numpy_dtype_promotion("standard"):
                made[key] = exporting.export(trained[0], out, format=format, precision=precision, folds=FOLDS)
        return made[key]

    return get


@pytest.fixture(scope="module")
def asked(trained):
    """Clips that no network has seen, some of them with frames missing, and what the checkpoint says of them."""
    with jax.numpy_dtype_promotion("standard"):
        clips = exporting.made_up(portable.load(trained[0], folds=FOLDS))
        return clips, recognition.from_run(trained[0], FOLDS).forward(clips)


@pytest.mark.parametrize(("format", "precision"), KINDS)
def test_answers_are_those_of_the_checkpoint(exported, asked, format, precision):
    clips, wanted = asked
    path = exported(format, precision)
    assert path.name == f"{format}-{precision}.stag"
    said = load_export(path).forward(clips)
    for one, other in zip(said, wanted, strict=True):
        assert one.shape == other.shape and one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-5 if precision == "f32" else 0.03)
    np.testing.assert_allclose(said.probability.sum(axis=1), 1, atol=1e-5)
    # Rounding is seen, so that the precision is not one in name only; LiteRT leaves weights as small as these alone.
    assert precision == "f32" or format == "tflite" or np.abs(said.probability - wanted.probability).max() > 1e-6


@pytest.mark.parametrize(("format", "precision"), KINDS)
def test_a_file_says_what_it_is(exported, trained, format, precision):
    path = exported(format, precision)
    found = artefact.read(path)
    about = json.loads((trained[0] / "run.json").read_text())
    manifest = found.manifest
    assert (manifest["format"], manifest["precision"]) == (format, precision)
    assert manifest["classes"] == ["negative", "positive", "surprise"] and len(manifest["action_units"]) == 12
    assert manifest["provenance"]["folds"] == list(FOLDS)
    assert manifest["provenance"]["data_fingerprint"] == about["data_fingerprint"]
    assert manifest["provenance"]["git_revision"] == about["git_revision"]
    assert {"jax", "stag-jax"} <= set(manifest["provenance"]["exported_with"])
    assert len(manifest["normalisation"]["mean"]) == len(manifest["normalisation"]["scale"]) == 4 * 16 + 6
    assert set(found.members) == {MEMBER[format]} | ({"weights.bin"} if format == "stablehlo" else set())
    assert str(trained[0].parent) not in json.dumps(manifest)  # nothing of the machine
    with zipfile.ZipFile(path) as file:
        assert all(one.compress_type == zipfile.ZIP_DEFLATED for one in file.infolist())
    recogniser = load_export(path)
    assert recogniser.name == path.name
    run_config = config_lib.from_config_dict(json.loads((trained[0] / "config.json").read_text()))
    assert recogniser.config.model == run_config.model and recogniser.config.motion == run_config.motion


def test_one_program_serves_three_platforms(exported):
    from jax import export as jax_export

    program = artefact.read(exported()).members["program.stablehlo"]
    assert jax_export.deserialize(bytearray(program)).platforms == ("cpu", "cuda", "tpu")


@onnx_only
def test_onnx_is_of_opset_21_and_holds_weights_in_8_bits(exported):
    import onnx

    models = {
        precision: onnx.load_from_string(artefact.read(exported("onnx", precision)).members["model.onnx"])
        for precision in ("f32", "int8")
    }
    for model in models.values():
        assert {one.version for one in model.opset_import if one.domain == ""} == {21}
        assert [one.name for one in model.graph.output] == ["probability", "au_probability"]
    kinds = [one.data_type for one in models["int8"].graph.initializer if np.prod(one.dims) > 64]
    assert kinds.count(onnx.TensorProto.INT8) > 10


@pytest.mark.parametrize("name", ["apex_only", "two_stream"])
def test_other_networks_are_exported_too(make_config, jit, tmp_path, name):
    """Written and read back, against the function that training predicts with; NaN where there is no head."""
    config = make_config(model={"name": name})
    untrained, clip = cost._setting(config)
    init = jit(jax.vmap(lambda key: network.init(untrained, key, clip)))
    params = init(jax.random.split(jax.random.key(0)))
    d, rng = clip.nodes.shape[-1], np.random.default_rng(5)
    statistics = Statistics(
        rng.normal(size=(2, d)).astype(np.float32),
        rng.uniform(0.5, 2, size=(2, d)).astype(np.float32),
        np.ones((2, 3), np.float32),
    )
    weights = Weights(params, statistics)
    made = portable.of(config, weights, "f32")
    clips = exporting.made_up(made)
    said = _through_a_file(made, tmp_path, "stablehlo").forward(clips)
    wanted = jit(jax.vmap(lambda one: network.forward(untrained, one, jax.tree.map(jnp.asarray, clips))))
    logits, aux = wanted(weights)
    np.testing.assert_allclose(said.probability, jax.nn.softmax(logits).mean(axis=0), atol=1e-5)
    assert said.au_probability.shape == (7, 1, 3)
    if name == "two_stream":
        assert np.isnan(said.au_probability).all()
    else:
        np.testing.assert_allclose(said.au_probability, aux["au_probability"].mean(axis=0), atol=1e-5)


def _through_a_file(made, folder, format):
    shapes = zip(artefact.INPUTS, made.inputs, strict=True)
    manifest = {
        "format": format,
        "config": config_lib.to_dict(made.config),
        "inputs": {name: {"shape": [1, *shape]} for name, (shape, _) in shapes},
        "weights": artefact.pack(made.weights)[1],
    }
    return load_export(
        artefact.write(
            folder / "x.stag", manifest, exporting.members(made, format, "f32", exporting.program(made, format))
        )
    )


def test_hidden_strain_stays_hidden(trained, jit):
    """Raw features go in: what the network was not shown in training must not reach it from a camera."""
    made = portable.load(trained[0], folds=FOLDS)
    config = config_lib.replace(made.config, {"model.strain": False})
    params = portable.nested({name: x for name, x in made.weights.items() if name not in ("mean", "scale")})
    statistics = Statistics(made.weights["mean"], made.weights["scale"], np.ones((2, 3), np.float32))
    shown, hidden = (portable.of(c, Weights(params, statistics), "f32") for c in (made.config, config))
    clips = exporting.made_up(made)
    strain = np.zeros(clips.nodes.shape[-1], bool)
    strain[:64][2::4] = strain[64 + 2] = True
    other = clips._replace(nodes=np.where(strain, clips.nodes + 1, clips.nodes))
    first, second = (
        [np.asarray(ask(one.weights, *batch[:4])[0]) for batch in (clips, other)]
        for one in (hidden, shown)
        for ask in (jit(one.function),)
    )
    np.testing.assert_array_equal(*first)
    assert np.abs(second[0] - second[1]).max() > 1e-4


def test_8_bits_are_within_half_a_step_of_each_channel():
    rng = np.random.default_rng(3)
    weight = (rng.normal(size=(2, 13, 3, 7)) * rng.uniform(0.01, 100, size=(2, 1, 3, 7))).astype(np.float32)
    weight[0, :, 1, 2] = 0
    for name, channels in (("gat_0/query/kernel", (2, 1, 3, 7)), ("gat_0/out/kernel", (2, 1, 1, 7))):
        number, scale = portable.quantised(weight, portable.summed(name, 4))
        assert number.dtype == np.int8 and number.shape == weight.shape and scale.shape == channels
        restored = artefact.restored({"w": number, "w" + artefact.SCALE: scale})["w"]
        # The scale itself is rounded to 11 bits, which takes up to 127/2048 of a step off the largest.
        assert (np.abs(restored - weight) <= 0.57 * scale.astype(np.float32) + 1e-7).all()
        assert not restored[0, :, 1, 2].any()


def test_8_bits_take_a_third_of_32(tmp_path):
    """Of the networks of a study at the default widths; the program, 20 kB, weighs little among so many."""
    config = config_lib.from_config_dict(makers.base.get_config())
    untrained, clip = cost._setting(config)
    params = jax.eval_shape(lambda: network.init(untrained, jax.random.key(0), clip))
    rng, d = np.random.default_rng(0), clip.nodes.shape[-1]
    params = jax.tree.map(lambda x: rng.normal(size=(5, *x.shape)).astype(np.float32), params)
    statistics = Statistics(np.zeros((5, d), np.float32), np.ones((5, d), np.float32), np.ones((5, 3), np.float32))
    sizes = {}
    for precision in portable.PRECISIONS:
        made = portable.of(config, Weights(params, statistics), precision)
        path = artefact.write(tmp_path / precision, {}, exporting.members(made, "stablehlo", precision, b""))
        sizes[precision] = path.stat().st_size
    assert sizes["int8"] * 3 <= sizes["f32"] and sizes["bf16"] * 1.7 <= sizes["f32"]


def test_it_runs_without_what_trains(exported, tmp_path):
    """A few frames through the step of a stream, in a process that has none of these packages."""
    recipe = script.Recipe(subjects=1, clips=1, frames=(20, 24), seed=77)
    np.save(tmp_path / "frames.npy", render.render_clip(script.subject_clips(recipe, 0)[0]).frames)
    program = f"""
import sys
for name in ("flax", "optax", "orbax", "tensorflow_datasets", "ml_collections", "array_record", "pandas", "jinja2"):
    sys.modules[name] = None
import numpy as np
from stag_jax.config import replace
from stag_jax.deploy import film, intervals, load_export, overlay, recognition, record, scan, source, stream, timeline
recogniser = load_export({str(exported("stablehlo", "int8"))!r})
recogniser = recogniser._replace(config=replace(recogniser.config, {{"motion.window_ms": 120.0}}))
step, state, scores = stream.make_step(recogniser, stream.StreamSettings()), stream.StreamState(), []
for f, frame in enumerate(np.load({str(tmp_path / "frames.npy")!r})):
    state, result = step(state, frame, f * {1000 / recipe.fps})
    scores += [face.score.probability for face in result.faces if face.score]
print(len(scores), float(np.sum(scores[-1])))
print([name for name in sys.modules if name.startswith("stag_jax.training.")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, modules = done.stdout.splitlines()
    count, total = first.split()
    assert int(count) >= 2 and abs(float(total) - 1) < 1e-5
    assert modules == "[]"


def _rezipped(content, change):
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, each in members.items():
            file.writestr(name, each)
    return buffer.getvalue()


def _edit(key, value):
    def change(members):
        manifest = json.loads(members["manifest.json"])
        manifest[key] = value
        members["manifest.json"] = json.dumps(manifest).encode()

    return lambda content: _rezipped(content, change)


DAMAGES = {
    "cut short": (lambda content: content[: len(content) * 2 // 3], "is no exported network, or a damaged one"),
    "empty": (lambda content: b"", "is no exported network"),
    "a byte": (lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:], "damaged"),
    "a weight": (
        lambda content: _rezipped(content, lambda m: m.update({"weights.bin": m["weights.bin"][:-1] + b"\0"})),
        "weights.bin has another checksum",
    ),
    "no weights": (lambda content: _rezipped(content, lambda m: m.pop("weights.bin")), "weights.bin is missing"),
    "more": (lambda content: _rezipped(content, lambda m: m.update(x=b"")), "x has another checksum"),
    "no manifest": (lambda content: _rezipped(content, lambda m: m.pop("manifest.json")), "manifest.json"),
    "manifest": (
        lambda content: _rezipped(content, lambda m: m.update({"manifest.json": b"{"})),
        "manifest.json is not to be understood",
    ),
    "newer": (_edit("version", 99), "has version 99, of a newer stag-jax"),
    "format": (_edit("format", "coreml"), "manifest.json is not to be understood"),
    "config": (_edit("config", {}), "config.seeds is missing"),
    "weight list": (_edit("weights", []), "cannot be read by jax"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named(exported, tmp_path, damage, message):
    path = tmp_path / "net.stag"
    path.write_bytes(damage(exported().read_bytes()))
    with pytest.raises(UserError, match=message) as caught:
        load_export(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.stag cannot be read: No such file"):
        load_export(tmp_path / "none.stag")


def test_clips_of_another_shape_are_refused(exported, asked):
    recogniser, (clips, _) = load_export(exported()), asked
    with pytest.raises(UserError, match=r"takes nodes of shape \['b', 5, 22, 70\], got \[7, 3, 22, 70\]"):
        recogniser.forward(clips._replace(nodes=clips.nodes[:, :3]))
    with pytest.raises(UserError, match="was given no clip"):
        recogniser.forward(ClipBatch(*(array[:0] for array in clips)))


def test_a_file_with_other_answers_is_not_written(trained, tmp_path, monkeypatch):
    whole = recognition.from_run(trained[0], FOLDS)

    def off(*_):
        return whole._replace(forward=lambda clips: whole.forward(clips)._replace(probability=np.ones((7, 3)) / 3))

    monkeypatch.setattr(recognition, "from_run", off)
    with pytest.raises(UserError, match=r"stablehlo-f32\.stag is not written: its probability is 0\.\d+ from that of"):
        exporting.export(trained[0], tmp_path, format="stablehlo", precision="f32", folds=FOLDS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"format": "coreml", "precision": "f32"}, "--format=coreml is none of stablehlo, onnx, tflite"),
        ({"format": "onnx", "precision": "f16"}, "--precision=f16 is none of f32, bf16, int8"),
        ({"format": "onnx", "precision": "bf16"}, r"--precision=bf16 is none of --format=onnx \(f32, int8\)"),
        ({"format": "stablehlo", "precision": "f32", "folds": ["s9"]}, "has no fold 's9'"),
    ],
)
def test_what_cannot_be_exported_says_why(trained, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        exporting.export(trained[0], tmp_path, **flags)


def test_litert_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(UserError, match=r'is not installed: pip install -e "\.\[litert\]"'):
        exporting.check("tflite", "f32")


@pytest.mark.parametrize("name", ["jax2onnx", "onnx", "onnxruntime"])
def test_a_missing_writer_is_named_with_the_command(monkeypatch, name):
    for each in ("jax2onnx", "onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, each, None if each == name else sys)
    with pytest.raises(UserError, match=rf"with {name}, which is not installed: .*pip install --no-deps jax2onnx"):
        exporting.check("onnx", "f32")
