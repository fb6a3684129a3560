"""The clips of a run, to look at: python experiments/view.py --workdir=DIR [--port=8765] [--nobrowser].

Serves a page on this machine only: every tested clip with its aligned face as a film, flow, attention, action units and
prediction. Ctrl-C ends it.
"""

import stag_experiments.interrupts  # noqa: F401

import contextlib
import dataclasses
import importlib.util
import os
import sys
import webbrowser

from absl import flags

from stag_experiments import cli
from stag_jax.analysis import load_run, require_clips
from stag_jax.training import workdir
from stag_jax.types import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run, finished or not.")
cli.data_flags()
PORT = flags.DEFINE_integer("port", 8765, "Where the page is served; 0: any that is free.", 0, 65535)
BROWSER = flags.DEFINE_bool("browser", True, "Open the page, where there is a screen.")


def main() -> None:
    """Load the run and serve the page until interrupted."""
    folder = cli.read_workdir(WORKDIR)
    if not importlib.util.find_spec("flask"):
        raise UserError('the viewer needs Flask, which the extra "view" brings: pip install -e ".[view]"')
    from stag_jax import viewer

    run = load_run(folder)
    config, prepared = cli.find(run.config)
    run = dataclasses.replace(run, config=config)
    require_clips(run.folder, prepared)
    workdir.keep_programs(folder)
    with contextlib.suppress(KeyboardInterrupt):
        viewer.serve(viewer.create_app(run, prepared), PORT.value, _tell)


def _tell(address: str) -> None:
    print(f"{address}  (Ctrl-C stops)", flush=True)
    screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    # Without a screen, a text browser would open in this terminal.
    if BROWSER.value and screen:
        webbrowser.open(address)


if __name__ == "__main__":
    cli.run(main)
