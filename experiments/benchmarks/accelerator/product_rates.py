"""The part "matrix": what the device is, its rate of matrix products by type and precision, and that of copying."""

import importlib.metadata
import os
import platform
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stag_experiments.benchmarks.accelerator import bench as bench_lib
from stag_experiments.benchmarks.accelerator.bench import Bench, Clock, Job, Rows
from stag_experiments.benchmarks.matrix_rate import matrix_rate

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "opencv-python-headless", "torch")
PRODUCTS = (  # fact, what the row says, type, precision
    ("_rate", "float32 at jax's default precision", "float32", None),
    ("_rate_f32", "float32, precision `highest`", "float32", "highest"),
    ("_rate_bf16", "bfloat16", "bfloat16", None),
)
FLOAT = 4  # bytes


def jobs(bench: Bench) -> list[Job]:
    """Return a job a type and precision, which leave the rates in the facts, and then the rate of copying."""
    products = [
        Job(text, "products", 5, lambda clock, known=(fact, text, *how): _product(bench, *known))
        for fact, text, *how in PRODUCTS
    ]
    return [*products, Job("copying", "copying", 3, lambda clock: _copying(bench, clock))]


def _product(bench: Bench, fact: str, text: str, dtype: str, precision: str | None) -> Rows:
    rate = matrix_rate(bench.size.side, dtype=dtype, precision=precision, repeats=bench.size.products)
    bench.facts[fact] = rate
    yield {"what": text, "side": bench.size.side, "devices": len(jax.devices()), "TFLOP/s": rate / 1e12}


def _copying(bench: Bench, clock: Clock) -> Rows:
    rate = copy_rate(bench.size.copied_mb, bench.size.seconds)
    bench.facts["_copying"] = rate
    yield {"what": f"a pass over {bench.size.copied_mb} MB, read and written", "devices": 1, "GB/s": rate / 1e9}


def copy_rate(megabytes: int, seconds: float) -> float:
    """Return the bytes per second, read and written together, of a pass over an array on the first device."""
    array = jax.device_put(jnp.ones(megabytes * 2**20 // FLOAT, jnp.float32), jax.devices()[0])
    scaled = jax.jit(lambda x: x * np.float32(1.5))
    return 2 * array.nbytes / bench_lib.repeated(lambda: scaled(array).block_until_ready(), seconds / 2)


def device_facts() -> dict[str, Any]:
    """Return what the devices and the software are."""
    devices = jax.devices()
    stats = devices[0].memory_stats() or {}
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "device": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "_platform": devices[0].platform,
        "memory a device, GB": stats["bytes_limit"] / 1e9 if "bytes_limit" in stats else None,
        "host": f"{bench_lib.cores()} cores, {platform.machine()}, Python {sys.version.split()[0]}",
        "software": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS"),
    }
