"""Write the table of all clips of a corpus and their contact sheets, for `prepare.py`."""

from pathlib import Path

import numpy as np

from stag_jax.analysis import clip_reports
from stag_jax.corpora.features import Prepared
from stag_jax.motion import quality


def write(found: Prepared, folder: Path) -> None:
    """Write the table and the contact sheets, and print a summary. Called before errors, which need the report."""
    clip_reports.write_table(found.reports, folder / "clips.csv")
    sheets = clip_reports.write_sheets(found.reports, found.tiles, folder)
    doubtful = [row for row in found.reports if quality.doubts(row)]
    print(f"{folder}: clips.csv and {len(sheets)} contact sheets; {len(doubtful)} clips are worth a look")
    errors = np.abs(clip_reports.apex_errors(found.reports))
    if len(errors):
        print(f"largest movement to annotated apex: median {np.median(errors):.1f} frames ({len(errors)} clips)")
