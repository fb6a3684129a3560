"""The part "matrix": what the device is, and its rate of matrix products by type and precision."""

import importlib.metadata
import os
import platform
import sys
from typing import Any

import jax

from stag_experiments.benchmarks.accelerator.bench import Bench, Clock, Rows
from stag_experiments.benchmarks.matrix_rate import matrix_rate

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "opencv-python-headless", "torch")
PRODUCTS = (  # fact, what the row says, type, precision
    ("_rate", "float32 at jax's default precision", "float32", None),
    ("_rate_f32", "float32, precision `highest`", "float32", "highest"),
    ("_rate_bf16", "bfloat16", "bfloat16", None),
)


def measure(bench: Bench, clock: Clock) -> Rows:
    """Yield a row a type and precision; leave the rates in the facts."""
    for fact, text, dtype, precision in PRODUCTS:
        rate = matrix_rate(bench.size.side, dtype=dtype, precision=precision, repeats=bench.size.products)
        bench.facts[fact] = rate
        yield {"product": text, "side": bench.size.side, "devices": len(jax.devices()), "TFLOP/s": rate / 1e12}


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
        "host": f"{os.cpu_count()} cores, {platform.machine()}, Python {sys.version.split()[0]}",
        "software": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
