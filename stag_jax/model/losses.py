"""Focal losses over classes and over action units (Lin et al. 2017, arXiv 1708.02002); the loss of distillation."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from stag_jax.config import Tunable


def class_weights(
    label: Int[Array, " b"], train_mask: Float[Array, " b"], classes: int, exponent: Tunable
) -> Float[Array, " k"]:
    """Return alpha: the inverse class frequency among the clips of `train_mask`, to the power `exponent`.

    Scaled so that the mean over training clips is 1; a class without a training clip gets 0.
    """
    count = jnp.sum(jax.nn.one_hot(label, classes) * train_mask[:, None], axis=0)
    present = count > 0
    raw = jnp.where(present, jnp.where(present, count, 1.0) ** -exponent, 0.0)
    return raw * jnp.sum(count) / jnp.sum(raw * count)


def focal(
    *,
    logits: Float[Array, "b k"],
    label: Int[Array, " b"],
    alpha: Float[Array, " k"],
    gamma: Tunable,
    smoothing: Tunable = 0.0,
) -> Float[Array, " b"]:
    """Return alpha_y (1 - p)^gamma times the cross-entropy with optionally smoothed labels, one value per clip.

    gamma = 0 and alpha = 1 give the plain cross-entropy.
    """
    classes = logits.shape[-1]
    logits32 = logits.astype(jnp.float32)
    log_prob = jax.nn.log_softmax(logits32)
    target = optax.losses.smooth_labels(jax.nn.one_hot(label, classes), smoothing)
    # 1 - p from the other classes' probabilities: exact near p = 1, and its power has a finite gradient there.
    miss = jnp.sum(jnp.exp(log_prob) * (1 - jax.nn.one_hot(label, classes)), axis=-1)
    return alpha[label] * jnp.power(miss + 1e-8, gamma) * optax.losses.softmax_cross_entropy(logits32, target)


def distillation(*, logits: Float[Array, "b k"], soft: Float[Array, "b k"], temperature: Tunable) -> Float[Array, " b"]:
    """Return T^2 KL(teacher || student), both softened by the temperature T, one value per clip (arXiv 1503.02531).

    `soft` are the teacher's logits or log-probabilities; both give the same loss. The factor T^2 keeps the size of the
    gradient independent of T.
    """
    student = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
    teacher = jax.nn.log_softmax(soft.astype(jnp.float32) / temperature)
    return temperature**2 * optax.losses.kl_divergence_with_log_targets(student, teacher)


def binary_focal(
    *, logits: Float[Array, "*b u"], target: Float[Array, "*b u"], mask: Bool[Array, "*b u"], gamma: Tunable
) -> Float[Array, ""]:
    """Return the mean binary focal loss over labelled units; 0 if nothing is labelled.

    Targets that mixup has mixed weigh the losses of both labels; `optax.losses.sigmoid_focal_loss` mixes them inside
    the focal factor, which is another loss.
    """
    logits = jnp.where(mask, logits.astype(jnp.float32), 0.0)
    log_p, log_not = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    positive = -target * jnp.exp(log_not * gamma) * log_p
    negative = -(1 - target) * jnp.exp(log_p * gamma) * log_not
    total = jnp.sum(jnp.where(mask, positive + negative, 0.0))
    return total / jnp.maximum(jnp.sum(mask, dtype=total.dtype), 1)
