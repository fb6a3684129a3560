"""Scripts that use the public names of stag_jax and nothing else of it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stag_jax
from stag_datasets import corpus
from stag_datasets.synth_me import render, script
from stag_jax.config import to_dict
from stag_jax.deploy import TO_TRY
from tests import makers

ROOT = Path(__file__).parents[1]
STUDY = """
import json, pathlib, sys
import numpy as np
from stag_jax import TrainedFolds, UserError, from_config_dict, load_corpus, replace, train

settings, folder, workdir = map(pathlib.Path, sys.argv[1:])
config = replace(from_config_dict(json.loads(settings.read_text())), {"train.steps": 20})
try:
    train(replace(config, {"train.steps": 0}), workdir, folder)
except UserError as error:
    print(error)
result = train(config, workdir, folder)
trained, corpus = TrainedFolds(workdir), load_corpus(folder, config)
probability, _ = trained.ask(trained.names[0], corpus.batch, np.array([0, 3]))
print(json.dumps([result["n_clips"], trained.names, trained.config.train.steps, probability.sum(axis=1).tolist()]))
"""
CLIP = """
import json, pathlib, sys
import numpy as np
from stag_jax import batch_of, extract, load_export, read_clip

recogniser = load_export(sys.argv[1])
clip = read_clip(pathlib.Path(sys.argv[2]), 100.0)
answer = recogniser.forward(batch_of(extract(clip, recogniser.config), recogniser.config))
print(json.dumps([len(clip.frames), float(answer.probability.sum()), "optax" in sys.modules]))
"""


def run(program, *arguments):
    assert {node.module for node in ast.walk(ast.parse(program)) if isinstance(node, ast.ImportFrom)} == {"stag_jax"}
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_a_study_from_a_script(tmp_path):
    archive = makers.write_composite(tmp_path / "archive")
    folder = corpus.build("composite_flow", data_dir=tmp_path / "data", manual_dir=archive)
    settings = to_dict(makers.tiny_config(data__data_dir=str(tmp_path / "data")))
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    fault, *_, last = run(STUDY, tmp_path / "settings.json", folder, tmp_path / "run")
    assert fault.startswith("config.train.steps must be")
    clips, names, steps, sums = json.loads(last)
    assert (clips, len(names), steps) == (35, 5, 20)
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_a_clip_from_a_script(tmp_path):
    recipe = corpus.builder("synth_me/tiny", data_dir="").builder_config.recipe
    for number, frame in enumerate(render.render_clip(script.subject_clips(recipe, 0)[0]).frames[:12]):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    (last,) = run(CLIP, TO_TRY, tmp_path)
    count, total, trains = json.loads(last)
    assert count == 12 and total == pytest.approx(1, abs=1e-5) and not trains


def test_every_public_name_is_there_and_described():
    for name in stag_jax.__all__:
        assert getattr(stag_jax, name).__doc__ and name in stag_jax.__doc__
    with pytest.raises(AttributeError, match="has no attribute 'attic'"):
        _ = stag_jax.attic
