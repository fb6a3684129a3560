"""What was found in a recording, as lines of text."""

from collections.abc import Iterator, Sequence

from stag_jax.deploy import record
from stag_jax.deploy.recognition import Prediction
from stag_jax.deploy.results import Gap, Interval


def line(units: Sequence[int], interval: Interval) -> str:
    """Return one expression: face, onset, apex, offset, emotion, confidence, and the units above one half."""
    moved = " ".join(f"AU{u}" for u, p in zip(units, interval.au_probability, strict=True) if p > 0.5)
    marks = f"{interval.onset_ms / 1000:9.2f} {interval.apex_ms / 1000:9.2f} {interval.offset_ms / 1000:9.2f} s"
    return f"  face {interval.track} {marks}  {interval.emotion:10} {interval.confidence:.2f}  {moved}"


def summary(outcome: record.Outcome) -> Iterator[str]:
    """Yield the recording, its expressions, and where nothing could be said."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in outcome.dropped.items())
    rate = "" if outcome.fps is None else f", {outcome.fps:.1f} frames/s"
    yield f"{outcome.source}: {outcome.frames} frames{rate}" + (f", dropped {dropped}" if dropped else "")
    for interval in outcome.intervals:
        yield line(outcome.units, interval)
    for (track, reason), gaps in _grouped(outcome.gaps).items():
        face = "" if track is None else f"face {track}: "
        seconds = sum(gap.end_ms - gap.start_ms for gap in gaps) / 1000
        first, last = gaps[0].start_ms / 1000, max(gap.end_ms for gap in gaps) / 1000
        yield f"  nothing said for {seconds:.2f} s between {first:.2f} and {last:.2f} s: {face}{reason}"


def of_clip(prediction: Prediction) -> Iterator[str]:
    """Yield the probability of each class, then those of the action units."""
    for name, value in zip(prediction.classes, prediction.probability, strict=True):
        yield f"{name:12}{value:8.3f}"
    pairs = zip(prediction.units, prediction.au_probability, strict=True)
    yield "action units " + " ".join(f"{unit}:{value:.2f}" for unit, value in pairs)


def _grouped(gaps: Sequence[Gap]) -> dict[tuple[int | None, str], list[Gap]]:
    """Group gaps by face and reason, because a half-hidden face appears and disappears repeatedly."""
    groups: dict[tuple[int | None, str], list[Gap]] = {}
    for gap in gaps:
        groups.setdefault((gap.track, gap.reason), []).append(gap)
    return groups
