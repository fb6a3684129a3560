"""Features of a whole corpus: cached, damaged, built by several at once, and clips without a face."""

import contextlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from stag_datasets import corpus
from stag_jax.config import replace
from stag_jax.corpora import dataset, features, records
from stag_jax.motion import quality
from stag_jax.types import Clip, UserError
from tests import makers


def test_the_cache_gives_the_same_back(prepared):
    first = dataset.load(*prepared)
    path = features.cache_path(*prepared)
    stamp = path.stat().st_mtime_ns
    second = dataset.load(*prepared)
    assert path.stat().st_mtime_ns == stamp
    assert first.fingerprint == second.fingerprint
    assert not list(path.parent.glob(".*"))  # no temporary file is left


def test_windows_of_recordings_are_no_matter_of_clips(prepared):
    folder, config = prepared
    other = replace(config, {"motion.window_ms": 300.0, "motion.hop_ms": 70.0})
    assert features.cache_path(folder, other) == features.cache_path(folder, config)
    assert features.cache_path(folder, replace(config, {"motion.frames": 3})) != features.cache_path(folder, config)


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_a_torn_cache_is_made_again(prepared, keep):
    whole = dataset.load(*prepared)
    path = features.cache_path(*prepared)
    path.write_bytes(path.read_bytes()[:keep])
    assert dataset.load(*prepared).fingerprint == whole.fingerprint
    assert features._read_cache(path) is not None


def test_several_may_build_at_once(prepared):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: features.prepare(*prepared), range(4)))
    path = features.cache_path(*prepared)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    cached = features._read_cache(path)
    for one in (*found, cached):
        assert len(one.clips) == 15 and not one.faceless and not one.reports
        for a, b in zip(one.clips, cached.clips, strict=True):
            assert a.identity == b.identity
            np.testing.assert_array_equal(a.nodes, b.nodes)


def test_a_stopped_run_leaves_what_it_has_seen(prepared, monkeypatch):
    whole = features.prepare(*prepared)
    path = features.cache_path(*prepared)
    path.unlink()
    seen, work = [], features._work

    def stops_at(index):
        def one(folder, config, clip):
            if clip == index:
                raise KeyboardInterrupt
            seen.append(clip)
            return work(folder, config, clip)

        return one

    monkeypatch.setattr(features, "CHUNK", 4)
    monkeypatch.setattr(features, "_work", stops_at(9))
    with pytest.raises(KeyboardInterrupt):
        features.prepare(*prepared)
    assert seen == list(range(9)) and not path.exists()
    seen.clear()
    monkeypatch.setattr(features, "_work", stops_at(-1))
    again = features.prepare(*prepared)
    assert seen == list(range(8, 15))  # two chunks of four were kept
    assert [clip.identity.id for clip in again.clips] == [clip.identity.id for clip in whole.clips]
    for one, other in zip(again.clips, whole.clips, strict=True):
        np.testing.assert_array_equal(one.nodes, other.nodes)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_changed_corpus_is_read_again(prepared):
    folder, config = prepared
    path = features.cache_path(folder, config)
    file = next(folder.glob("*.array_record*"))
    file.write_bytes(file.read_bytes() + b"x")
    assert features.cache_path(folder, config) != path


def test_what_shapes_the_features_changes_the_key_and_nothing_else_does(prepared):
    folder, config = prepared
    path = features.cache_path(folder, config)
    data = {"data__data_dir": config.data.data_dir}
    assert features.cache_path(folder, makers.tiny_config(**data, train__steps=99)) == path
    assert features.cache_path(folder, makers.tiny_config(**data, motion__patch=2)) != path
    assert features.cache_path(folder, makers.tiny_config(**data, graph__grid=4)) != path
    # Every region is measured, whichever a network is given.
    assert features.cache_path(folder, makers.tiny_config(**data, graph__nodes=("chin",))) == path


def test_another_landmark_predictor_makes_features_again(tmp_path, monkeypatch, caplog):
    """A file that was replaced under its old name gives other landmarks under the same settings."""
    folder = corpus.build("synth_me/tiny", data_dir=tmp_path)
    config = makers.tiny_config(data__data_dir=str(tmp_path), data__dataset="synth_me/tiny", graph__kind="roi")
    monkeypatch.setattr(features, "_extractor", nobody)
    assert features.prepare(folder, config).origin["predictor"]["file"].endswith(".dat")
    calls = []
    monkeypatch.setattr(features, "_extractor", lambda *args: calls.append(args) or nobody(*args))
    features.prepare(folder, config)
    assert not calls
    monkeypatch.setattr(features.landmarks, "predictor_digest", lambda override: "0" * 64)
    features.prepare(folder, config)
    assert len(calls) == 1 and "was made by another landmark predictor and is made again" in caplog.text


@contextlib.contextmanager
def nobody(folder, config):
    """Every clip is one without a face."""
    yield lambda indices: (f"clip {index}: no face" for index in indices)


def test_annotations_are_read_once_while_the_records_are_the_same(prepared, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(prepared[0], folder)
    for name in (records.DIGEST, records.ANNOTATIONS):
        (folder / name).unlink(missing_ok=True)
    rows, digest = records.read_annotations(folder), records.corpus_digest(folder)
    assert sorted(row["id"] for row in rows) == sorted(row["id"].decode() for row in records.read_clips(prepared[0]))
    assert all(row["events"] is None and row["emotion"] for row in rows)
    films = records.read_annotations(corpus.build("synth_me/long_tiny", data_dir=tmp_path))
    assert all(len(row["events"]) for row in films)
    opened, open_builder = [], records.open_builder
    monkeypatch.setattr(records, "open_builder", lambda path: opened.append(path) or open_builder(path))
    assert records.read_annotations(folder) == rows and not opened
    shard = next(folder.glob("*.array_record*"))
    os.utime(shard, (1, 1))
    assert records.read_annotations(folder) == rows and opened
    with shard.open("ab") as file:
        file.write(b"x")
    assert records.corpus_digest(folder) != digest
    (folder / records.DIGEST).write_text("{")
    assert records.corpus_digest(folder) != digest


def test_a_folder_without_a_corpus(tmp_path):
    with pytest.raises(UserError, match="holds no prepared corpus"):
        records.read_clips(tmp_path)


class FacelessBuilder(tfds.core.GeneratorBasedBuilder):
    """Two clips of noise and one rendered face."""

    name = "faceless"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=corpus.frame_features())

    def _split_generators(self, dl_manager):
        return {corpus.SPLIT: self._generate_examples()}

    def _generate_examples(self):
        from stag_datasets.synth_me.encode import encode_subject
        from stag_datasets.synth_me.script import Recipe

        face = encode_subject(Recipe(subjects=1, clips=1, frames=(20, 24)), 0)[0].frames
        noise = [cv2.imencode(".png", np.full((96, 96, 3), level, np.uint8))[1].tobytes() for level in range(5)]
        for clip, frames in (("c1", noise), ("c2", face), ("c3", noise)):
            labels = corpus.labels(dataset="faceless", subject="s1", clip=clip, emotion="negative", action_units="4")
            yield clip, {**labels, **corpus.recording(frames, fps=100.0, onset=0)}


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
    found = features.prepare(Path(builder.data_dir), makers.tiny_config(**settings))  # from the cache by now
    (report,), (tile,) = found.reports, found.tiles
    assert report.id == "faceless/s1/c2" and isinstance(report.frames, int) and isinstance(report.head_px, float)
    assert report.refused == 0 and report.annotated_apex == -1 and report.eyes_raw_px > 50
    picture = cv2.imdecode(np.frombuffer(tile, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (quality.TILE, 3 * quality.TILE, 3)


def test_a_record_becomes_a_clip_with_its_marks(tmp_path):
    builder = FacelessBuilder(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    source = records.read_clips(Path(builder.data_dir))
    clip = next(c for c in map(records.to_clip, source) if c.identity.id == "faceless/s1/c1")
    assert isinstance(clip, Clip)
    assert (clip.onset, clip.apex, clip.offset) == (0, None, None)
    assert clip.frames.shape == (5, 96, 96, 3) and clip.action_units == "4"
