"""All members of a study as one program: vmapped, in chunks, and laid over the devices. The only meshes are here.

Members never talk to each other, so the compiled programs hold no collective; `fold` knows nothing of any of this.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from stag_jax.config import ParallelConfig
from stag_jax.protocol.splits import Splits
from stag_jax.training import fold
from stag_jax.types import ClipBatch, UserError

AXIS = "member"


class Roster(NamedTuple):
    """Who the members are, in order: all folds of the first seed, then of the next; arrays on the host."""

    members: fold.Member  # stacked, [m, ...]
    names: tuple[str, ...]  # "<fold> seed <seed>", for messages
    test_rows: Int[np.ndarray, "m j"]  # clips to predict, padded by repeating a row
    test_mask: Float[np.ndarray, "m j"]  # 0 on the padding


class Study(NamedTuple):
    """The compiled programs, each over a list of chunks of stacked members."""

    chunks: list[fold.Member]
    init: Callable[[], list[fold.MemberState]]
    train: Callable[[list[fold.MemberState], int], tuple[list[fold.MemberState], dict[str, Any]]]
    predict: Callable[[list[fold.MemberState]], fold.Prediction]  # of each member's test rows, [m, j, ...]
    gather: Callable[[list[Any]], Any]  # chunks of stacked trees -> one host tree [m, ...] without padding
    hlo: Callable[[], str]  # text of the compiled training program
    compile_s: float
    layout: str


def roster(splits: Splits, seeds: Sequence[int]) -> Roster:
    """One member a seed and fold. Raises UserError where seeds repeat or there is none."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"config.seeds must name each seed once and at least one, got {tuple(seeds)}")
    folds = len(splits.names)
    longest = int(splits.test_mask.sum(axis=1).max())
    rows = np.stack([np.resize(np.flatnonzero(mask), longest) for mask in splits.test_mask])
    real = np.stack([np.arange(longest) < mask.sum() for mask in splits.test_mask])
    return Roster(
        members=fold.Member(
            train_mask=np.tile(splits.train_mask.astype(np.float32), (len(seeds), 1)),
            seed=np.repeat(np.asarray(seeds, np.int32), folds),
            fold=np.tile(np.arange(folds, dtype=np.int32), len(seeds)),
        ),
        names=tuple(f"{name} seed {seed}" for seed in seeds for name in splits.names),
        test_rows=np.tile(rows.astype(np.int32), (len(seeds), 1)),
        test_mask=np.tile(real.astype(np.float32), (len(seeds), 1)),
    )


def build(
    task: fold.Task,
    batch: ClipBatch,
    who: Roster,
    parallel: ParallelConfig,
    devices: Sequence[jax.Device] | None = None,
) -> Study:
    """Lays the members over the devices and compiles the training program.

    The member axis is padded to full chunks by repeating the first member; what the copies compute is dropped.

    Raises:
      UserError: unknown `config.parallel.mode`.
    """
    count = len(who.names)
    devices = list(devices or jax.devices())[:count]
    per_device = math.ceil(count / len(devices))
    if parallel.members_per_chunk > 0:
        per_device = min(per_device, parallel.members_per_chunk)
    chunk = per_device * len(devices)
    padded = np.zeros(math.ceil(count / chunk) * chunk, int)
    padded[:count] = np.arange(count)

    spread, place, replicate = _layout(parallel.mode, devices)
    batch = replicate(batch)

    def split(tree: Any) -> list[Any]:
        return [place(jax.tree.map(lambda x, rows=rows: x[rows], tree)) for rows in padded.reshape(-1, chunk)]

    chunks, rows = split(who.members), split(who.test_rows)
    one = np.int32(1)
    init = spread(lambda batch, member: fold.init(task, batch, member), 1)
    train = spread(lambda batch, member, state, n: fold.train_steps(task, batch, member, state, n), 2, extra=1)
    predict = spread(lambda batch, state, rows: fold.predict(task, batch, state, rows), 2)

    start = time.perf_counter()
    shapes = jax.eval_shape(init, batch, chunks[0])
    abstract = _with_sharding(shapes, parallel.mode, devices)
    program = train.lower(batch, chunks[0], abstract, one).compile()
    compile_s = time.perf_counter() - start

    def run(states: list[fold.MemberState], steps: int) -> tuple[list[fold.MemberState], dict[str, Any]]:
        done = [program(batch, member, state, np.int32(steps)) for member, state in zip(chunks, states, strict=True)]
        return [state for state, _ in done], gather([metrics for _, metrics in done])

    def gather(trees: list[Any]) -> Any:
        lead = 2 if parallel.mode == "pmap" else 1
        return jax.tree.map(
            lambda *leaves: np.concatenate([np.asarray(x).reshape(-1, *x.shape[lead:]) for x in leaves])[:count],
            *trees,
        )

    return Study(
        chunks=chunks,
        init=lambda: [init(batch, member) for member in chunks],
        train=run,
        predict=lambda states: gather([predict(batch, s, r) for s, r in zip(states, rows, strict=True)]),
        gather=gather,
        hlo=program.as_text,
        compile_s=compile_s,
        layout=(
            f"{count} members on {len(devices)} {devices[0].platform} device{'s' * (len(devices) > 1)}, "
            f"{per_device} a device in {len(chunks)} chunk{'s' * (len(chunks) > 1)} ({parallel.mode})"
        ),
    )


def _layout(mode: str, devices: Sequence[jax.Device]) -> tuple[Callable, Callable, Callable]:
    """How a function of one member becomes one of a chunk, and how a chunk and the corpus are placed."""
    if mode == "sharded":
        mesh = Mesh(np.asarray(devices), (AXIS,))
        by_member, everywhere = NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())

        def spread(function: Callable, members: int, extra: int = 0) -> Callable:
            mapped = jax.vmap(function, in_axes=(None, *[0] * members, *[None] * extra))
            shardings = (everywhere, *[by_member] * members, *[everywhere] * extra)
            return jax.jit(mapped, in_shardings=shardings, out_shardings=by_member)

        return spread, lambda tree: jax.device_put(tree, by_member), lambda tree: jax.device_put(tree, everywhere)
    if mode == "pmap":

        def spread(function: Callable, members: int, extra: int = 0) -> Callable:
            axes = (None, *[0] * members, *[None] * extra)
            return jax.pmap(jax.vmap(function, in_axes=axes), in_axes=axes, axis_name=AXIS, devices=devices)

        def place(tree: Any) -> Any:
            return jax.tree.map(lambda x: jnp.asarray(x).reshape(len(devices), -1, *x.shape[1:]), tree)

        return spread, place, lambda tree: jax.tree.map(jnp.asarray, tree)
    raise UserError(f"config.parallel.mode {mode!r} is none of sharded, pmap")


def _with_sharding(shapes: Any, mode: str, devices: Sequence[jax.Device]) -> Any:
    """Abstract arrays of a chunk, placed as `_layout` places it."""
    sharding = NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec(AXIS))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
