import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from stag_jax.model import losses

LABEL = jnp.array([0, 0, 0, 0, 1, 2, 2])
TRAIN = jnp.array([1, 1, 1, 1, 1, 0, 0], jnp.float32)  # no training clip of class 2


@pytest.mark.parametrize("exponent, expected", [(0.0, (1, 1, 0)), (0.5, (5 / 6, 5 / 3, 0)), (1.0, (5 / 8, 5 / 2, 0))])
def test_class_weights_by_hand(exponent, expected):
    alpha = losses.class_weights(LABEL, TRAIN, 3, exponent)
    np.testing.assert_allclose(alpha, expected, rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(alpha[LABEL] * TRAIN) / jnp.sum(TRAIN), 1, rtol=1e-6)


def draw(seed=0, b=5, k=3):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(0, 2, (b, k)), jnp.float32)
    return logits, jnp.asarray(rng.integers(0, k, b)), jnp.asarray(rng.uniform(0.2, 2, k), jnp.float32)


def test_without_focus_it_is_the_cross_entropy():
    logits, label, _ = draw()
    ones = jnp.ones(3)
    found = losses.focal(logits=logits, label=label, alpha=ones, gamma=0.0)
    np.testing.assert_allclose(found, optax.softmax_cross_entropy_with_integer_labels(logits, label), rtol=1e-5)
    smooth = optax.smooth_labels(jax.nn.one_hot(label, 3), 0.3)
    found = losses.focal(logits=logits, label=label, alpha=ones, gamma=0.0, smoothing=0.3)
    np.testing.assert_allclose(found, optax.softmax_cross_entropy(logits, smooth), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_is_its_formula_in_loops(gamma, smoothing):
    logits, label, alpha = draw(3)
    found = losses.focal(logits=logits, label=label, alpha=alpha, gamma=gamma, smoothing=smoothing)
    for row, y, value in zip(np.asarray(logits, np.float64), np.asarray(label), found, strict=True):
        p = np.exp(row) / np.exp(row).sum()
        target = np.where(np.arange(3) == y, 1 - smoothing, 0) + smoothing / 3
        entropy = -sum(target[k] * np.log(p[k]) for k in range(3))
        np.testing.assert_allclose(value, alpha[y] * (1 - p[y]) ** gamma * entropy, rtol=1e-4)
    check_grads(
        jax.jit(lambda x: losses.focal(logits=x, label=label, alpha=alpha, gamma=gamma, smoothing=smoothing)),
        (logits,),
        order=1,
        modes=["rev"],
        rtol=2e-2,
        atol=2e-2,
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_and_its_gradient_are_finite_for_the_surest_predictions(gamma):
    logits = jnp.array([[200.0, -200, 0], [-200, 200, 0], [0, 0, 0]])
    label = jnp.array([0, 0, 0])

    def total(x):
        return losses.focal(logits=x, label=label, alpha=jnp.ones(3), gamma=gamma).sum()

    value, grad = jax.value_and_grad(total)(logits)
    assert np.isfinite(value) and np.isfinite(grad).all()


def slow_binary(logits, target, mask, gamma):
    values = []
    for index in np.ndindex(logits.shape):
        if mask[index]:
            p = 1 / (1 + np.exp(-float(logits[index])))
            p = p if target[index] == 1 else 1 - p
            values.append(-((1 - p) ** gamma) * np.log(p))
    return sum(values) / max(len(values), 1)


def draw_units(seed=0):
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(0, 2, (5, 3)), rng.integers(0, 2, (5, 3))
    return jnp.asarray(logits, jnp.float32), jnp.asarray(target, jnp.float32), jnp.asarray(rng.random((5, 3)) < 0.6)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_binary_focal_is_its_formula_in_loops(gamma):
    logits, target, mask = draw_units()
    found = losses.binary_focal(logits=logits, target=target, mask=mask, gamma=gamma)
    np.testing.assert_allclose(found, slow_binary(logits, target, mask, gamma), rtol=1e-5)
    if gamma == 0:
        np.testing.assert_allclose(found, optax.sigmoid_binary_cross_entropy(logits, target)[mask].mean(), rtol=1e-5)
    # A mask is as good as leaving the entries out.
    subset = losses.binary_focal(
        logits=logits[mask], target=target[mask], mask=jnp.ones(int(mask.sum()), bool), gamma=gamma
    )
    np.testing.assert_allclose(found, subset, rtol=1e-5)
    check_grads(
        jax.jit(lambda x: losses.binary_focal(logits=x, target=target, mask=mask, gamma=gamma)),
        (logits,),
        order=1,
        modes=["rev"],
        rtol=2e-2,
        atol=2e-2,
    )


def test_what_has_no_label_has_no_influence():
    logits, target, mask = draw_units(1)

    def loss(x, mask):
        return losses.binary_focal(logits=x, target=target, mask=mask, gamma=2.0)

    value, grad = jax.value_and_grad(loss)(jnp.where(mask, logits, jnp.nan), mask)
    assert np.isfinite(value) and np.isfinite(grad).all()
    assert (grad[~mask] == 0).all() and (grad[mask] != 0).all()
    value, grad = jax.value_and_grad(loss)(logits, jnp.zeros_like(mask))
    assert value == 0 and (grad == 0).all()


def test_distillation_is_the_divergence_from_the_softened_teacher():
    rng = np.random.default_rng(2)
    logits, soft = (jnp.asarray(rng.normal(0, 3, (7, 5)), jnp.float32) for _ in range(2))
    for temperature in (1.0, 2.5):
        found = losses.distillation(logits=logits, soft=soft, temperature=temperature)
        for row in range(7):  # slow and obvious
            p, q = (
                np.exp(x[row] / temperature) / np.exp(x[row] / temperature).sum()
                for x in map(np.asarray, (soft, logits))
            )
            expected = temperature**2 * sum(p[k] * (np.log(p[k]) - np.log(q[k])) for k in range(5))
            np.testing.assert_allclose(found[row], expected, rtol=1e-4)
        # Logarithms of probabilities are logits up to a number a clip, which changes nothing.
        shifted = losses.distillation(logits=logits + 3, soft=jax.nn.log_softmax(soft), temperature=temperature)
        np.testing.assert_allclose(shifted, found, rtol=1e-4)
        np.testing.assert_allclose(losses.distillation(logits=soft, soft=soft, temperature=temperature), 0, atol=1e-5)


def test_the_gradient_of_distillation_hardly_depends_on_the_temperature():
    """For logits that are small beside T it is (student - teacher) / k: equation 4 of arXiv 1503.02531."""
    rng = np.random.default_rng(3)
    logits, soft = (jnp.asarray(rng.normal(0, 0.1, (3, 5)), jnp.float32) for _ in range(2))
    logits, soft = (x - jnp.mean(x, axis=1, keepdims=True) for x in (logits, soft))
    for temperature in (20.0, 200.0):
        grad = jax.grad(lambda x, t=temperature: losses.distillation(logits=x, soft=soft, temperature=t).sum())(logits)
        np.testing.assert_allclose(grad, (logits - soft) / 5, atol=5e-4)
