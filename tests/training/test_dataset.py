"""Reading a prepared corpus: order, classes, hidden features."""

import numpy as np
import pytest

from stag_datasets import corpus
from stag_jax.corpora import dataset, features
from stag_jax.motion import nodes
from stag_jax.types import UserError
from tests import makers


def test_clips_come_in_the_order_of_their_ids(prepared):
    made = dataset.load(*prepared)
    assert list(made.ids) == sorted(made.ids) and len(made.ids) == 15
    assert made.ids[0] == "casme2/sub02/EP01_01" and made.subjects[0] == "casme2_sub02"
    np.testing.assert_array_equal(made.batch.label[:3], [1, 2, 0])
    assert not made.batch.au_mask.any()


def test_classes_are_chosen_by_name(prepared):
    folder, config = prepared
    two = makers.tiny_config(data__data_dir=config.data.data_dir, data__classes=("surprise", "negative"))
    made = dataset.load(folder, two)
    assert len(made.ids) == 10 and set(made.batch.label) == {0, 1}
    odd = makers.tiny_config(data__data_dir=config.data.data_dir, data__classes=("surprise", "joy"))
    with pytest.raises(UserError, match=r"'joy', which no clip of composite_flow has; there are negative"):
        dataset.load(folder, odd)


def test_several_corpora_are_one(prepared, tmp_path):
    folder, config = prepared
    archive = makers.write_composite(tmp_path / "other" / "archive", subjects=7, clips=2)
    sheet = archive / makers.SHEET
    # Only what the first corpus does not have.
    kept = [
        line
        for line in sheet.read_text().splitlines()
        if not any(f"s{n:02d}" in line or f"sub{n:02d}" in line for n in (1, 2, 3))
    ]
    sheet.write_text("\n".join(kept) + "\n")
    other = corpus.build("composite_flow", data_dir=tmp_path / "other", manual_dir=archive)
    one, two, both = dataset.load(folder, config), dataset.load(other, config), dataset.load([other, folder], config)
    assert sorted(one.ids + two.ids) == list(both.ids) and len(both.ids) == 15 + 8
    at = both.ids.index(two.ids[3])
    np.testing.assert_array_equal(both.batch.nodes[at], two.batch.nodes[3])
    with pytest.raises(UserError, match="clip casme2/sub02/EP01_01 is there twice"):
        dataset.load([folder, folder], config)


def test_a_part_of_the_clips(prepared):
    made = dataset.load(*prepared)
    chosen = np.arange(15) % 4 == 1
    part = made.take(chosen)
    assert part.ids == made.ids[1::4] and part.clips.subjects == made.subjects[1::4]
    np.testing.assert_array_equal(part.batch.label, made.batch.label[chosen])
    assert part.fingerprint == made.fingerprint


def test_labels_that_are_not_as_many_as_the_sheet_says_are_a_warning(prepared):
    clips = features.prepare(*prepared).clips
    about = {"casme2 version": "20190701"}
    found = dataset.miscounted([clip for clip in clips if clip.identity.dataset == "casme2"], about, "3class")
    assert found == [
        "casme2, sheet 20190701, 3class: negative 1 instead of 90, positive 2 instead of 32, surprise 2 instead of 28"
    ]
    assert dataset.miscounted(clips, {}, "3class") == []


def test_strain_can_be_hidden(prepared):
    folder, config = prepared
    shown = dataset.load(folder, config).batch.nodes
    hidden = dataset.load(
        folder, makers.tiny_config(data__data_dir=config.data.data_dir, model__strain=False)
    ).batch.nodes
    strain = nodes.strain_features(config.motion.patch)
    assert strain.sum() == config.motion.patch**2 + 1 and len(strain) == shown.shape[-1]
    assert (hidden[..., strain] == 0).all() and np.any(shown[..., strain])
    np.testing.assert_array_equal(hidden[..., ~strain], shown[..., ~strain])
    # A single clip is shown as it is among all.
    without = makers.tiny_config(data__data_dir=config.data.data_dir, model__strain=False)
    clip = features.prepare(folder, config).clips[2]
    np.testing.assert_array_equal(nodes.one(clip, without).nodes, hidden[2:3])
    np.testing.assert_array_equal(nodes.one(clip, config).nodes, shown[2:3])
    # Strain is what a field of pure strain has, whatever the flow.
    field = np.zeros((1, 8, 8))
    made = nodes.node_features(np.zeros((1, 8, 8, 2)), field + 1, np.array([[4.0, 4.0]]), config.motion.patch, 1.0)
    np.testing.assert_array_equal(made[0, 0] != 0, strain)


def test_regions_are_picked_in_the_order_of_the_graph(prepared):
    folder, config = prepared
    data = {"data__data_dir": config.data.data_dir, "graph__kind": "roi", "graph__units": (12, 17)}
    few = makers.tiny_config(**data, graph__nodes=("chin", "lip_corner_l", "lip_corner_r"))
    whole, part = dataset.load(folder, makers.tiny_config(**data)), dataset.load(folder, few)
    at = [whole.graph.node_names.index(name) for name in part.graph.node_names]
    assert part.batch.nodes.shape[2] == 3
    np.testing.assert_array_equal(part.batch.nodes, whole.batch.nodes[:, :, at])
    assert part.fingerprint != whole.fingerprint
