"""Edges of the graph: co-occurrence of action units, AU-guided connectivity, neighbours and edge features.

Pure functions; the paper's AU-guided dynamic connectivity is `dynamic_connectivity`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from stag_jax.types import FaceGraph

FLOOR = 1e-2  # keeps log(connectivity) finite: an edge without evidence is weak, not absent


def mirror(nodes: Float[Array, "b t n d"], graph: FaceGraph) -> Float[Array, "b t n d"]:
    """Flip the features of a face left to right: nodes are swapped, and horizontal motion changes its sign.

    Action unit labels have no side here, so they do not change.
    """
    swapped = nodes[:, :, graph.mirror][..., graph.feature_mirror]
    return swapped * jnp.asarray(graph.feature_sign, nodes.dtype)[None, None, None]


def cooccurrence(
    au: Float[Array, "b u"], au_mask: Bool[Array, "b u"], train_mask: Float[Array, " b"], prior: float = 1.0
) -> Float[Array, "u u2"]:
    """Compute the co-occurrence of units: |i and j| / |i or j| over the clips of `train_mask`, 1 on the diagonal.

    Clips without a label for a unit do not count for it. `prior` is added to the denominator and keeps rare pairs near
    zero, so a corpus without AU labels gives the identity.
    """
    known = au_mask.astype(au.dtype) * train_mask[:, None]
    seen = au * known
    both = jnp.einsum("bu,bv->uv", seen, seen)
    either = jnp.einsum("bu,bv->uv", seen, known) + jnp.einsum("bu,bv->uv", known, seen) - both
    eye = jnp.eye(au.shape[1], dtype=au.dtype)
    return jnp.where(eye > 0, 1.0, both / (either + prior))


def dynamic_connectivity(
    au_prob: Float[Array, "*bt u"],
    incidence: Float[Array, "u n"],
    cooccurrence: Float[Array, "u u2"],
) -> Float[Array, "*bt n n2"]:
    """Compute M^T diag(a) C diag(a) M: regions are linked if the units that move them are active together."""
    active = au_prob[..., :, None] * jnp.expand_dims(incidence, range(au_prob.ndim - 1))
    return jnp.einsum("...un,uv,...vm->...nm", active, cooccurrence, active)


def attention_bias(
    static: Float[Array, "n n2"], dynamic: Float[Array, "*bt n n2"] | None, floor: float = FLOOR
) -> Float[Array, "*bt n n2"]:
    """Compute B = log(floor + S + dynamic), which is added to the attention logits of the space edges."""
    if dynamic is None:
        return jnp.log(floor + static)
    return jnp.log(floor + jnp.expand_dims(static, range(dynamic.ndim - 2)) + dynamic)


def space_edge_features(graph: FaceGraph) -> Float[np.ndarray, "n n2 e"]:
    """Return the fixed features of space edges: |dx|, dy, distance (canonical face = 1), self, mirror pair.

    |dx| and not dx, so that a flipped face has the same edges.
    """
    delta = graph.position[None, :] - graph.position[:, None]
    n = len(graph.position)
    same = np.eye(n)
    pair = np.eye(n)[graph.mirror] * (1 - same)
    parts = [np.abs(delta[..., 0]), delta[..., 1], np.linalg.norm(delta, axis=-1), same, pair]
    return np.stack(parts, axis=-1).astype(np.float32)


def time_window(frames: int, window: int) -> tuple[Int[np.ndarray, "t w"], Bool[np.ndarray, "t w"]]:
    """Return time edges: the frames within `window` steps before and after each frame, without itself.

    Steps longer than the clip are left out, so a clip of one frame has no time edges.

    Returns:
      The index of each neighbouring frame, clipped to the valid range, and whether it exists.
    """
    offsets = [step for step in range(-window, window + 1) if step != 0 and abs(step) < frames]
    index = np.arange(frames)[:, None] + np.asarray(offsets, dtype=np.int64)[None, :]
    exists = (index >= 0) & (index < frames)
    return np.clip(index, 0, frames - 1), exists


def time_edge_features(times_ms: Float[Array, "*b t"], index: Int[np.ndarray, "t w"]) -> Float[Array, "*b t w e"]:
    """Return the features of time edges: sign, time difference in units of 100 ms, and its tanh."""
    delta = (times_ms[..., index] - times_ms[..., :, None]) / 100.0
    return jnp.stack([jnp.sign(delta), delta, jnp.tanh(delta)], axis=-1)


def time_code(times_ms: Float[Array, "*b t"], width: int) -> Float[Array, "*b t {width}"]:
    """Encode real time by sines and cosines, periods from 40 ms (1/25 s) to 2 s: independent of the frame rate."""
    periods = jnp.geomspace(40.0, 2000.0, width // 2)
    angle = 2 * jnp.pi * times_ms[..., None] / jnp.expand_dims(periods, range(times_ms.ndim))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def softplus_inverse(value: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Return x with softplus(x) = value > 0."""
    return value + jnp.log(-jnp.expm1(-value))


def non_negative(raw: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Map raw parameters to non-negative values; used for the learned S and C."""
    return jax.nn.softplus(raw)
