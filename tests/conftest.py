"""Every test runs on eight CPU devices, with strict promotion, and with the shapes of stag_jax checked at run time.

Helpers are fixtures that return functions: the test folders are no packages, so nothing is imported from here. What
they need of stag_jax is imported inside them, after the hook that adds the checks.
"""

import atexit
import dataclasses
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the time of these tests is that of compiling what then runs for a moment; this halves it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
# What one test has compiled, another need not: workers of pytest-xdist, and scripts that tests start, inherit this.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="stag_jax_programs_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
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
        strain=np.array([0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0], bool),
        pooled=4,
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
    """make_config(model={"window": 0}, seeds=(0, 1)): configs/base.py made small, then changed."""
    from stag_configs import base
    from stag_jax.config import from_config_dict

    small = {
        "graph": {"units": (1, 12, 17)},
        "motion": {"frames": SMALL.t},
        "model": {"width": 8, "heads": 2, "score_dim": 3, "gat_layers": 2, "readout_dim": 3},
        "train": {"steps": 3, "batch_size": 3, "warmup_steps": 1},
        "protocol": {"bootstrap": 19},
    }

    def make(**changes: Any):
        tree = base.get_config()
        for part in (small, changes):
            for key, value in part.items():
                tree.update({key: value})
        return from_config_dict(tree)

    return make


@pytest.fixture(scope="session")
def model_config(make_config) -> Callable:
    """model_config(**changes): a small ModelConfig, without dropout unless asked for."""
    plain = dataclasses.replace(make_config().model, dropout=0.0, edge_dropout=0.0)
    return lambda **changes: dataclasses.replace(plain, **changes)


@pytest.fixture(scope="session")
def jit() -> Callable:
    """jax.jit that compiles in half the time, for what runs once."""
    options = {"xla_llvm_disable_expensive_passes": True, "xla_backend_optimization_level": 0}
    return lambda function: jax.jit(function, compiler_options=options)


@pytest.fixture(scope="session")
def random_params() -> Callable:
    """random_params(module, *inputs): parameters far from any special value, a pure function of name and shape."""

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path)
        draw = np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.4, leaf.shape)
        return jax.numpy.asarray(draw + name.endswith("['scale']"), leaf.dtype)

    def make(module: Any, *inputs: Any, **options: Any) -> Any:
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **options))
        return jax.tree_util.tree_map_with_path(fill, shapes["params"])

    return make
