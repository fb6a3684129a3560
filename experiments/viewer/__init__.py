"""The local page of experiments/view.py: a Flask app that answers this machine only, and the files it serves.

The page is index.html, view.css and three modules in plain JavaScript; nothing is fetched from anywhere else.
"""

import functools
import math
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import cv2
import flask
import numpy as np
import pandas as pd
from werkzeug import serving

from stag_jax.analysis import attributions, loaded, playback
from stag_jax.analysis.loaded import LoadedRun
from stag_jax.motion import nodes
from stag_jax.types import UserError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # by which the page may be asked for
# By name, since what the machine takes a .js file for may be wrong, and browsers are strict with modules.
FILES = {"index.html": "text/html", "view.css": "text/css"}
FILES |= dict.fromkeys(("view.js", "player.js", "panels.js"), "text/javascript")
HERE = Path(__file__).parent
REMEMBERED = 32  # clips whose pictures are kept, encoded
DIGITS = 5
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # another run may be served under the same address tomorrow
}


class Shown(NamedTuple):
    """What is sent of one clip."""

    about: dict[str, Any]
    frames: bytes  # all frames as one PNG, row by row; empty where there are none
    flow: bytes  # the flow pictures likewise


def create_app(run: LoadedRun, corpora: Sequence[Path]) -> flask.Flask:
    """The app of a run; `corpora` are the folders of its prepared corpora.

    GET /api/run, /api/clips, /api/clips/<index>, /api/clips/<index>/playback, .../frames.png, .../flow.png; an error is
    JSON with the key "error" and a status of 400 or above. Indices are rows of `run.predictions`.
    """
    app = flask.Flask(__name__, static_folder=None)
    app.json.sort_keys = False
    rows = run.predictions.reset_index(drop=True)
    remembered = functools.lru_cache(maxsize=REMEMBERED)(lambda index: show(run, corpora, rows.loc[index]))
    one_at_a_time = threading.Lock()  # a second clip at once would only slow the first

    def shown(index: int) -> Shown:
        _row(rows, index)
        with one_at_a_time:
            return remembered(index)

    @app.before_request
    def refuse_strangers() -> tuple[flask.Response, int] | None:
        # A page elsewhere may point its own name at this machine and read what is served here (DNS rebinding).
        if _host_name(flask.request.headers.get("Host", "")) not in NAMES:
            return flask.jsonify(error=f"this page answers to {' and '.join(NAMES)} only"), 403
        return None

    @app.after_request
    def add_headers(response: flask.Response) -> flask.Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(UserError)
    def say(error: UserError) -> tuple[flask.Response, int]:
        return flask.jsonify(error=" ".join(str(error).split())), 422

    @app.errorhandler(404)
    @app.errorhandler(405)
    def say_not_found(error: Any) -> tuple[flask.Response, int]:
        return flask.jsonify(error=error.description), error.code

    @app.errorhandler(500)
    def say_broken(error: Any) -> tuple[flask.Response, int]:
        return flask.jsonify(error="the viewer failed at this; its terminal says where"), 500

    @app.get("/", defaults={"name": "index.html"})
    @app.get("/<name>")
    def page_file(name: str) -> flask.Response:
        if name not in FILES:
            flask.abort(404, description=f"there is no {name} here")
        return flask.Response((HERE / name).read_bytes(), mimetype=FILES[name])

    @app.get("/api/run")
    def about_run() -> flask.Response:
        return flask.jsonify(describe(run))

    @app.get("/api/clips")
    def list_clips() -> flask.Response:
        return flask.jsonify([_entry(run, row) for _, row in rows.iterrows()])

    @app.get("/api/clips/<int:index>")
    def about_clip(index: int) -> flask.Response:
        return flask.jsonify(facts(run, _row(rows, index)))

    @app.get("/api/clips/<int:index>/playback")
    def clip_playback(index: int) -> flask.Response:
        return flask.jsonify(shown(index).about)

    @app.get("/api/clips/<int:index>/<any(frames, flow):kind>.png")
    def clip_pictures(index: int, kind: str) -> flask.Response:
        data = getattr(shown(index), kind)
        if not data:
            flask.abort(404, description="the corpus has no frames")
        return flask.Response(data, mimetype="image/png")

    return app


def describe(run: LoadedRun) -> dict[str, Any]:
    """The run as a whole."""
    rows, config = run.predictions, run.config
    return {
        "name": run.folder.absolute().name,
        "dataset": config.data.dataset,
        "split": config.protocol.split,
        "model": config.model.name,
        "classes": list(run.classes),
        "subjects": sorted(set(rows["subject"])),
        "datasets": sorted(set(rows["dataset"])),
        "seeds": list(config.seeds),
        "units": list(config.graph.units),
        "nodes": list(nodes.graph(config.graph, config.motion).node_names),
        "clips": len(rows),
        "mistakes": int((rows["label"] != rows["prediction"]).sum()),
        "scores": {name: run.metrics[name] for name in ("uf1", "uar", "accuracy") if name in run.metrics},
        "notes": _notes(run),
    }


def _notes(run: LoadedRun) -> list[str]:
    notes = []
    if run.partial:
        notes.append(
            f"This run is not finished ({run.partial}): the predictions are those so far; no networks are kept yet."
        )
    if run.missing:
        notes.append(
            f"The networks of {', '.join(run.missing)} are missing: only predictions are shown of their clips."
        )
    if run.changed:
        notes.append(f"Changed since the run wrote them: {', '.join(run.changed)}.")
    return notes


def _entry(run: LoadedRun, row: pd.Series) -> dict[str, Any]:
    """One line of the list."""
    names = ("id", "dataset", "subject", "fold", "label", "prediction")
    return {"index": int(row.name), **{name: row[name] for name in names}, "p": _p(row, row["prediction"])}


def facts(run: LoadedRun, row: pd.Series) -> dict[str, Any]:
    """What the tables say of a clip, a row of `run.predictions`."""
    own = run.by_seed[run.by_seed["id"] == row["id"]]
    by_seed = [
        {"seed": int(each["seed"]), "prediction": each["prediction"], "probability": _probability(run, each)}
        for _, each in own.iterrows()
    ]
    return {
        **_entry(run, row),
        "probability": _probability(run, row),
        "by_seed": by_seed,
        "note": _no_networks(run, row),
    }


def _no_networks(run: LoadedRun, row: pd.Series) -> str:
    """Why the networks say nothing of the clip; empty where they do, and where no clip has them (`_notes`)."""
    if not run.partial and row["fold"] not in run.folds:
        return f"The networks of fold {row['fold']} are missing: only the prediction is known."
    return ""


def show(run: LoadedRun, corpora: Sequence[Path], row: pd.Series) -> Shown:
    """Everything that is played of a clip.

    Raises:
      UserError: the clip is not there, is damaged, or has no usable face.
    """
    seen = playback.playback(run, corpora, row["id"])
    said = loaded.probabilities(row.to_frame().T, run.classes)[0]
    differs = seen.probability is not None and np.abs(seen.probability - said).max() > attributions.AGREEMENT
    known = seen.features
    about = {
        "height": seen.flow_pictures.shape[1],
        "width": seen.flow_pictures.shape[2],
        "emotion": known.emotion,
        "action_units": seen.action_units,
        "times_ms": _plain(seen.times_ms),
        "raw": seen.raw.tolist(),
        "magnitude": _plain(seen.magnitude),
        "kept": seen.kept[seen.mask].tolist(),
        "kept_ms": _plain(known.times_ms[seen.mask]),
        "marks_ms": seen.marks_ms,
        "centres": _plain(seen.centres),
        "columns": _columns(len(seen.frames)),
        "flow_columns": _columns(int(seen.mask.sum())),
        "annotated": [bool(seen) if there else None for seen, there in zip(known.au, known.au_mask, strict=True)],
        "differs": bool(differs),
        **_intermediates(seen),
    }
    return Shown(about, _sheet(seen.frames), _sheet(seen.flow_pictures[seen.mask]))


def _intermediates(seen: playback.Playback) -> dict[str, Any]:
    """What the networks found, of the frames that are there; None or empty where they do not say."""
    there = seen.mask[seen.spoken]
    place = np.cumsum(seen.mask) - 1  # among the frames that are sent
    over_time = {name: seen.aux[name] for name in ("au_probability", "temporal_attention") if name in seen.aux}
    weights = playback.region_weights(seen.aux)
    return {
        "spoken": place[seen.spoken[there]].tolist(),
        "au_probability": _plain(over_time["au_probability"][there]) if "au_probability" in over_time else None,
        "au_of_clip": _plain(_sigmoid(seen.aux["au_logits"])) if "au_logits" in seen.aux else None,
        "temporal_attention": _plain(over_time["temporal_attention"][there])
        if "temporal_attention" in over_time
        else None,
        "weights": {name: _plain(each[there]) for name, each in weights.items()},
    }


def serve(app: flask.Flask, port: int, ready: Callable[[str], None]) -> None:
    """Serves until it is interrupted; `ready` gets the address once it answers. Port 0 is any that is free.

    Raises:
      UserError: the port cannot be had.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last one may have been stopped just now
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--port={port} cannot be used ({error.strerror}); name another one") from error
        listener.listen()
        server = serving.make_server(
            HOST, port, app, threaded=True, request_handler=_Quiet, fd=listener.fileno()
        )  # of a socket that is bound already, since make_server prints and exits where a port is busy
        try:
            ready(f"http://{HOST}:{server.port}/")
            server.serve_forever()
        finally:
            server.server_close()


class _Quiet(serving.WSGIRequestHandler):
    """Says nothing of requests that went well."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def _host_name(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _row(rows: pd.DataFrame, index: int) -> pd.Series:
    if not 0 <= index < len(rows):
        flask.abort(404, description=f"there is no clip number {index}; they go from 0 to {len(rows) - 1}")
    return rows.loc[index]


def _p(row: pd.Series, name: str) -> float:
    return round(float(row[f"p_{name}"]), DIGITS)


def _probability(run: LoadedRun, row: pd.Series) -> list[float]:
    return [_p(row, name) for name in run.classes]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _plain(values: np.ndarray) -> Any:
    """Nested lists of short numbers, None for NaN, which JSON does not know."""
    rounded = np.round(np.asarray(values, np.float64), DIGITS)
    return np.where(np.isfinite(rounded), rounded, None).tolist()


def _columns(count: int) -> int:
    return max(1, math.isqrt(max(count - 1, 0)) + 1)


def _sheet(pictures: np.ndarray) -> bytes:
    """Pictures [f, y, x] or RGB [f, y, x, 3] as one PNG, `_columns` a row. Lossless: movements are of one pixel."""
    count, height, width = pictures.shape[:3]
    if not count:
        return b""
    columns = _columns(count)
    lines = -(-count // columns)
    padded = np.zeros((lines * columns, *pictures.shape[1:]), np.uint8)
    padded[:count] = pictures[..., ::-1] if pictures.ndim == 4 else pictures
    grid = padded.reshape(lines, columns, *pictures.shape[1:]).swapaxes(1, 2)
    grid = grid.reshape(lines * height, columns * width, *pictures.shape[3:])
    return cv2.imencode(".png", np.ascontiguousarray(grid))[1].tobytes()
