"""Saliency of regions and frames for an answer, by two methods that may differ. Pure functions.

`integrated_gradients` measures what changes the answer, `rollout` where attention went. Both give one number for each
region and kept frame.
"""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from stag_jax.model import graph as graph_ops
from stag_jax.model.network import Network, Weights, forward
from stag_jax.types import ClipBatch


def log_odds(logits: Float[Array, "b k"], target: Int[Array, " b"]) -> Float[Array, " b"]:
    """Return log p / (1 - p) of the class `target` of each clip, which is what is explained."""
    chosen = jax.nn.one_hot(target, logits.shape[-1], dtype=bool)
    target_logit = jnp.sum(jnp.where(chosen, logits, 0), axis=-1)
    return target_logit - jax.nn.logsumexp(logits, axis=-1, where=~chosen)


def integrated_gradients(
    network: Network,
    weights: Weights,
    clips: ClipBatch,
    target: Int[Array, " b"],
    steps: int,
) -> Float[Array, "b t n"]:
    """Return the share of each region and frame in the log odds of `target`, against a face that holds still.

    Sundararajan et al. 2017, with the Gauss-Legendre rule over `steps` points from no motion to the clip's own motion.
    The shares of a clip sum to its log odds less those of the still face, up to the error of that rule.
    """

    def answer(nodes: Float[Array, "b t n d"]) -> Float[Array, ""]:
        logits, _ = forward(network, weights, clips._replace(nodes=nodes))
        return jnp.sum(log_odds(logits, target))

    points, factors = np.polynomial.legendre.leggauss(steps)
    shares, factors = (jnp.asarray(values, clips.nodes.dtype) for values in ((points + 1) / 2, factors / 2))

    def body(index: Int[Array, ""], total: Float[Array, "b t n d"]) -> Float[Array, "b t n d"]:
        return total + factors[index] * jax.grad(answer)(shares[index] * clips.nodes)

    gradient = jax.lax.fori_loop(0, steps, body, jnp.zeros_like(clips.nodes))
    return jnp.sum(gradient * clips.nodes, axis=-1)


def rollout(
    aux: Mapping[str, Float[Array, "..."]], frame_mask: Bool[Array, "b t"], window: int
) -> Float[Array, "b t n"] | None:
    """Return how much of the attention that reaches the answer began at each region and frame; sums to 1 per clip.

    Abnar and Zuidema 2020: attention is averaged over heads, half of it stays in place for the residual connection, and
    the layers are multiplied. Both streams have equal weight at the end, and so have all regions in the readout. None
    for a network without the maps of both streams.
    """
    if "node_over_time" not in aux or "frame_over_nodes" not in aux:
        return None
    b, n, t = aux["node_over_time"].shape
    if t != frame_mask.shape[1]:  # a key-frame network keeps one frame of each clip
        frame_mask = jnp.ones((b, t), bool)
    tokens = jnp.tile(jnp.eye(t * n), (b, 1, 1))
    for index in layers(aux, "space_attention"):
        tokens = _halfway(_joint(aux[f"space_attention_{index}"], aux[f"time_attention_{index}"], window), tokens)
    tokens = tokens.reshape(b, t, n, t * n)
    space = jnp.einsum("bnt,btni->bni", aux["node_over_time"], tokens)
    time = jnp.einsum("btn,btni->bti", aux["frame_over_nodes"], tokens)
    for index in layers(aux, "encoder_attention"):
        time = _halfway(jnp.mean(aux[f"encoder_attention_{index}"], axis=1), time)
    cross_layers = sorted({*layers(aux, "space_from_time"), *layers(aux, "time_from_space")})
    for index in cross_layers:
        before_space, before_time = space, time
        if f"space_from_time_{index}" in aux:
            space = (before_space + jnp.mean(aux[f"space_from_time_{index}"], axis=1) @ before_time) / 2
        if f"time_from_space_{index}" in aux:
            time = (before_time + jnp.mean(aux[f"time_from_space_{index}"], axis=1) @ before_space) / 2
    at_readout = (jnp.mean(space, axis=1) + jnp.einsum("bt,bti->bi", aux["temporal_attention"], time)) / 2
    # Tokens of hidden frames pass on only themselves, and the pools ignore them.
    visible = at_readout.reshape(b, t, n) * frame_mask[:, :, None].astype(at_readout.dtype)
    return visible / jnp.sum(visible, axis=(1, 2), keepdims=True)


def layers(aux: Mapping[str, object], name: str) -> list[int]:
    """Return the numbers of the layers that have an intermediate of this name."""
    matches = (re.fullmatch(rf"{name}_(\d+)", key) for key in aux)
    return sorted(int(match[1]) for match in matches if match)


def _halfway(attention: Float[Array, "b i j"], tokens: Float[Array, "b j x"]) -> Float[Array, "b i x"]:
    return (tokens + attention @ tokens) / 2


def _joint(
    space: Float[Array, "b t h n n2"], time: Float[Array, "b t h n w"], window: int
) -> Float[Array, "b t_n t2_n2"]:
    """Combine attention over space and over time into one attention of all regions in all frames to all others."""
    space, time = jnp.mean(space, axis=2), jnp.mean(time, axis=2)
    b, t, n, _ = space.shape
    # Rows of hidden frames have no weights; they stay zero.
    joint = jnp.einsum("btnm,ts->btnsm", space, jnp.eye(t))
    if time.shape[-1]:
        index, _ = graph_ops.time_window(t, window)
        reach = jax.nn.one_hot(index, t)  # [t, w, t2]; edges beyond the clip have no weight
        joint = joint + jnp.einsum("btnw,tws,nm->btnsm", time, reach, jnp.eye(n))
    return joint.reshape(b, t * n, t * n)


def ranks(
    saliency: Num[Array, "b t n"], frame_mask: Bool[Array, "b t"]
) -> tuple[Int[Array, "b t n"], Int[Array, " b"]]:
    """Return the rank of each region and frame, most salient first (0), hidden frames last; and how many are shown."""
    b, t, n = saliency.shape
    visible = jnp.broadcast_to(frame_mask[:, :, None], saliency.shape).reshape(b, -1)
    order = jnp.argsort(jnp.where(visible, -saliency.reshape(b, -1).astype(jnp.float32), jnp.inf), axis=-1)
    return jnp.argsort(order, axis=-1).reshape(b, t, n), jnp.sum(visible, axis=-1)


def spread(saliency: Float[np.ndarray, "b t n"]) -> Float[np.ndarray, "b t n"]:
    """Return positive saliency as shares that sum to 1 per clip; negative values are left out."""
    positive = np.maximum(saliency, 0)
    total = positive.sum(axis=(1, 2), keepdims=True)
    return np.divide(positive, total, out=np.zeros_like(positive), where=total > 0)
