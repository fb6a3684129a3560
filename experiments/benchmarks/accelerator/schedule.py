"""Which parts there are, how much their jobs are wanted, and which is next. Nothing here looks at a clock or device."""

from collections.abc import Iterable
from typing import NamedTuple

LONG_S = 30.0  # a job that takes longer waits for shorter ones whose programs are still being compiled


class Part(NamedTuple):
    """One part: a module of this package whose `jobs` are measured."""

    name: str
    title: str
    about: str  # what the rows say, in the page
    module: str
    package: str = ""  # without which it is left out
    alone: bool = False  # in a process of its own, in which jax has the CPU only


PARTS = (
    Part(
        "matrix",
        "Rates of matrix products and of copying",
        "Square matrices, one product on each device at a time, the best of several; sums over the devices.",
        "product_rates",
    ),
    Part(
        "members",
        "Member-steps per second",
        "A member-step is one training step of one member on its batch of clips. The share is that of the rate of "
        "float32 products at jax's default precision, which is that of training.",
        "member_rates",
    ),
    Part(
        "loso",
        "A whole LOSO of 68 folds and 5 seeds",
        "442 random clips in the shape of the composite's, all steps of configs/composite_flow.py; states are made up.",
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
        "The same members from the same made-up states.",
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

# What jobs are wanted for, most wanted first: so their programs are compiled, and so they are measured of those that
# are ready. The first ones need no program, and fill the minute or two in which the first programs are compiled.
WANTED = (
    *("products", "copying", "eager torch", "saving"),
    *("loop", "whole study", "shared", "most members", "flow", "prediction", "clips", "more flow", "more prediction"),
    *("resume", "losses", "other members", "bfloat16", "whole prediction", "highest", "larger pictures"),
    *("most windows", "pmap", "memory", "other clips", "compiled torch"),
)


class Planned(NamedTuple):
    """What is known of a job without the process that measures it."""

    part: str
    name: str
    wanted: int  # index in WANTED
    place: int  # of its rows within those of its part
    seconds: float
    most_s: float
    programs: tuple[str, ...]


def choose(jobs: Iterable[tuple[Planned, bool]], left_s: float) -> Planned | None:
    """Return the most wanted job that is ready and fits into the seconds that are left, if there is one.

    Args:
      jobs: those still to be measured, and whether each is ready: its programs are compiled.
      left_s: until all must be over.
    """
    waiting = False
    for job, ready in sorted(jobs, key=lambda entry: entry[0].wanted):
        if not ready:
            waiting = waiting or job.seconds <= left_s
        elif job.seconds <= left_s and not (waiting and job.seconds > LONG_S):
            return job
    return None
