"""Settings as frozen dataclasses, and the one function that makes them from a ConfigDict.

There are no defaults here: `configs/base.py` is the one place that holds them.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from jaxtyping import Array, Float

from stag_jax.types import UserError

T = TypeVar("T")

# A number that may differ from member to member of one compiled program: then it is an array while it is traced.
Tunable = float | Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which clips, and where they lie."""

    dataset: str  # name of a builder in datasets/; several, joined by "+", are one study
    data_dir: str  # where prepared corpora and cached features are kept
    manual_dir: (
        str  # where the corpus lies as its owners ship it, or a folder with one for each; empty if none is needed
    )
    labels: str  # scheme that makes classes of emotions (stag_jax/protocol/labels.py); empty: emotions are classes
    classes: tuple[str, ...]  # those that are scored, in label order; clips of others are left out
    skip_faceless: bool  # leave out clips without a face instead of stopping
    workers: int  # processes for decoding, landmarks and flow; 0 = one a core


@dataclasses.dataclass(frozen=True)
class FaceConfig:
    """Landmarks and alignment."""

    predictor: str  # a dlib 68-point predictor file; empty = the one of face_recognition_models
    size: int  # side of the canonical face, pixels
    reference_frames: int  # alignment is the median over this many first frames
    min_score: float  # score of the detector from which something may be a face; clear faces are at about 2
    redetect_jump: float  # landmark jump between frames, in outer eye distances, that asks the detector again
    max_turn: float  # degrees by which the head may be turned to a side, up or down; beyond, frames are refused
    smooth: int  # frames over which landmarks are smoothed, odd and at least 5; 0 = not at all


@dataclasses.dataclass(frozen=True)
class MotionConfig:
    """Flow, head-motion removal, frame selection and node features."""

    first_look: str  # flow of all frames: "dis", "farneback", "tvl1", or "auto": tvl1 on an accelerator, dis on a CPU
    flow: str  # the same, of the frames kept
    reference: str  # "onset": flow from the first frame; "previous": between frames
    stabilise: str  # "similarity", "affine" or "none"
    average_ms: float  # flow is averaged over the frame, the one so long before and the one after; 0 = not
    frames: int  # K, frames kept a clip
    selection: str  # "magnitude" or "uniform"
    patch: int  # P, samples a side of a node's patch
    spacing: float  # distance of the samples, pixels of the canonical face
    window_ms: float  # of recordings and cameras: length of the windows that they are cut into
    hop_ms: float  # from one window to the next
    clip_norm: bool  # flow images only: remove each clip's median motion and divide by its spread


@dataclasses.dataclass(frozen=True)
class GraphConfig:
    """The nodes."""

    kind: str  # "roi": named regions at the landmarks; "grid": overlapping patches of a flow image
    grid: int  # nodes a side of the grid
    units: tuple[int, ...]  # action units scored
    nodes: tuple[str, ...]  # "roi" only: names of the regions kept (stag_jax/face/regions.py); empty: all


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Widths and blocks; each block can be switched off."""

    name: str  # "stag", "apex_only" or "two_stream"
    width: int  # d inside the network
    heads: int
    score_dim: int  # width of the GATv2 score, per head
    gat_layers: int
    window: int  # time edges reach this many selected frames to each side; 0 = no time edges
    transformer_layers: int
    cross_layers: int
    mlp_ratio: int
    readout_dim: int  # features that each node keeps for itself in the readout
    dropout: Tunable
    edge_dropout: Tunable
    au_guidance: bool  # bias attention by the action units seen in the frame
    dynamic: bool  # False: the bias is the learned static adjacency only
    cross_to_space: bool  # spatial tokens attend to temporal ones
    cross_to_time: bool  # temporal tokens attend to spatial ones
    temporal_attention: bool  # False: mean over frames
    dtype: str  # of activations: "float32" or "bfloat16"
    symmetric: bool  # answers are the mean over a clip and its mirror image
    strain: bool  # False: the strain features are hidden


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Focal loss over classes, binary focal loss over action units."""

    gamma: Tunable
    class_balance: Tunable  # exponent of inverse class frequency in alpha; 0 = none, 1 = full
    label_smoothing: Tunable
    lambda_au: Tunable


@dataclasses.dataclass(frozen=True)
class DistilConfig:
    """A teacher, from whose answers members learn beside the labels (Hinton et al. 2015, arXiv 1503.02531)."""

    teacher: str  # workdir of a finished run; each fold learns from its fold of the same name; empty = no teacher
    weight: Tunable  # share of the loss that is the teacher's, 0 to 1; 0 = no teacher
    temperature: Tunable  # that answers are compared at; above 1 the less likely classes count more


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One member's optimisation."""

    steps: int
    batch_size: int
    learning_rate: Tunable
    warmup_steps: int
    weight_decay: Tunable
    clip_norm: Tunable


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What is done to training clips on the device."""

    mirror: Tunable  # probability of a left-right flip
    magnitude: Tunable  # standard deviation of the log of a random gain on the motion
    noise: Tunable  # standard deviation of noise on the normalised features
    frame_drop: Tunable  # probability that a frame is hidden
    mixup: Tunable  # alpha of the Beta distribution by which clips are mixed; 0 = not at all


@dataclasses.dataclass(frozen=True)
class ProtocolConfig:
    """Who is held out, and the interval."""

    # "loso": leave one subject out; "group": groups of subjects; "stratified_group": the same, classes alike;
    # "stratified": clips by class, NOT subject-independent; "dataset": whole corpora; "part": official parts of one;
    # "all": one fold that trains on every clip and tests none, for a network that is to be used
    split: str
    folds: int  # of those that have a number of them
    seed: int  # of those that are drawn
    test: tuple[str, ...]  # corpora or parts to be tested, none of which is trained on; empty: each in turn
    bootstrap: int  # resamples of subjects for the interval


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How members lie on devices. Nothing here changes what is computed."""

    # "sharded": members over devices; "pmap": the same by `jax.pmap`; "data": the clips of a step over devices, for
    # one model too large for a device
    mode: str
    cpu_devices: int  # devices that the CPU is split into; 0 = one a core; no effect on accelerators
    members_per_chunk: int  # members in one program, per device; 0 = as many as the memory plan gives
    steps_per_dispatch: int


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """How often the state for resuming is saved, and what else is kept."""

    every_s: float
    keep: int
    history: bool  # record what held-out clips are predicted as after every dispatch; only the report reads it


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    seeds: tuple[int, ...]  # one ensemble member a seed and fold
    data: DataConfig
    face: FaceConfig
    motion: MotionConfig
    graph: GraphConfig
    model: ModelConfig
    loss: LossConfig
    distil: DistilConfig
    train: TrainConfig
    augment: AugmentConfig
    protocol: ProtocolConfig
    parallel: ParallelConfig
    checkpoint: CheckpointConfig


def from_config_dict(tree: Any, cls: type[T] = Config, path: str = "config") -> T:
    """Turns a (possibly nested) mapping into the frozen dataclass `cls`.

    Raises UserError, naming the key, for an unknown key, a missing one, or a value of the wrong type.
    """
    hints = get_type_hints(cls)
    for key in tree:
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f"; did you mean {path}.{close[0]}?" if close else ""
            raise UserError(f"unknown config key {path}.{key}{hint}")
    values = {}
    for key, hint in hints.items():
        if key not in tree:
            raise UserError(f"config key {path}.{key} is missing")
        values[key] = _value(tree[key], hint, f"{path}.{key}")
    return cls(**values)


def _value(value: Any, hint: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not hasattr(value, "keys"):
            raise UserError(f"{path} must be a group of keys, got {value!r}")
        return from_config_dict(value, hint, path)
    if hint == Tunable:
        hint = float
    if getattr(hint, "__origin__", None) is tuple:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise UserError(f"{path} must be a tuple, got {value!r}")
        return tuple(_value(item, hint.__args__[0], path) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UserError(f"{path} must be of type {hint.__name__}, got {value!r}")
    return value


# Settings that runs and exported networks may have been written too early to have, with what was done then.
LATER = {
    "motion": {"window_ms": 500.0, "hop_ms": 40.0},
    "graph": {"nodes": []},
    "distil": {"teacher": "", "weight": 0.5, "temperature": 2.0},
}


def completed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings, of a run or of a sweep, with those that they were written too early to have."""
    if "settings" in tree:
        return {**tree, "settings": completed(tree["settings"])}
    return {**tree, **{group: {**values, **tree.get(group, {})} for group, values in LATER.items()}}


def tunable_keys(cls: type = Config, prefix: str = "") -> tuple[str, ...]:
    """Dotted keys of the numbers that may differ between the members of one program: those of type `Tunable`."""
    found: list[str] = []
    for key, hint in get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            found += tunable_keys(hint, f"{prefix}{key}.")
        elif hint == Tunable:
            found.append(prefix + key)
    return tuple(found)


def get(config: Any, key: str) -> Any:
    """The value of a dotted key."""
    for part in key.split("."):
        config = getattr(config, part)
    return config


def replace(config: T, values: Mapping[str, Any]) -> T:
    """The config with other values of some dotted keys; values are taken as they are, traced numbers among them."""
    for key, value in values.items():
        first, _, rest = key.partition(".")
        inner = replace(getattr(config, first), {rest: value}) if rest else value
        config = dataclasses.replace(config, **{first: inner})
    return config


def is_off(value: Tunable) -> bool:
    """Whether a rate is known to be zero, so that what it governs can be left out of the program."""
    return isinstance(value, float) and value <= 0


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain dicts, lists and values, ready for JSON."""
    return {
        key: to_dict(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for key, value in vars(config).items()
    }
