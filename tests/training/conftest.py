"""optax mixes integers and floats on purpose, so its callers run under the standard promotion rules."""

import jax
import pytest

from stag_datasets import corpus
from tests import makers


@pytest.fixture(autouse=True)
def standard_promotion():
    """Undoes the strictness of the suite for the tests of this folder."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def prepared(tmp_path):
    """A small corpus of flow images, built, and the settings that go with it."""
    archive = makers.write_composite(tmp_path / "archive", subjects=3, clips=5)
    folder = corpus.build("composite_flow", data_dir=tmp_path, manual_dir=archive)
    return folder, makers.tiny_config(data__data_dir=str(tmp_path))
