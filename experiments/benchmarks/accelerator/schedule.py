"""Which parts of the measurement are made, and how long each may take. Nothing here looks at a clock or a device."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

GRACE, GRACE_S = 2.0, 8.0  # a part is ended after so many times its seconds, and no sooner than so many beyond them
GENEROUS = 3.0  # where there is time to spare, a part gets up to so many times what it wants beyond the least


class Part(NamedTuple):
    """One part: a module of this package whose `measure` yields rows."""

    name: str
    title: str
    about: str  # what the rows say, in the page
    module: str
    package: str = ""  # without which it is left out
    alone: bool = False  # in a process of its own, in which jax has the CPU only


# Most wanted first; but bfloat16, which compiles for long what no other part uses, comes after what is quickly known.
PARTS = (
    Part(
        "matrix",
        "Rate of matrix products",
        "Square matrices, one product on each device at a time, the best of several; sums over the devices.",
        "product_rates",
    ),
    Part(
        "members",
        "Member-steps per second",
        "A member-step is one training step of one member on its batch of clips. The share is that of the rate of "
        "float32 products at jax's default precision, which is that of training. Programs are compiled several at a "
        "time, so their compile times say only how long one waits.",
        "member_rates",
    ),
    Part(
        "loso",
        "A whole LOSO of 68 folds and 5 seeds",
        "442 random clips in the shape of the composite's, all steps of configs/composite_flow.py.",
        "whole_loso",
    ),
    Part(
        "torch",
        "The same network and recipe in PyTorch, fold after fold",
        "float32 at the precision that jax has by default (tf32 where there is one).",
        "torch_rates",
        package="torch",
        alone=True,
    ),
    Part(
        "flow",
        "TV-L1 optical flow",
        "The bound is the rate of copying over the bytes that the iteration reads and writes at least; pairs that stay "
        "in a cache can be faster. Errors are mean end-point errors over rendered faces that truly move by 0.5 to 4 px "
        "at their most moved point.",
        "flow_rates",
    ),
    Part(
        "windows",
        "Prediction",
        "Class and action-unit probabilities of windows of 8 frames, each averaged with its mirror image.",
        "window_rates",
    ),
    Part(
        "resume",
        "Resuming on the device",
        "Training goes on from a state that was saved by Orbax and restored, beside training that was not disturbed.",
        "resume_bytes",
    ),
    Part(
        "losses",
        "Losses of the device against those of the CPU",
        "The same members from the same first state, matrix products at precision `highest` on both.",
        "cpu_losses",
    ),
    Part(
        "saving",
        "Saving and fetching",
        "A stacked state saved by Orbax into the folder of the results; metrics of one dispatch fetched by the host.",
        "save_times",
    ),
    Part(
        "bfloat16",
        "bfloat16 against float32",
        "UF1 of leave-one-subject-out on rendered clips of the order corpus (synth_me/order), mean over seeds; "
        "landmarks are those of the renderer, flow is OpenCV's DIS.",
        "bfloat16_score",
    ),
)


class Need(NamedTuple):
    """Seconds of a part."""

    least_s: float  # with less it is not started
    wanted_s: float


class Slot(NamedTuple):
    """A part that is to be measured, and its seconds."""

    part: Part
    soft_s: float  # what the part plans its work with
    hard_s: float  # after these it is ended


def plan(parts: Sequence[Part], needs: Mapping[str, Need], seconds: float) -> list[Slot]:
    """Choose the parts that fit into `seconds`, most wanted first, and share the time out between them.

    Every chosen part gets its least; what is left is shared in proportion to what each wants beyond that. Call it again
    before each part: time that one did not use is then the others'.

    Args:
      parts: those still to be measured, most wanted first.
      needs: the seconds of each, by name.
      seconds: until all must be over.
    """
    chosen: list[Part] = []
    spare = seconds
    for part in parts:
        if needs[part.name].least_s <= spare:
            chosen.append(part)
            spare -= needs[part.name].least_s
    wishes = sum(needs[part.name].wanted_s - needs[part.name].least_s for part in chosen)
    share = min(GENEROUS, spare / wishes) if wishes > 0 else 0.0
    slots = []
    for part in chosen:
        need = needs[part.name]
        soft = need.least_s + share * (need.wanted_s - need.least_s)
        most = need.least_s + spare  # leaves the others their least
        slots.append(Slot(part, soft, min(most, max(GRACE * soft, soft + GRACE_S))))
    return slots
