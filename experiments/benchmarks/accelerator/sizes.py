"""How large everything is that is measured: in earnest on an accelerator, small where the command is rehearsed."""

from typing import Any, NamedTuple

from stag_experiments.benchmarks.accelerator.schedule import Need

FULL, CPU, REHEARSAL, TINY, AUTO = "full", "cpu", "rehearsal", "tiny", "auto"


class Size(NamedTuple):
    """The sizes of one measurement."""

    name: str
    needs: dict[str, Need]  # seconds of each part
    note: str  # for the page
    network: dict[str, Any]  # changes to the settings of every network, by dotted key
    hasty: bool  # programs are compiled on the CPU without being optimised
    side: int  # of square matrices
    products: int  # timed in a row
    members: tuple[int, ...]  # of one program
    shared: int  # members a device where they are spread over all devices
    threads: int  # programs compiled at the same time; 0 = as the cores allow
    steps: int  # a dispatch
    seconds: float  # that one rate is timed for
    loso_steps: int  # at most so many steps are run of the whole LOSO; the rest is extrapolated
    loso_members: int  # and so many members; 0 = all
    copied_mb: int  # of the array that is copied to measure the rate of copying
    sides: tuple[int, ...]  # of the pictures between which flow is measured, pixels
    pairs: tuple[int, ...]  # pairs of pictures at once
    rendered: int  # clips that pairs with known flow come from
    windows: tuple[int, ...]  # windows at once
    order: tuple[int, int]  # subjects and clips of each in the order corpus
    order_seeds: int
    order_steps: int  # 0 = those of the config
    saved: int  # members whose state is saved


# Seconds of an accelerator with many cores beside it; most of them go into compiling.
FULL_NEEDS = {
    "matrix": Need(6, 12),
    "members": Need(50, 220),
    "loso": Need(25, 60),
    "torch": Need(20, 80),
    "flow": Need(20, 40),
    "windows": Need(10, 20),
    "bfloat16": Need(25, 65),
    "resume": Need(12, 25),
    "losses": Need(14, 35),
    "saving": Need(6, 15),
}
# Of two slow cores, by which a small training program is compiled in 5 to 10 s.
REHEARSAL_NEEDS = {
    "matrix": Need(2, 4),
    "members": Need(36, 44),
    "loso": Need(10, 14),
    "torch": Need(8, 40),
    "flow": Need(8, 12),
    "windows": Need(5, 7),
    "bfloat16": Need(36, 42),
    "resume": Need(3, 6),
    "losses": Need(3, 6),
    "saving": Need(2, 4),
}

FULL_SIZE = Size(
    name=FULL,
    needs=FULL_NEEDS,
    note="full",
    network={},
    hasty=False,
    side=8192,
    products=5,
    members=(1, 4, 16, 64, 256, 1024),
    shared=64,
    threads=0,
    steps=20,
    seconds=1.5,
    loso_steps=10**6,
    loso_members=0,
    copied_mb=2048,
    sides=(128, 256),
    pairs=(32, 512),
    rendered=12,
    windows=(1, 64, 4096),
    order=(12, 16),
    order_seeds=5,
    order_steps=0,
    saved=340,
)
CPU_SIZE = FULL_SIZE._replace(
    name=CPU,
    needs={name: Need(*(3 * s for s in need)) for name, need in FULL_NEEDS.items()},
    note="of a CPU: the full networks, fewer members at once",
    side=1024,
    products=3,
    members=(1, 4, 16),
    shared=4,
    threads=1,
    steps=2,
    loso_steps=1,
    loso_members=4,
    copied_mb=256,
    pairs=(1, 32),
    windows=(1, 64),
    order=(6, 8),
    order_seeds=1,
    order_steps=60,
    saved=64,
)
REHEARSAL_SIZE = CPU_SIZE._replace(
    name=REHEARSAL,
    needs=REHEARSAL_NEEDS,
    note="of a rehearsal: networks of width 8 without graph attention and encoder, compiled in haste; the figures show "
    "that the command works, not what the device can do",
    network={
        "model.width": 8,
        "model.readout_dim": 4,
        "model.gat_layers": 0,
        "model.transformer_layers": 0,
        "model.cross_layers": 0,
    },
    hasty=True,
    members=(1, 4),
    shared=2,
    seconds=0.5,
    copied_mb=128,
    sides=(128,),
    pairs=(1,),
    rendered=1,
    windows=(1, 16),
    order=(2, 4),
    order_steps=20,
    saved=32,
)
TINY_SIZE = REHEARSAL_SIZE._replace(
    name=TINY,
    needs={name: Need(0.4 * need.least_s, 0.6 * need.wanted_s) for name, need in REHEARSAL_NEEDS.items()},
    note="of a test: the smallest networks",
    network={
        "model.width": 4,
        "model.heads": 1,
        "model.score_dim": 2,
        "model.readout_dim": 2,
        "model.gat_layers": 0,
        "model.transformer_layers": 0,
        "model.cross_layers": 0,
        "train.batch_size": 4,
        "motion.frames": 3,
        "graph.grid": 2,
    },
    side=128,
    products=2,
    members=(1, 2),
    shared=1,
    seconds=0.05,
    copied_mb=1,
    windows=(1, 4),
    order=(2, 2),
    order_steps=2,
    saved=2,
)
SIZES = {size.name: size for size in (FULL_SIZE, CPU_SIZE, REHEARSAL_SIZE, TINY_SIZE)}


def choose(name: str, accelerated: bool) -> Size:
    """Return the size of that name; "auto" is full on an accelerator and a rehearsal without one."""
    if name == AUTO:
        name = FULL if accelerated else REHEARSAL
    return SIZES[name]
