"""How large everything is that is measured: in earnest on an accelerator, small where the command is rehearsed."""

from typing import Any, NamedTuple

FULL, CPU, REHEARSAL, TINY, AUTO = "full", "cpu", "rehearsal", "tiny", "auto"


class Size(NamedTuple):
    """The sizes of one measurement."""

    name: str
    pace: float  # times the seconds that jobs take on an accelerator
    note: str  # for the page
    network: dict[str, Any]  # changes to the settings of every network, by dotted key
    hasty: bool  # programs are compiled on the CPU without being optimised
    side: int  # of square matrices
    products: int  # timed in a row
    members: tuple[int, ...]  # of one program, vmapped
    shared: int  # members a device where they are spread over all devices
    fill: bool  # as many members as the memory is planned for are tried as well
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


FULL_SIZE = Size(
    name=FULL,
    pace=1.0,
    note="full",
    network={},
    hasty=False,
    side=8192,
    products=20,
    members=(4, 16, 64, 256, 1024),
    shared=64,
    fill=True,
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
    pace=3.0,
    note="of a CPU: the full networks, fewer members at once",
    side=1024,
    products=3,
    members=(4, 16),
    shared=4,
    fill=False,
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
    pace=0.4,
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
    members=(4,),
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
    pace=0.1,
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
    members=(2,),
    shared=2,
    loso_members=2,
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
