"""Reading a prepared corpus: order, classes, hidden features."""

import numpy as np
import pytest

from stag_jax.motion import nodes
from stag_jax.training import dataset
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
