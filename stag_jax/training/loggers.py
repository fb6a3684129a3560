"""Log a run: one JSON line a dispatch in log.jsonl, and a progress bar."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stag_jax.files import write_text


class RunLog:
    """A log file, log.jsonl; on resuming, lines of steps that will be repeated are removed first. Close it after use.

    Without a path, as in all processes but the first, nothing is written.
    """

    def __init__(self, path: Path | None, resumed_step: int) -> None:
        self._file = None
        if path is None:
            return
        kept = [line for line in _complete_lines(path) if line["step"] <= resumed_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, elapsed_s: float, metrics: dict[str, np.ndarray]) -> None:
        """Append one line: the mean of each metric over members, and the largest loss of a member.

        Each metric is an array [m] over members; `elapsed_s` is in seconds.
        """
        if self._file is None:
            return
        line: dict[str, Any] = {"step": step, "elapsed_s": round(elapsed_s, 3)}
        line |= {name: float(f"{np.mean(value):.6g}") for name, value in sorted(metrics.items())}
        line["loss_max"] = float(f"{np.max(metrics['loss']):.6g}")
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break  # cut off by a kill; the steps from here on are repeated
    return lines


def progress(total: int, done: int, *, hidden: bool) -> tqdm:
    """Make the progress bar of a run: steps, steps/s and time left; the loop adds the loss."""
    return tqdm(total=total, initial=done, desc="training", unit="step", disable=hidden)
