"""Reports on the preprocessing of a corpus: a table of all clips, and contact sheets for a quick look."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from stag_jax.face.tracking import Track
from stag_jax.files import write_atomically, write_text
from stag_jax.motion import quality
from stag_jax.motion.quality import ClipReport

COLUMNS, ROWS = 4, 14  # clips on a sheet
GAP, CAPTION = 8, 28  # pixels
TRACK_COLUMNS, TRACK_ROWS, TRACK_TILE = 10, 12, 150
PAPER, INK, ALARM = (255, 255, 255), (30, 30, 30), (200, 0, 0)
DIGITS = 3


def write_table(reports: Sequence[ClipReport], path: Path) -> None:
    """Write one row per clip: columns as in `quality.ClipReport`, then `apex_error` and `doubts`.

    Marks that were not annotated are empty. `apex_error` is the found apex less the annotated one, in frames; empty
    without an annotation.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*ClipReport._fields, "apex_error", "doubts"])
    for report in reports:
        row = {name: _plain(value) for name, value in report._asdict().items()}
        row |= {name: "" for name in row if name.startswith("annotated_") and row[name] == -1}
        writer.writerow([*row.values(), _apex_error(report), "; ".join(quality.doubts(report))])
    write_text(path, text.getvalue())


def write_sheets(reports: Sequence[ClipReport], tiles: Sequence[bytes], folder: Path) -> list[Path]:
    """Write contact sheets `sheet_01.png`, ...: per clip the reference with regions, the largest movement, its flow.

    Clips with doubts have a red frame and the reason; returns the paths.
    """
    page = COLUMNS * ROWS
    paths = []
    for number, first in enumerate(range(0, len(reports), page), start=1):
        image = sheet(reports[first : first + page], tiles[first : first + page])
        path = folder / f"sheet_{number:02d}.png"
        with write_atomically(path) as temporary:
            image.save(temporary)
        paths.append(path)
    return paths


def write_track_sheet(frames: UInt8[np.ndarray, "f y x 3"], track: Track, path: Path) -> None:
    """Write evenly spaced frames of a film with their landmarks; refused frames in red, with the reason."""
    indices = np.unique(np.linspace(0, len(frames) - 1, TRACK_COLUMNS * TRACK_ROWS).round().astype(int))
    scale = TRACK_TILE / frames.shape[2]
    height = round(frames.shape[1] * scale)
    cell = TRACK_TILE + GAP, height + CAPTION // 2 + GAP
    rows = -(-len(indices) // TRACK_COLUMNS)
    canvas = Image.new("RGB", (TRACK_COLUMNS * cell[0] + GAP, rows * cell[1] + GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=11)
    for position, f in enumerate(indices.tolist()):
        x, y = GAP + position % TRACK_COLUMNS * cell[0], GAP + position // TRACK_COLUMNS * cell[1]
        canvas.paste(Image.fromarray(frames[f]).resize((TRACK_TILE, height), Image.Resampling.BOX), (x, y))
        reason = track.refused[f]
        if reason:
            draw.rectangle((x, y, x + TRACK_TILE - 1, y + height - 1), outline=ALARM, width=3)
        else:
            for px, py in track.landmarks[f] * scale:
                draw.ellipse((x + px - 1, y + py - 1, x + px + 1, y + py + 1), fill=(0, 255, 90))
        text = f"{f}: {reason}" if reason else f"{f}: {track.confidence[f]:.2f}"
        draw.text((x, y + height), _fitted(text, font, TRACK_TILE), ALARM if reason else INK, font)
    with write_atomically(path) as temporary:
        canvas.save(temporary)


def apex_errors(reports: Sequence[ClipReport]) -> Int[np.ndarray, " i"]:
    """Return the found apex less the annotated one, in frames, of the clips that have an annotated one."""
    return np.array([_apex_error(report) for report in reports if report.annotated_apex >= 0], int)


def _apex_error(found: ClipReport) -> int | str:
    return found.apex - found.annotated_apex if found.annotated_apex >= 0 else ""


def _plain(value: object) -> object:
    return round(value, DIGITS) if isinstance(value, float) else value


def sheet(reports: Sequence[ClipReport], tiles: Sequence[bytes]) -> Image.Image:
    """Draw one contact sheet of any number of clips; `tiles` are their `quality.tile` pictures as PNG or JPEG files."""
    pictures = [Image.open(io.BytesIO(tile)) for tile in tiles]
    width, height = pictures[0].width + GAP, pictures[0].height + CAPTION + GAP
    rows = -(-len(reports) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * width + GAP, rows * height + GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=11)
    for position, (report, picture) in enumerate(zip(reports, pictures, strict=True)):
        x, y = GAP + position % COLUMNS * width, GAP + position // COLUMNS * height
        canvas.paste(picture, (x, y))
        reasons = quality.doubts(report)
        if reasons:
            draw.rectangle((x - 2, y - 2, x + picture.width + 1, y + picture.height + 1), outline=ALARM, width=2)
        peak = f"frame {report.apex} of {report.frames}, {report.peak_px:.2f} px, head {report.head_px:.1f} px"
        for line, (text, colour) in enumerate(((report.id, INK), (reasons[0], ALARM) if reasons else (peak, INK))):
            draw.text((x, y + picture.height + 1 + 13 * line), _fitted(text, font, picture.width), colour, font)
    return canvas


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return the end of a text that is too long, since names of clips differ there."""
    if font.getlength(text) <= width:
        return text
    while font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text
