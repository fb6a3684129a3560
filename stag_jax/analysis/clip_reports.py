"""What preprocessing made of a corpus: a table of all clips, and contact sheets to judge it at a glance."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
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
    """One row a clip, columns as in `quality.ClipReport`, then `apex_error` and `doubts`.

    Marks that were not annotated are empty, and so is the distance of the apex found from the annotated one, in frames.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*ClipReport._fields, "apex_error", "doubts"])
    for found in reports:
        row = {name: _plain(value) for name, value in found._asdict().items()}
        row |= {name: "" for name in row if name.startswith("annotated_") and row[name] == -1}
        writer.writerow([*row.values(), _apex_error(found), "; ".join(quality.doubts(found))])
    write_text(path, text.getvalue())


def write_sheets(reports: Sequence[ClipReport], tiles: Sequence[bytes], folder: Path) -> list[Path]:
    """Contact sheets `sheet_01.png`, ...: of each clip the reference with the regions, the largest movement, its flow.

    Clips with doubts have a red frame and say why.
    """
    page = COLUMNS * ROWS
    paths = []
    for number, first in enumerate(range(0, len(reports), page), start=1):
        drawn = sheet(reports[first : first + page], tiles[first : first + page])
        path = folder / f"sheet_{number:02d}.png"
        with write_atomically(path) as temporary:
            drawn.save(temporary)
        paths.append(path)
    return paths


def write_track_sheet(frames: UInt8[np.ndarray, "f y x 3"], track: Track, path: Path) -> None:
    """Frames of a film, evenly spaced, with their landmarks; refused ones in red, with the reason."""
    shown = np.unique(np.linspace(0, len(frames) - 1, TRACK_COLUMNS * TRACK_ROWS).round().astype(int))
    scale = TRACK_TILE / frames.shape[2]
    height = round(frames.shape[1] * scale)
    cell = TRACK_TILE + GAP, height + CAPTION // 2 + GAP
    rows = -(-len(shown) // TRACK_COLUMNS)
    paper = Image.new("RGB", (TRACK_COLUMNS * cell[0] + GAP, rows * cell[1] + GAP), PAPER)
    draw = ImageDraw.Draw(paper)
    font = ImageFont.load_default(size=11)
    for place, f in enumerate(shown.tolist()):
        x, y = GAP + place % TRACK_COLUMNS * cell[0], GAP + place // TRACK_COLUMNS * cell[1]
        paper.paste(Image.fromarray(frames[f]).resize((TRACK_TILE, height), Image.Resampling.BOX), (x, y))
        reason = track.refused[f]
        if reason:
            draw.rectangle((x, y, x + TRACK_TILE - 1, y + height - 1), outline=ALARM, width=3)
        else:
            for px, py in track.landmarks[f] * scale:
                draw.ellipse((x + px - 1, y + py - 1, x + px + 1, y + py + 1), fill=(0, 255, 90))
        text = f"{f}: {reason}" if reason else f"{f}: {track.confidence[f]:.2f}"
        draw.text((x, y + height), _fitted(text, font, TRACK_TILE), ALARM if reason else INK, font)
    with write_atomically(path) as temporary:
        paper.save(temporary)


def apex_errors(reports: Sequence[ClipReport]) -> np.ndarray:
    """Distances in frames of the apex found from the annotated one, of the clips that have one."""
    return np.array([_apex_error(found) for found in reports if found.annotated_apex >= 0], int)


def _apex_error(found: ClipReport) -> int | str:
    return found.apex - found.annotated_apex if found.annotated_apex >= 0 else ""


def _plain(value: object) -> object:
    return round(value, DIGITS) if isinstance(value, float) else value


def sheet(reports: Sequence[ClipReport], tiles: Sequence[bytes]) -> Image.Image:
    """One contact sheet of any number of clips; `tiles` are their pictures (`quality.tile`) as PNG or JPEG files."""
    pictures = [Image.open(io.BytesIO(tile)) for tile in tiles]
    width, height = pictures[0].width + GAP, pictures[0].height + CAPTION + GAP
    rows = -(-len(reports) // COLUMNS)
    paper = Image.new("RGB", (COLUMNS * width + GAP, rows * height + GAP), PAPER)
    draw = ImageDraw.Draw(paper)
    font = ImageFont.load_default(size=11)
    for place, (found, picture) in enumerate(zip(reports, pictures, strict=True)):
        x, y = GAP + place % COLUMNS * width, GAP + place // COLUMNS * height
        paper.paste(picture, (x, y))
        reasons = quality.doubts(found)
        if reasons:
            draw.rectangle((x - 2, y - 2, x + picture.width + 1, y + picture.height + 1), outline=ALARM, width=2)
        peak = f"frame {found.apex} of {found.frames}, {found.peak_px:.2f} px, head {found.head_px:.1f} px"
        for line, (text, colour) in enumerate(((found.id, INK), (reasons[0], ALARM) if reasons else (peak, INK))):
            draw.text((x, y + picture.height + 1 + 13 * line), _fitted(text, font, picture.width), colour, font)
    return paper


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The end of a text that is too long, since names of clips differ there."""
    if font.getlength(text) <= width:
        return text
    while font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text
