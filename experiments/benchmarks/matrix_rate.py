"""The rate of matrix products on all local devices, with which the rate of training is compared."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from stag_jax.training import layout

REPEATS = 8
IN_A_ROW = 4  # products that are sent to an accelerator before waiting for the last one
CPU_SIDE, SIDE = 2048, 8192  # on a CPU and on an accelerator


def matrix_rate(
    side: int = 0, *, dtype: str = "float32", precision: str | None = None, repeats: int = REPEATS
) -> float:
    """Return the FLOP/s of products of square matrices, one on each local device at the same time; the best of several.

    Args:
      side: of the matrices; 0 = `CPU_SIDE` or `SIDE`, by device.
      dtype: of the matrices.
      precision: as in `jax.lax.Precision`; None = the default of jax, which training also uses.
      repeats: how many repetitions are timed.
    """
    devices = jax.local_devices()
    side = side or (CPU_SIDE if devices[0].platform == "cpu" else SIDE)
    over_devices = layout.Sharded(devices)
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((side, side), np.float32).astype(jnp.dtype(dtype))
    right = over_devices.replicate(matrix)
    left = over_devices.put(np.broadcast_to(matrix.T, (len(devices), side, side)))
    product = over_devices.map(lambda right, left: jnp.matmul(left, right, precision=precision), (None, 0))
    count = 1 if devices[0].platform == "cpu" else IN_A_ROW
    seconds = fastest(lambda: [product(right, left) for _ in range(count)][-1].block_until_ready(), repeats)
    return 2 * side**3 * len(devices) * count / seconds


def fastest(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the seconds of the fastest of `repeats` repetitions, after one that is not timed."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
