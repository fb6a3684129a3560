"""ONE member of a study: its statistics, its steps, its predictions. Pure functions of (task, batch, member, state).

`members` vmaps them over all members of a study. The whole corpus is one `ClipBatch`; a member uses only the rows of
its training mask, and everything learned from data, normalisation included, comes from those rows only. Keys are
folded from (seed, fold, step) and never stored, so resuming, chunking and padding change nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from stag_jax import config as config_lib
from stag_jax.config import Config
from stag_jax.model import graph as graph_ops
from stag_jax.model import losses
from stag_jax.model import network as network_lib
from stag_jax.model.network import Network, Outputs, Statistics, Weights
from stag_jax.training import augment, optim
from stag_jax.types import AnyArray, ClipBatch, FaceGraph


def leave(clips: ClipBatch) -> ClipBatch:
    """Return the clips of a step as they are placed."""
    return clips


class Task(NamedTuple):
    """The settings and the network that all members share; constant, closed over, never traced."""

    config: Config
    network: Network
    batch_size: int
    place: Callable[[ClipBatch], ClipBatch] = leave  # how the clips of a step are placed on devices


class Member(NamedTuple):
    """One training: its training clips, its randomness, and the settings in which it differs from other members."""

    train_mask: Float[AnyArray, " b"]
    seed: Int[AnyArray, ""]
    fold: Int[AnyArray, ""]
    tuned: dict[str, Float[AnyArray, ""]]  # by dotted key of `config.tunable_keys`
    soft: Float[AnyArray, "b k"] | None = None  # teacher's log-probabilities; 0 outside the training mask


class MemberState(NamedTuple):
    """The state of a member between two steps."""

    step: Int[Array, ""]
    params: optax.Params
    opt_state: optax.OptState
    statistics: Statistics
    bad_step: Int[Array, ""]  # first step with a non-finite loss or gradient; -1 if none


def make_task(config: Config, graph: FaceGraph, smallest_fold: int) -> Task:
    """Make the task of a config. A batch is at most as large as the smallest training set, so it fits in an epoch."""
    return Task(config, network_lib.make_network(config, graph), min(config.train.batch_size, smallest_fold))


def tuned(task: Task, member: Member) -> Task:
    """Return the task with the member's values of the settings that differ between members."""
    if not member.tuned:
        return task
    config = config_lib.replace(task.config, member.tuned)
    return task._replace(config=config, network=network_lib.make_network(config, task.network.graph))


def init(task: Task, batch: ClipBatch, member: Member) -> MemberState:
    """Return the state of a member before its first step."""
    task = tuned(task, member)
    statistics = network_lib.measure(task.network, batch, member.train_mask, task.config.loss.class_balance)
    example = network_lib.normalise(task.network, jax.tree.map(lambda x: x[:1], batch), statistics)
    params = network_lib.init(task.network, _key(member, "init"), example)
    together = graph_ops.cooccurrence(batch.au, batch.au_mask, member.train_mask)
    params = set_cooccurrence(params, together)
    opt_state = optim.make_optimizer(task.config.train).init(params)
    return MemberState(jnp.zeros((), jnp.int32), params, opt_state, statistics, jnp.full((), -1, jnp.int32))


def set_cooccurrence(params: optax.Params, together: Float[Array, "u u2"]) -> optax.Params:
    """Initialise the learned co-occurrence of action units with that of the training clips."""
    start = graph_ops.softplus_inverse(jnp.maximum(together, 1e-2))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: start if path[-1].key == "cooccurrence" else leaf, params
    )


def batch_rows(key: Array, train_mask: Float[Array, " b"], step: Int[Array, ""], size: int) -> Int[Array, " b2"]:
    """Return the rows of the clips in one step: all training clips in a new random order every epoch.

    Stateless: the order of epoch e comes from fold_in(key, e). `size` must not exceed the number of training clips, so
    that a batch spans two epochs at most.
    """
    count = jnp.sum(train_mask).astype(jnp.int32)
    position = step * size + jnp.arange(size)
    epoch, offset = position // count, position % count

    def order(number: Int[Array, ""]) -> Int[Array, " b"]:
        draw = jax.random.uniform(jax.random.fold_in(key, number), train_mask.shape)
        return jnp.argsort(jnp.where(train_mask > 0, draw, 2.0))

    return jnp.where(epoch == epoch[0], order(epoch[0])[offset], order(epoch[0] + 1)[offset])


def loss_fn(
    task: Task, params: optax.Params, mixed: augment.Mixed, statistics: Statistics, key: Array
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Return the focal loss over classes plus lambda_au times the binary focal loss over action units, and metrics.

    Clips are normalised. With a teacher, the loss is (1 - `distil.weight`) times this plus `distil.weight` times the
    distillation loss.
    """
    config, clips = task.config.loss, mixed.clips
    logits, aux = network_lib.apply(task.network, params, clips, train=True, rngs={"dropout": key})
    own_loss, other_loss = (
        losses.focal(
            logits=logits,
            label=label,
            alpha=statistics.class_weight,
            gamma=config.gamma,
            smoothing=config.label_smoothing,
        )
        for label in (clips.label, mixed.other_label)
    )
    class_loss = mixed.share * own_loss + (1 - mixed.share) * other_loss
    au = losses.binary_focal(logits=aux["au_logits"], target=clips.au, mask=clips.au_mask, gamma=config.gamma)
    loss = jnp.mean(class_loss) + config.lambda_au * au
    accuracy = jnp.mean((jnp.argmax(logits, axis=-1) == clips.label).astype(jnp.float32))
    metrics = {"au_loss": au, "train_accuracy": accuracy}
    if mixed.soft is not None and mixed.other_soft is not None:
        weight, temperature = task.config.distil.weight, task.config.distil.temperature
        own_loss, other_loss = (
            losses.distillation(logits=logits, soft=soft, temperature=temperature)
            for soft in (mixed.soft, mixed.other_soft)
        )
        # As with labels: the losses of both clips, weighted by their shares.
        metrics["teacher_loss"] = jnp.mean(mixed.share * own_loss + (1 - mixed.share) * other_loss)
        loss = (1 - weight) * loss + weight * metrics["teacher_loss"]
    return loss, {"loss": loss, **metrics}


def training_clips(task: Task, batch: ClipBatch, member: Member, state: MemberState) -> tuple[augment.Mixed, Array]:
    """Draw, augment, normalise and mix the clips of the next step; also return the key for dropout."""
    key = jax.random.fold_in(_key(member, "step"), state.step)
    augment_key, noise_key, dropout_key, mix_key = jax.random.split(key, 4)
    rows = batch_rows(_key(member, "order"), member.train_mask, state.step, task.batch_size)
    clips = task.place(jax.tree.map(lambda x: x[rows], batch))
    clips = augment.augment(clips, task.network.graph, augment_key, task.config.augment)
    clips = network_lib.normalise(task.network, clips, state.statistics)
    noise = task.config.augment.noise * jax.random.normal(noise_key, clips.nodes.shape)
    # A teacher's answers are for the clips as recorded, and are used for their mirror images too.
    soft = None if member.soft is None or config_lib.is_off(task.config.distil.weight) else member.soft[rows]
    mixed = augment.mixup(clips._replace(nodes=clips.nodes + noise), mix_key, task.config.augment.mixup, soft)
    return mixed, dropout_key


def train_step(
    task: Task, batch: ClipBatch, member: Member, state: MemberState
) -> tuple[MemberState, dict[str, Float[Array, ""]]]:
    """Take one step of one member; return the new state and metrics."""
    task = tuned(task, member)
    # Without the barrier XLA draws and gathers the clips again for every use.
    mixed, key = training_clips(task, batch, member, state)
    mixed = jax.lax.optimization_barrier(mixed)
    grad_fn = jax.grad(lambda params: loss_fn(task, params, mixed, state.statistics, key), has_aux=True)
    grads, metrics = grad_fn(state.params)
    optimizer = optim.make_optimizer(task.config.train)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics |= {
        "grad_norm": optax.tree.norm(grads),
        "param_norm": optax.tree.norm(params),
        "update_norm": optax.tree.norm(updates),
    }
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"]) & jnp.isfinite(metrics["param_norm"])
    bad_step = jnp.where(finite | (state.bad_step >= 0), state.bad_step, state.step)
    return MemberState(state.step + 1, params, opt_state, state.statistics, bad_step), metrics


def train_steps(
    task: Task, batch: ClipBatch, member: Member, state: MemberState, count: Int[Array, ""]
) -> tuple[MemberState, dict[str, Float[Array, ""]]]:
    """Take `count` steps in one dispatch; return the state and mean metrics. `count` is traced: one program for all."""
    shapes = jax.eval_shape(lambda s: train_step(task, batch, member, s)[1], state)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def body(_: Int[Array, ""], carry: tuple) -> tuple:
        state, total = carry
        state, metrics = train_step(task, batch, member, state)
        return state, jax.tree.map(jnp.add, total, metrics)

    state, total = jax.lax.fori_loop(0, count, body, (state, zeros))
    return state, jax.tree.map(lambda x: x / count.astype(x.dtype), total)


def predict(task: Task, batch: ClipBatch, state: MemberState, rows: Int[Array, " b2"]) -> Outputs:
    """Predict the clips in `rows`."""
    weights = Weights(state.params, state.statistics)
    return network_lib.outputs(task.network, weights, jax.tree.map(lambda x: x[rows], batch))


def _key(member: Member, stream: str) -> Array:
    """Return the key of one random stream of a member, folded from seed, fold and the stream's number."""
    streams = {"init": 0, "order": 1, "step": 2}
    key = jax.random.fold_in(jax.random.key(member.seed), member.fold)
    return jax.random.fold_in(key, streams[stream])
