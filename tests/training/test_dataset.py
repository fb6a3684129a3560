"""Reading a prepared corpus: order, cache, damage, classes, and clips without a face."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from stag_datasets import corpus
from stag_jax.motion import nodes
from stag_jax.training import dataset
from stag_jax.types import Clip, UserError
from tests import makers


@pytest.fixture
def prepared(tmp_path):
    archive = makers.write_composite(tmp_path / "archive", subjects=3, clips=5)
    return corpus.build("composite_flow", data_dir=tmp_path, manual_dir=archive), makers.tiny_config(
        data__data_dir=str(tmp_path)
    )


def test_clips_come_in_the_order_of_their_ids(prepared):
    made = dataset.load(*prepared)
    assert list(made.ids) == sorted(made.ids) and len(made.ids) == 15
    assert made.ids[0] == "casme2/sub02/EP01_01" and made.subjects[0] == "casme2_sub02"
    np.testing.assert_array_equal(made.batch.label[:3], [1, 2, 0])
    assert not made.batch.au_mask.any()


def test_the_cache_gives_the_same_back(prepared):
    first = dataset.load(*prepared)
    path = dataset.cache_path(*prepared)
    stamp = path.stat().st_mtime_ns
    second = dataset.load(*prepared)
    assert path.stat().st_mtime_ns == stamp
    assert first.fingerprint == second.fingerprint
    assert not list(path.parent.glob(".*"))  # no temporary file is left


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_a_torn_cache_is_made_again(prepared, keep):
    whole = dataset.load(*prepared)
    path = dataset.cache_path(*prepared)
    path.write_bytes(path.read_bytes()[:keep])
    assert dataset.load(*prepared).fingerprint == whole.fingerprint
    assert dataset._read_cache(path) is not None


def test_what_shapes_the_features_changes_the_key_and_nothing_else_does(prepared):
    folder, config = prepared
    path = dataset.cache_path(folder, config)
    data = {"data__data_dir": config.data.data_dir}
    assert dataset.cache_path(folder, makers.tiny_config(**data, train__steps=99)) == path
    assert dataset.cache_path(folder, makers.tiny_config(**data, motion__patch=2)) != path
    assert dataset.cache_path(folder, makers.tiny_config(**data, graph__grid=4)) != path


def test_classes_are_chosen_by_name(prepared):
    folder, config = prepared
    two = makers.tiny_config(data__data_dir=config.data.data_dir, data__classes=("surprise", "negative"))
    made = dataset.load(folder, two)
    assert len(made.ids) == 10 and set(made.batch.label) == {0, 1}
    odd = makers.tiny_config(data__data_dir=config.data.data_dir, data__classes=("surprise", "joy"))
    with pytest.raises(UserError, match=r"'joy', which no clip of composite_flow has; its emotions are negative"):
        dataset.load(folder, odd)


def test_strain_can_be_hidden(prepared):
    folder, config = prepared
    shown = dataset.load(folder, config).batch.nodes
    hidden = dataset.load(
        folder, makers.tiny_config(data__data_dir=config.data.data_dir, model__strain=False)
    ).batch.nodes
    strain = dataset.strain_features(config.motion.patch)
    assert strain.sum() == config.motion.patch**2 + 1 and len(strain) == shown.shape[-1]
    assert (hidden[..., strain] == 0).all() and np.any(shown[..., strain])
    np.testing.assert_array_equal(hidden[..., ~strain], shown[..., ~strain])
    # Strain is what a field of pure strain has, whatever the flow.
    field = np.zeros((1, 8, 8))
    made = nodes.node_features(np.zeros((1, 8, 8, 2)), field + 1, np.array([[4.0, 4.0]]), config.motion.patch, 1.0)
    np.testing.assert_array_equal(made[0, 0] != 0, strain)


def test_a_folder_without_a_corpus(tmp_path):
    with pytest.raises(UserError, match="holds no prepared corpus"):
        dataset.read_clips(tmp_path)


class FacelessBuilder(tfds.core.GeneratorBasedBuilder):
    """Two clips of noise and one rendered face."""

    name = "faceless"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=corpus.frame_features())

    def _split_generators(self, dl_manager):
        return {corpus.SPLIT: self._generate_examples()}

    def _generate_examples(self):
        import cv2

        from stag_datasets.synth_me.encode import encode_subject
        from stag_datasets.synth_me.script import Recipe

        face = encode_subject(Recipe(subjects=1, clips=1, frames=(20, 24)), 0)[0].frames
        noise = [cv2.imencode(".png", np.full((96, 96, 3), level, np.uint8))[1].tobytes() for level in range(5)]
        for clip, frames in (("c1", noise), ("c2", face), ("c3", noise)):
            labels = corpus.labels(dataset="faceless", subject="s1", clip=clip, emotion="negative", action_units="4")
            marks = {"onset": 0, "apex": -1, "offset": -1, "fps": 100.0}
            yield clip, {**labels, **marks, "frames": frames}


def test_clips_without_a_face_are_all_named_or_left_out(tmp_path, caplog):
    builder = FacelessBuilder(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    settings = {
        "data__data_dir": str(tmp_path),
        "data__classes": ("negative",),
        "data__workers": 1,
        "graph__kind": "roi",
        "motion__clip_norm": False,
    }
    message = r"no face in 2 of 3 clips: faceless/s1/c1 frame 0: .*faceless/s1/c3 frame 0: .*skip_faceless"
    with pytest.raises(UserError, match=message):
        dataset.load(Path(builder.data_dir), makers.tiny_config(**settings))
    made = dataset.load(Path(builder.data_dir), makers.tiny_config(**settings, data__skip_faceless=True))
    assert made.ids == ("faceless/s1/c2",)
    assert "faceless/s1/c1 frame 0" in caplog.text
    assert made.batch.au_mask.all() and made.batch.au[0, 2] == 1  # AU 4


def test_a_record_becomes_a_clip_with_its_marks(tmp_path):
    builder = FacelessBuilder(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    source = dataset.read_clips(Path(builder.data_dir))
    clip = next(c for c in map(dataset.to_clip, source) if c.id == "faceless/s1/c1")
    assert isinstance(clip, Clip)
    assert (clip.onset, clip.apex, clip.offset) == (0, None, None)
    assert clip.frames.shape == (5, 96, 96, 3) and clip.action_units == "4"
