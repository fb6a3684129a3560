"""Every test runs on four CPU devices, with strict promotion, and with the shapes of stag_jax checked at run time.

Helpers are fixtures that return functions: the test folders are no packages, so nothing is imported from here.
"""

import dataclasses
import os
from collections.abc import Callable
from types import SimpleNamespace

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook("stag_jax", "beartype.beartype")  # works on modules imported from here on

SMALL = SimpleNamespace(b=5, t=7, n=5, u=3, d=11, k=3)  # one letter an axis, as in stag_jax/types.py


@pytest.fixture(scope="session")
def face_graph():
    """Two mirror pairs and one node on the midline, three units, eleven features."""
    from stag_jax.types import FaceGraph

    names = ("brow_r", "brow_l", "mouth_r", "mouth_l", "chin")
    adjacency = np.eye(SMALL.n)
    for i, j, close in ((0, 1, 0.5), (2, 3, 0.5), (0, 2, 0.25), (1, 3, 0.25), (2, 4, 0.75), (3, 4, 0.75)):
        adjacency[i, j] = adjacency[j, i] = close
    return FaceGraph(
        node_names=names,
        units=(1, 12, 17),
        adjacency=adjacency.astype(np.float32),
        incidence=np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]], np.float32),
        mirror=np.array([1, 0, 3, 2, 4]),
        position=np.array([[0.25, 0.25], [0.75, 0.25], [0.3, 0.7], [0.7, 0.7], [0.5, 0.9]], np.float32),
        feature_mirror=np.array([1, 0, 2, 4, 3, 5, 6, 8, 7, 9, 10]),
        feature_sign=np.array([-1, -1, -1, 1, 1, 1, 1, 1, 1, 1, -1], np.float32),
    )


@pytest.fixture(scope="session")
def make_batch() -> Callable:
    """make_batch(seed=0, **fields): random normalised clips, all frames there and all units labelled."""
    import jax.numpy as jnp

    from stag_jax.types import ClipBatch

    def make(seed: int = 0, b: int = SMALL.b, t: int = SMALL.t, **fields: np.ndarray) -> ClipBatch:
        rng = np.random.default_rng(seed)
        arrays = {
            "nodes": rng.normal(size=(b, t, SMALL.n, SMALL.d)).astype(np.float32),
            "times_ms": np.cumsum(rng.uniform(5, 60, size=(b, t)), axis=1).astype(np.float32),
            "magnitude": rng.uniform(0.1, 2, size=(b, t)).astype(np.float32),
            "frame_mask": np.ones((b, t), bool),
            "au": rng.integers(0, 2, size=(b, SMALL.u)).astype(np.float32),
            "au_mask": np.ones((b, SMALL.u), bool),
            "label": (np.arange(b) % SMALL.k).astype(np.int32),
        }
        return ClipBatch(**{name: jnp.asarray(value) for name, value in (arrays | fields).items()})

    return make


@pytest.fixture(scope="session")
def make_config() -> Callable:
    """make_config("model.window=0" style keywords as {"model": {"window": 0}}): configs/base.py made small."""
    from stag_configs import base
    from stag_jax.config import from_config_dict

    small = {
        "graph": {"units": (1, 12, 17)},
        "motion": {"frames": SMALL.t},
        "model": {"width": 8, "heads": 2, "score_dim": 3, "gat_layers": 2, "readout_dim": 3},
        "train": {"steps": 3, "batch_size": 3, "warmup_steps": 1},
        "protocol": {"bootstrap": 19},
    }

    def make(**groups):
        tree = base.get_config()
        for part in (small, groups):
            for group, values in part.items():
                if isinstance(values, dict):
                    tree[group].update(values)
                else:
                    tree[group] = values
        return from_config_dict(tree)

    return make


@pytest.fixture(scope="session")
def model_config(make_config) -> Callable:
    """model_config(**changes): a ModelConfig of prime sizes, no dropout unless asked for."""
    plain = dataclasses.replace(make_config().model, dropout=0.0, edge_dropout=0.0)
    return lambda **changes: dataclasses.replace(plain, **changes)
