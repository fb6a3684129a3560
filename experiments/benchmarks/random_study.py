"""Studies of random clips in the shapes of a config, and what a step of them costs: no corpus is needed."""

from typing import Any, NamedTuple

import jax
import numpy as np

from stag_jax.config import Config
from stag_jax.motion import nodes
from stag_jax.protocol.splits import loso
from stag_jax.training import fold
from stag_jax.training.roster import Roster, make_roster
from stag_jax.types import ClipBatch, FaceGraph

SUBJECTS = 20
FRAME_MS = 40.0  # mean time from one frame to the next
SPREAD = 0.1  # of made-up parameters


class RandomStudy(NamedTuple):
    """What is trained; all of it on the host, so that it can be sent to another process."""

    config: Config
    graph: FaceGraph
    batch: ClipBatch
    roster: Roster

    @property
    def task(self) -> fold.Task:
        """As `training.loop` makes it."""
        return fold.make_task(self.config, self.graph, int(self.roster.members.train_mask.sum(axis=1).min()))


def random_setting(config: Config, clips: int, members: int, subjects: int = SUBJECTS) -> RandomStudy:
    """Draw a study of so many random clips and members: folds of `subjects` subjects, with as many seeds as needed."""
    graph = nodes.graph(config.graph, config.motion)
    splits = loso([f"s{index % subjects:02d}" for index in range(clips)])
    roster = make_roster(splits, range(-(-members // len(splits.names))))
    return RandomStudy(config, graph, random_clips(config, graph, clips), first_members(roster, members))


def random_clips(config: Config, graph: FaceGraph, clips: int) -> ClipBatch:
    """Draw clips in the shapes of a config, all frames shown and all units labelled; one frame each on a grid."""
    rng = np.random.default_rng(0)
    t = 1 if config.graph.kind == "grid" else config.motion.frames
    n, d, u = len(graph.node_names), len(graph.feature_sign), len(graph.units)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((clips, *shape), np.float32)

    return ClipBatch(
        nodes=normal(t, n, d),
        times_ms=np.cumsum(np.abs(normal(t)) * FRAME_MS, axis=1),
        magnitude=np.abs(normal(t)),
        frame_mask=np.ones((clips, t), bool),
        au=np.float32(normal(u) > 0),
        au_mask=np.ones((clips, u), bool),
        label=np.arange(clips, dtype=np.int32) % len(config.data.classes),
    )


def first_members(roster: Roster, count: int) -> Roster:
    """Keep the first `count` members of a roster."""
    members, rows, mask = jax.tree.map(lambda x: x[:count], (roster.members, roster.test_rows, roster.test_mask))
    return roster._replace(members=members, names=roster.names[:count], test_rows=rows, test_mask=mask)


def stacked_states(setting: RandomStudy) -> fold.MemberState:
    """Return a made-up first state of the first member, once for each member; nothing is compiled for it.

    It is on the host, where the copies share their memory. A step costs the same whatever its numbers are.
    """
    count, rng = len(setting.roster.names), np.random.default_rng(0)
    state = _abstract_state(setting)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)
    made_up = zeros._replace(
        params=jax.tree.map(lambda x: (SPREAD * rng.standard_normal(x.shape)).astype(x.dtype), state.params),
        statistics=jax.tree.map(np.ones_like, zeros.statistics)._replace(mean=zeros.statistics.mean),
        bad_step=np.full_like(zeros.bad_step, -1),
    )
    return jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape)), made_up)


def step_flops(setting: RandomStudy) -> float:
    """Return the FLOP of one step of one member, as XLA counts them before it optimises."""
    task = setting.task
    lowered = jax.jit(lambda *args: fold.train_step(task, *args)).lower(
        setting.batch, abstract_member(setting), _abstract_state(setting)
    )
    return float(lowered.cost_analysis()["flops"])


def abstract_member(setting: RandomStudy) -> Any:
    """Return shapes and types of one member."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), setting.roster.members)


def _abstract_state(setting: RandomStudy) -> fold.MemberState:
    """Return shapes and types of the state of one member."""
    task = setting.task
    return jax.eval_shape(lambda batch, member: fold.init(task, batch, member), setting.batch, abstract_member(setting))
