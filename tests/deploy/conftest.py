"""One small trained run that all tests of this folder look at; none may change it."""

import jax
import pytest

from stag_configs import base
from stag_datasets import corpus


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run on the tiny corpus: a few steps of a small network."""
    from stag_jax.config import from_config_dict
    from stag_jax.training import loop

    root = tmp_path_factory.mktemp("tiny")
    settings = base.get_config()
    settings.data.update({"dataset": "synth_me/tiny", "data_dir": str(root)})
    settings.motion.frames = 5
    settings.model.update({"width": 8, "gat_layers": 1, "transformer_layers": 0, "cross_layers": 0, "readout_dim": 3})
    settings.train.update({"steps": 5, "batch_size": 7})
    settings.protocol.bootstrap = 20
    folder = corpus.build("synth_me/tiny", data_dir=root)
    with jax.numpy_dtype_promotion("standard"):
        result = loop.run(from_config_dict(settings), root / "run", folder)
    return root / "run", result
