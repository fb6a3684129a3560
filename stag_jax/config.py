"""Settings as frozen dataclasses, and the one function that makes them from a ConfigDict.

There are no defaults here: they are in `configs/base.py` only. Each setting has a type, a rule for its values, which
`training.validation` checks, and its meaning.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar, cast, get_args, get_type_hints

from jaxtyping import Array, Float

from stag_jax.allowed import Anything, Between, Distinct, NotEmpty, OddFrom, OneOf, Rule
from stag_jax.types import UserError

T = TypeVar("T")

# A number that may differ between the members of one compiled program; it is then an array during tracing.
Tunable = float | Float[Array, ""]

ANY = Anything()
COUNT, AT_LEAST_ONE = Between(0, 2**31 - 1), Between(1, 2**31 - 1)
SHARE, RATE = Between(0, 1), Between(0, 1, open_high=True)  # a rate of 1 would leave nothing
NOT_NEGATIVE, POSITIVE = Between(0), Between(0, open_low=True)
FLOWS = OneOf(("auto", "dis", "farneback", "tvl1"))


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The clips to use, and where they are stored."""

    dataset: Annotated[str, NotEmpty(), "corpus, a builder in datasets/; several joined by + are one study"]
    data_dir: Annotated[str, NotEmpty(), "folder of prepared corpora and cached features"]
    manual_dir: Annotated[
        str, ANY, "folder of the corpus as its owners ship it, or of one folder for each; empty if none is needed"
    ]
    labels: Annotated[
        str,
        OneOf(("", "3class", "4class", "5class", "7class", "objective")),
        "scheme that makes classes of emotions (protocol/labels.py); empty: emotions as they are",
    ]
    classes: Annotated[
        tuple[str, ...], Distinct(NotEmpty(), 2), "classes scored, in label order; clips of others are left out"
    ]
    skip_faceless: Annotated[bool, ANY, "leave out clips without a face instead of stopping"]
    workers: Annotated[int, Between(0, 1024), "processes for decoding, landmarks and flow; 0: one a core"]


@dataclasses.dataclass(frozen=True)
class FaceConfig:
    """Landmarks and alignment."""

    predictor: Annotated[str, ANY, "file of a dlib 68-point predictor; empty: that of face_recognition_models"]
    size: Annotated[int, Between(32, 1024), "side of the canonical face, pixels"]
    reference_frames: Annotated[int, AT_LEAST_ONE, "first frames over which alignment takes the median"]
    min_score: Annotated[float, Between(-10, 10), "least score of the detector; clear faces are at about 2"]
    redetect_jump: Annotated[
        float, POSITIVE, "landmark jump between frames, in outer eye distances, that asks the detector again"
    ]
    max_turn: Annotated[float, Between(0, 90, open_low=True), "largest turn of the head to a side, up or down, degrees"]
    smooth: Annotated[int, OddFrom(5), "frames over which landmarks are smoothed; 0: not at all"]


@dataclasses.dataclass(frozen=True)
class MotionConfig:
    """Flow, head-motion removal, frame selection and node features."""

    first_look: Annotated[str, FLOWS, "flow of all frames; auto: tvl1 on an accelerator, dis on a CPU"]
    flow: Annotated[str, FLOWS, "flow of the frames kept"]
    reference: Annotated[str, OneOf(("onset", "previous")), "frame that flow starts from: the first, or the one before"]
    stabilise: Annotated[str, OneOf(("similarity", "affine", "none")), "head motion that is removed"]
    average_ms: Annotated[float, NOT_NEGATIVE, "flow is averaged over the frames so long before and after, ms; 0: not"]
    frames: Annotated[int, Between(1, 1024), "frames kept of a clip (K)"]
    selection: Annotated[str, OneOf(("magnitude", "uniform")), "how frames are chosen"]
    patch: Annotated[int, Between(1, 64), "samples a side of a node's patch (P)"]
    spacing: Annotated[float, POSITIVE, "distance of the samples, pixels of the canonical face"]
    window_ms: Annotated[float, POSITIVE, "length of the windows that recordings are cut into, ms"]
    hop_ms: Annotated[float, POSITIVE, "time from one window to the next, ms; at most window_ms"]
    clip_norm: Annotated[bool, ANY, "flow images only: remove each clip's median motion and divide by its spread"]


@dataclasses.dataclass(frozen=True)
class GraphConfig:
    """Nodes of the face graph."""

    kind: Annotated[str, OneOf(("roi", "grid")), "roi: regions at the landmarks; grid: patches of a flow image"]
    grid: Annotated[int, Between(2, 64), "nodes a side of the grid"]
    units: Annotated[tuple[int, ...], Distinct(least=1), "action units scored, by FACS number"]
    nodes: Annotated[tuple[str, ...], Distinct(), "roi only: regions kept, by name (face/regions.py); empty: all"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Widths and blocks; each block can be switched off."""

    name: Annotated[str, OneOf(("stag", "apex_only", "two_stream")), "network"]
    width: Annotated[int, AT_LEAST_ONE, "features of a token (d); a multiple of heads"]
    heads: Annotated[int, AT_LEAST_ONE, "attention heads"]
    score_dim: Annotated[int, AT_LEAST_ONE, "width of the GATv2 score of a head"]
    gat_layers: Annotated[int, Between(0, 64), "layers of graph attention"]
    window: Annotated[int, COUNT, "selected frames that time edges reach to each side; 0: no time edges"]
    transformer_layers: Annotated[int, Between(0, 64), "layers of the encoder over time"]
    cross_layers: Annotated[int, Between(0, 64), "layers of attention between space and time"]
    mlp_ratio: Annotated[int, Between(1, 64), "hidden width of the feed-forward blocks, in widths"]
    readout_dim: Annotated[int, AT_LEAST_ONE, "features that each node keeps for itself in the readout"]
    dropout: Annotated[Tunable, RATE, "share of the features dropped in training"]
    edge_dropout: Annotated[Tunable, RATE, "share of the edges dropped in training"]
    au_guidance: Annotated[bool, ANY, "bias attention by the action units seen in the frame"]
    dynamic: Annotated[bool, ANY, "False: that bias is the learned static adjacency only"]
    cross_to_space: Annotated[bool, ANY, "spatial tokens attend to temporal ones"]
    cross_to_time: Annotated[bool, ANY, "temporal tokens attend to spatial ones"]
    temporal_attention: Annotated[bool, ANY, "False: mean over frames"]
    dtype: Annotated[str, OneOf(("float32", "bfloat16")), "precision of activations"]
    symmetric: Annotated[bool, ANY, "answers are the mean over a clip and its mirror image"]
    strain: Annotated[bool, ANY, "False: the strain features are hidden"]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Focal loss over classes, binary focal loss over action units."""

    gamma: Annotated[Tunable, NOT_NEGATIVE, "focusing exponent; 0: cross-entropy"]
    class_balance: Annotated[Tunable, SHARE, "exponent of inverse class frequency in alpha; 0: none, 1: full"]
    label_smoothing: Annotated[Tunable, RATE, "share of the label given to all classes alike"]
    lambda_au: Annotated[Tunable, NOT_NEGATIVE, "weight of the action unit loss"]


@dataclasses.dataclass(frozen=True)
class DistilConfig:
    """Distillation: members learn from a teacher's outputs and the labels (Hinton et al. 2015, arXiv 1503.02531)."""

    teacher: Annotated[str, ANY, "workdir of a finished run; a fold learns from its fold of the same name; empty: none"]
    weight: Annotated[Tunable, SHARE, "share of the loss that is the teacher's; 0: no teacher"]
    temperature: Annotated[Tunable, POSITIVE, "answers are compared at; above 1 the less likely classes count more"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One member's optimisation."""

    steps: Annotated[int, AT_LEAST_ONE, "optimiser steps of a member"]
    batch_size: Annotated[int, AT_LEAST_ONE, "clips a step; no more than the smallest training set"]
    learning_rate: Annotated[Tunable, POSITIVE, "peak of the schedule"]
    warmup_steps: Annotated[int, COUNT, "steps until the peak; cut to fewer than all"]
    weight_decay: Annotated[Tunable, NOT_NEGATIVE, "of kernels, decoupled"]
    clip_norm: Annotated[Tunable, POSITIVE, "global norm that gradients are clipped to"]


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training clips on the device."""

    mirror: Annotated[Tunable, SHARE, "probability of a left-right flip"]
    magnitude: Annotated[Tunable, NOT_NEGATIVE, "standard deviation of the log of a random gain on the motion"]
    noise: Annotated[Tunable, NOT_NEGATIVE, "standard deviation of noise on the normalised features"]
    frame_drop: Annotated[Tunable, RATE, "probability that a frame is hidden"]
    mixup: Annotated[Tunable, NOT_NEGATIVE, "alpha of the Beta distribution by which clips are mixed; 0: not at all"]


@dataclasses.dataclass(frozen=True)
class ProtocolConfig:
    """The split into folds, and the confidence interval."""

    split: Annotated[
        str,
        OneOf(("loso", "group", "stratified_group", "stratified", "dataset", "part", "all")),
        "loso: one subject; group: groups of subjects; stratified_group: the same, classes alike; stratified: clips by "
        "class, NOT subject-independent; dataset: whole corpora; part: official parts; all: one fold that tests nobody",
    ]
    folds: Annotated[int, Between(2, 2**31 - 1), "folds of the kinds that have a number of them"]
    seed: Annotated[int, COUNT, "of the kinds that are drawn"]
    test: Annotated[
        tuple[str, ...], Distinct(NotEmpty()), "corpora or parts tested, none of them trained on; empty: each in turn"
    ]
    bootstrap: Annotated[int, Between(10, 10**7), "resamples of subjects for the interval"]


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How members are placed on devices. Nothing here changes the results."""

    mode: Annotated[
        str,
        OneOf(("sharded", "pmap", "data")),
        "sharded: members over devices; pmap: the same by jax.pmap; data: the clips of a step over devices",
    ]
    cpu_devices: Annotated[int, Between(0, 1024), "devices that the CPU is split into; 0: one a core"]
    members_per_chunk: Annotated[int, COUNT, "members in one program, per device; 0: as many as the memory plan gives"]
    steps_per_dispatch: Annotated[int, AT_LEAST_ONE, "steps between two returns to Python"]


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """How often the state for resuming is saved, and what else is saved."""

    every_s: Annotated[float, NOT_NEGATIVE, "seconds between saves of the state"]
    keep: Annotated[int, Between(1, 1000), "states kept"]
    history: Annotated[bool, ANY, "record predictions of held-out clips after every dispatch; only the report reads it"]


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run."""

    seeds: Annotated[tuple[int, ...], Distinct(COUNT, 1), "one ensemble member a seed and fold"]
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


class Setting(NamedTuple):
    """One setting as the dataclasses describe it."""

    key: str  # dotted
    type: Any
    rule: Rule
    meaning: str


def settings(cls: type = Config, prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of `cls` in order, group by group."""
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from settings(cast(type, hint), f"{prefix}{name}.")
        else:
            kind, rule, meaning = get_args(hint)
            yield Setting(prefix + name, kind, rule, meaning)


def from_config_dict(tree: Any, cls: type[T] = Config, path: str = "config") -> T:
    """Convert a (possibly nested) mapping into the frozen dataclass `cls`.

    Raises:
      UserError: an unknown key, a missing one, or a value of the wrong type; the key is named.
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
        return from_config_dict(value, cast(type, hint), path)
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


# Defaults for keys that are newer than some stored runs and exported networks: how those were computed.
LATER = {
    "motion": {"window_ms": 500.0, "hop_ms": 40.0},
    "graph": {"nodes": []},
    "distil": {"teacher": "", "weight": 0.5, "temperature": 2.0},
}


def completed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored settings of a run or of a sweep, with the keys of `LATER` added where they are missing."""
    if "settings" in tree:
        return {**tree, "settings": completed(tree["settings"])}
    return {**tree, **{group: {**values, **tree.get(group, {})} for group, values in LATER.items()}}


def tunable_keys() -> tuple[str, ...]:
    """List the dotted keys of the numbers that may differ between the members of one program."""
    return tuple(setting.key for setting in settings() if setting.type == Tunable)


def get(config: Any, key: str) -> Any:
    """Return the value of a dotted key."""
    for part in key.split("."):
        config = getattr(config, part)
    return config


def replace(config: T, values: Mapping[str, Any]) -> T:
    """Return the config with new values for some dotted keys; values are not converted, so they may be traced."""
    for key, value in values.items():
        first, _, rest = key.partition(".")
        inner = replace(getattr(config, first), {rest: value}) if rest else value
        config = dataclasses.replace(cast(Any, config), **{first: inner})
    return config


def is_off(value: Tunable) -> bool:
    """Return whether a rate is known to be zero, so that the step it controls can be left out of the program."""
    return isinstance(value, float) and value <= 0


def to_dict(config: Any) -> dict[str, Any]:
    """Convert the config to plain dicts, lists and values, ready for JSON."""
    return {
        key: to_dict(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for key, value in vars(config).items()
    }
