"""The optimiser of one member."""

import jax
import optax

from stag_jax.config import TrainConfig


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Make AdamW with warm-up and cosine decay; gradients are clipped by their global norm.

    Weight decay acts on matrices only: shrinking biases, norms and the learned connectivity would change the network's
    output for a clip without motion.
    """
    # With a peak of 1: the learning rate may be traced, and the schedules of optax compare the peak with zero.
    shape = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=1.0,
        warmup_steps=min(config.warmup_steps, max(config.steps - 1, 1)),
        decay_steps=config.steps,
    )
    # On one flat vector: a hundred small arrays one by one cost more than the arithmetic, and compile slowly.
    adam = optax.flatten(optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.scale_by_adam()))
    return optax.chain(
        adam,
        optax.add_decayed_weights(config.weight_decay, decayed),
        optax.scale_by_learning_rate(lambda step: config.learning_rate * shape(step)),
    )


def decayed(params: optax.Params) -> optax.Params:
    """Return True for the parameters that weight decay acts on (kernels), False for others."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
