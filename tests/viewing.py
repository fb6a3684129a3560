"""Small finished runs for the tests of what is looked at: one on frames, one on flow images."""

import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import tensorflow_datasets as tfds

from stag_datasets import corpus
from stag_datasets.synth_me.encode import encode_subject
from stag_datasets.synth_me.script import Recipe
from stag_jax.training import loop
from tests import makers

SUBJECTS, CLIPS, FRAMES = 3, 3, 5


class Study(NamedTuple):
    """A finished run and the folder of its prepared corpus."""

    workdir: Path
    corpus: Path


class SmallBuilder(tfds.core.GeneratorBasedBuilder):
    """A few rendered clips of 20 to 24 frames, made in this process."""

    name = "small"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=corpus.frame_features())

    def _split_generators(self, dl_manager):
        return {corpus.SPLIT: self._generate_examples()}

    def _generate_examples(self):
        for subject in range(SUBJECTS):
            for clip in encode_subject(Recipe(subjects=SUBJECTS, clips=CLIPS, frames=(20, 24)), subject):
                record = corpus.labels(
                    dataset="synth_me",
                    subject=clip.subject,
                    clip=clip.clip,
                    emotion=clip.emotion,
                    action_units=clip.action_units,
                )
                marks = {"onset": clip.onset, "apex": clip.apex, "offset": clip.offset}
                yield record["id"], {**record, **corpus.recording(clip.frames, fps=clip.fps, **marks)}


def on_frames(root: Path) -> Study:
    """Two seeds of a small STAG on `SmallBuilder`, with action units, graph layer and marks."""
    builder = SmallBuilder(data_dir=root, file_format="array_record")
    builder.download_and_prepare()
    config = makers.tiny_config(
        seeds=(0, 1),
        data__dataset="small",
        data__data_dir=str(root),
        data__workers=1,
        graph__kind="roi",
        motion__clip_norm=False,
        motion__frames=FRAMES,
        motion__first_look="dis",
        motion__flow="dis",  # what tvl1 has to compile takes longer than all the rest
        model__gat_layers=1,
        train__steps=4,
        train__batch_size=4,
    )
    return _trained(config, root, Path(builder.data_dir))


def on_flow_images(root: Path, **overrides: object) -> Study:
    """A small STAG on the made-up composite, its strain hidden."""
    archive = makers.write_composite(root / "archive", subjects=3, clips=4)
    folder = corpus.build("composite_flow", data_dir=root, manual_dir=archive)
    places = {"data__data_dir": str(root), "data__manual_dir": str(archive)}
    config = makers.tiny_config(**places, model__strain=False, train__steps=8, train__batch_size=8, **overrides)
    return _trained(config, root, folder)


def unfinished(study: Study, folder: Path) -> Path:
    """A copy of the run as it is just before its end."""
    shutil.copytree(study.workdir, folder)
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "folds")
    return folder


def without_fold(study: Study, folder: Path, name: str) -> Path:
    """A copy of the run without the networks of one fold."""
    shutil.copytree(study.workdir, folder)
    shutil.rmtree(folder / "folds" / name)
    return folder


def _trained(config, root: Path, folder: Path) -> Study:
    # Orbax and optax mix dtypes on purpose.
    with jax.numpy_dtype_promotion("standard"):
        loop.run(config, root / "run", folder)
    return Study(root / "run", folder)
