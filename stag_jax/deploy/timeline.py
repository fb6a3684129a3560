"""Draw the timeline of a recording: scores over time, the expressions found, and gaps without predictions."""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stag_jax.deploy import overlay
from stag_jax.deploy.record import Outcome
from stag_jax.deploy.results import Gap, Interval, Score
from stag_jax.files import write_atomically

COLUMNS = 1200  # points of a curve, about as many as the picture has pixel columns
TRACKS = 6  # largest number of faces drawn, those with the most windows
SHOWN_UNITS = 3  # largest number of action units in a label ...
SURE = 0.5  # ... each with a probability above this
WIDTH = 11.0  # inches
SIDE = (0.75, 2.0)  # inches left and right of the axes
LETTERS = 7.5  # font size of a label, points
LABEL_ROWS = 2
DPI = 150
INK, MUTED = "#1b1c1d", "#8a8d91"
STYLE = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "font.size": 9,
    "grid.color": MUTED,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
}


def draw(path: Path, outcome: Outcome) -> Path:
    """Draw the timeline into a file, atomically; return its path."""
    with matplotlib.rc_context(STYLE):
        drawn = figure(outcome)
        with write_atomically(path) as temporary:
            # Without date and version, so that the same figure gives the same bytes.
            drawn.savefig(temporary, dpi=DPI, facecolor="white", metadata={"Software": None})
    return path


def figure(outcome: Outcome) -> Figure:
    """Return a figure with a panel per face and one of movement. Areas show expression scores, coloured by emotion.

    Windows are drawn at their middle. Of windows in the same column of the picture the one with the largest score is
    drawn. Where expressions are too dense, some have no label.
    """
    tracks = shown_tracks(outcome)
    panels = max(len(tracks), 1)
    height = 0.9 + 1.75 * panels + 1.25
    drawn = Figure(figsize=(WIDTH, height))
    axes = drawn.subplots(panels + 1, 1, sharex=True, squeeze=False, height_ratios=[*[1.75] * panels, 1.05])[:, 0]
    drawn.subplots_adjust(SIDE[0] / WIDTH, 0.5 / height, 1 - SIDE[1] / WIDTH, 1 - 0.4 / height, hspace=0.16)
    end = last_ms(outcome) / 1000
    for index in range(panels):
        track = tracks[index] if tracks else None
        _panel(axes[index], outcome, track, end)
    for track in tracks:
        time, rows = curve(outcome.scores, track, COLUMNS)
        values = np.array([np.nan if row is None else row.magnitude for row in rows])
        axes[-1].plot(time, values, color=_hex(overlay.track_colour(track), 0.8), linewidth=1, label=f"face {track}")
    axes[-1].set(ylabel="movement,\npixels", xlabel="time, seconds" if end < 120 else "time, minutes:seconds")
    axes[-1].set_ylim(bottom=0)
    axes[-1].grid(True)
    if tracks:
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.05))
    axes[-1].set_xlim(0, end)
    axes[-1].xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 3, 6, 10] if end >= 120 else [1, 2, 5, 10]))
    if end >= 120:
        axes[-1].xaxis.set_major_formatter(
            FuncFormatter(lambda second, _: f"{int(second) // 60}:{int(second) % 60:02d}")
        )
    names = [Patch(color=_hex(overlay.emotion_colour(k)), label=name) for k, name in enumerate(outcome.classes)]
    hatch = Patch(facecolor="#eeeeee", edgecolor=MUTED, hatch="////", linewidth=0, label="nothing said")
    axes[0].legend(handles=[*names, hatch], loc="upper left", bbox_to_anchor=(1.0, 1.05))
    left_out = len({track for track, _ in outcome.scores}) - len(tracks)
    note = f"; {left_out} more faces are not shown" if left_out else ""
    count = len(outcome.intervals)
    finding = "no expression" if not count else f"{count} expression{'s' if count > 1 else ''}"
    drawn.suptitle(f"{_short(outcome.source, 60)}: {finding}{note}", x=SIDE[0] / WIDTH, ha="left", fontsize=10)
    return drawn


def shown_tracks(outcome: Outcome) -> list[int]:
    """Return at most `TRACKS` faces in order of number, preferring those with expressions, then with most windows."""
    count: dict[int, int] = {}
    for track, _ in outcome.scores:
        count[track] = count.get(track, 0) + 1
    for interval in outcome.intervals:
        count[interval.track] = count.get(interval.track, 0) + len(outcome.scores)
    return sorted(sorted(count, key=lambda track: (-count[track], track))[:TRACKS])


def last_ms(outcome: Outcome) -> float:
    """Return where the time axis ends: with the recording, or with its last score, expression or gap."""
    ends = itertools.chain(
        (score.end_ms for _, score in outcome.scores),
        (interval.offset_ms for interval in outcome.intervals),
        (gap.end_ms for gap in outcome.gaps),
    )
    return max(itertools.chain((1.0, 1000 * outcome.seconds), filter(np.isfinite, ends)))


def curve(
    scores: Sequence[tuple[int, Score]], track: int, columns: int
) -> tuple[Float[np.ndarray, " s"], list[Score | None]]:
    """Return the windows of a face with the times of their middles, in seconds; None between windows that do not touch.

    Of windows in the same column the one with the largest score is kept, so that no peak is lost.

    Args:
      scores: in order of time; iterated twice, and not kept in memory.
      track: the face.
      columns: number of columns of the picture.
    """
    begin = last = None
    for number, score in scores:
        if number == track:
            begin, last = score.start_ms if begin is None else begin, score.end_ms
    if begin is None:
        return np.zeros(0), []
    span = (last - begin) / columns
    time: list[float] = []
    rows: list[Score | None] = []
    column, end = None, begin
    for score in (score for number, score in scores if number == track):
        middle = (score.start_ms + score.end_ms) / 2
        window_column = int(middle / span) if span > 0 else 0
        if score.start_ms > end and window_column != column:
            time.append((score.start_ms + end) / 2000)
            rows.append(None)
        if window_column != column:
            time.append(middle / 1000)
            rows.append(score)
        elif score.expression > rows[-1].expression:
            time[-1], rows[-1] = middle / 1000, score
        column, end = window_column, max(end, score.end_ms)
    return np.array(time), rows


def _panel(axes: Axes, outcome: Outcome, track: int | None, end: float) -> None:
    time, rows = curve(outcome.scores, track, COLUMNS) if track is not None else (np.zeros(0), [])
    if rows:
        unknown = np.full(len(outcome.classes), np.nan)
        probabilities = np.array([unknown if row is None else row.probability for row in rows], float)
        height = np.array([np.nan if row is None else row.expression for row in rows])
        edges = height[:, None] * np.concatenate([np.zeros((len(rows), 1)), np.cumsum(probabilities, axis=1)], axis=1)
        for k in range(len(outcome.classes)):
            colour = _hex(overlay.emotion_colour(k))
            axes.fill_between(time, edges[:, k], edges[:, k + 1], color=colour, alpha=0.75, linewidth=0)
        single, thick = len(time) == 1, 0.8 if len(time) < COLUMNS / 3 else 0.35
        axes.plot(time, height, color=INK, linewidth=thick, marker="o" if single else None, markersize=3)
    _gaps(axes, [gap for gap in outcome.gaps if gap.track is None or gap.track == track], end)
    _intervals(axes, [interval for interval in outcome.intervals if interval.track == track], outcome, end)
    axes.set(ylabel="expression" if track is None else f"face {track}\nexpression", ylim=(0, 1.62), yticks=[0, 0.5, 1])
    axes.spines["left"].set_bounds(0, 1)
    axes.grid(True, axis="y")
    axes.tick_params(axis="x", length=0)


def _gaps(axes: Axes, gaps: Sequence[Gap], end: float) -> None:
    """Draw gaps hatched, with the reason if it fits; gaps too close to be distinguished are merged."""
    merged: list[tuple[float, float, str]] = []
    for start, stop, reason in sorted((gap.start_ms / 1000, gap.end_ms / 1000, gap.reason) for gap in gaps):
        if merged and start - merged[-1][1] < end / COLUMNS and reason == merged[-1][2]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]), reason)
        else:
            merged.append((start, stop, reason))
    spans = [(start, max(stop - start, end / COLUMNS)) for start, stop, _ in merged]
    axes.broken_barh(spans, (0, 1), facecolor="#eeeeee", edgecolor=MUTED, hatch="////", linewidth=0, alpha=0.8)
    free = -np.inf
    for start, stop, reason in merged:
        width = _seconds(reason, end)
        if stop - start > width and start > free:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85}
            axes.text((start + stop) / 2, 0.5, reason, ha="center", va="center", fontsize=LETTERS, bbox=box)
            free = (start + stop + width) / 2


def _intervals(axes: Axes, intervals: Sequence[Interval], outcome: Outcome, end: float) -> None:
    """Draw bars from onset to offset, with a tick at the apex, and the labels that fit."""
    ordered = sorted(intervals, key=lambda each: each.onset_ms)
    spans = [
        (interval.onset_ms / 1000, max((interval.offset_ms - interval.onset_ms) / 1000, end / 400))
        for interval in ordered
    ]
    number = {name: k for k, name in enumerate(outcome.classes)}
    colours = [_hex(overlay.emotion_colour(number.get(interval.emotion, len(number)))) for interval in ordered]
    axes.broken_barh(spans, (1.06, 0.12), facecolors=colours, edgecolor="white", linewidth=0.3)
    apexes = [interval.apex_ms / 1000 for interval, (_, width) in zip(ordered, spans, strict=True) if width > end / 150]
    axes.vlines(apexes, 1.04, 1.2, color=INK, linewidth=0.8)
    taken: list[list[tuple[float, float]]] = [[] for _ in range(LABEL_ROWS)]
    # The most confident first, so that they get labels if not all fit.
    for interval in sorted(ordered, key=lambda each: -each.confidence):
        text = _label(interval, outcome.units)
        width = _seconds(text, end)
        left = min(max(interval.onset_ms / 1000, 0), max(end - width, 0))
        right = left + width + _seconds("nn", end)
        for row, others in enumerate(taken):
            if all(right <= start or stop <= left for start, stop in others):
                axes.text(left, 1.24 + 0.18 * row, text, fontsize=LETTERS, va="bottom")
                others.append((left, right))
                break


def _label(interval: Interval, units: Sequence[int]) -> str:
    probability = np.nan_to_num(interval.au_probability)
    best = sorted(np.argsort(-probability, kind="stable")[:SHOWN_UNITS].tolist())
    named = "+".join(str(units[u]) for u in best if probability[u] > SURE)
    return f"{interval.emotion} {interval.confidence:.2f}" + (f" (AU {named})" if named else "")


def _seconds(text: str, end: float) -> float:
    """Return the width of a text in seconds of the time axis."""
    return _inches(text) * end / (WIDTH - sum(SIDE))


@functools.lru_cache(1024)
def _inches(text: str) -> float:
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=LETTERS), False)[0] / 72


def _hex(colour: overlay.Colour, light: float = 1.0) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(light * value) for value in colour))


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 3] + "..."
