"""The local page of experiments/view.py: a Flask app that answers this machine only, and the files it serves.

The page is index.html, view.css and three modules in plain JavaScript; nothing is fetched from other servers.
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
NAMES = (HOST, "localhost")  # host names that requests may use
# Types by name, because the system's type of .js files may be wrong, and browsers are strict with modules.
FILES = {"index.html": "text/html", "view.css": "text/css"}
FILES |= dict.fromkeys(("view.js", "player.js", "panels.js"), "text/javascript")
HERE = Path(__file__).parent
REMEMBERED = 32  # clips whose encoded pictures are cached
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
    """The data sent to the page for one clip."""

    about: dict[str, Any]
    frames: bytes  # all frames as one PNG, row by row; empty where there are none
    flow: bytes  # the flow pictures in the same form


def create_app(run: LoadedRun, corpora: Sequence[Path]) -> flask.Flask:
    """Return the app of a run; `corpora` are the folders of its prepared corpora.

    GET /api/run, /api/clips, /api/clips/<index>, /api/clips/<index>/playback, .../frames.png, .../flow.png; an error is
    JSON with the key "error" and a status of 400 or above. Indices are rows of `run.predictions`.
    """
    app = flask.Flask(__name__, static_folder=None)
    app.json.sort_keys = False
    rows = run.predictions.reset_index(drop=True)
    remembered = functools.lru_cache(maxsize=REMEMBERED)(lambda index: show(run, corpora, rows.loc[index]))
    one_at_a_time = threading.Lock()  # two clips at the same time would only slow each other

    def shown(index: int) -> Shown:
        _row(rows, index)
        with one_at_a_time:
            return remembered(index)

    @app.before_request
    def refuse_strangers() -> tuple[flask.Response, int] | None:
        # A foreign page could point its own host name at this machine and read this server (DNS rebinding).
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
    """Return the facts about the whole run."""
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
    """Return one line of the list of clips."""
    names = ("id", "dataset", "subject", "fold", "label", "prediction")
    return {"index": int(row.name), **{name: row[name] for name in names}, "p": _p(row, row["prediction"])}


def facts(run: LoadedRun, row: pd.Series) -> dict[str, Any]:
    """Return the predictions of a clip, a row of `run.predictions`, over all seeds and by seed."""
    seed_rows = run.by_seed[run.by_seed["id"] == row["id"]]
    by_seed = [
        {"seed": int(seed["seed"]), "prediction": seed["prediction"], "probability": _probability(run, seed)}
        for _, seed in seed_rows.iterrows()
    ]
    return {
        **_entry(run, row),
        "probability": _probability(run, row),
        "by_seed": by_seed,
        "note": _no_networks(run, row),
    }


def _no_networks(run: LoadedRun, row: pd.Series) -> str:
    """Return why there are no networks for the clip; empty if there are, or if no clip has any (`_notes`)."""
    if not run.partial and row["fold"] not in run.folds:
        return f"The networks of fold {row['fold']} are missing: only the prediction is known."
    return ""


def show(run: LoadedRun, corpora: Sequence[Path], row: pd.Series) -> Shown:
    """Return everything that the page shows of a clip.

    Raises:
      UserError: the clip is missing, is damaged, or has no usable face.
    """
    played = playback.playback(run, corpora, row["id"])
    run_probability = loaded.probabilities(row.to_frame().T, run.classes)[0]
    differs = (
        played.probability is not None and np.abs(played.probability - run_probability).max() > attributions.AGREEMENT
    )
    features = played.features
    about = {
        "height": played.flow_pictures.shape[1],
        "width": played.flow_pictures.shape[2],
        "emotion": features.identity.emotion,
        "action_units": played.action_units,
        "times_ms": _plain(played.times_ms),
        "raw": played.raw.tolist(),
        "magnitude": _plain(played.magnitude),
        "kept": played.kept[played.mask].tolist(),
        "kept_ms": _plain(features.times_ms[played.mask]),
        "marks_ms": played.marks_ms,
        "centres": _plain(played.centres),
        "columns": _columns(len(played.frames)),
        "flow_columns": _columns(int(played.mask.sum())),
        "annotated": [bool(au) if mask else None for au, mask in zip(features.au, features.au_mask, strict=True)],
        "differs": bool(differs),
        **_intermediates(played),
    }
    return Shown(about, _sheet(played.frames), _sheet(played.flow_pictures[played.mask]))


def _intermediates(seen: playback.Playback) -> dict[str, Any]:
    """Return the intermediates of the networks for the existing frames; None or empty if a network has none."""
    present = seen.mask[seen.spoken]
    sent_index = np.cumsum(seen.mask) - 1  # index among the frames that are sent
    per_frame = {name: seen.aux[name] for name in ("au_probability", "temporal_attention") if name in seen.aux}
    weights = playback.region_weights(seen.aux)
    return {
        "spoken": sent_index[seen.spoken[present]].tolist(),
        "au_probability": _plain(per_frame["au_probability"][present]) if "au_probability" in per_frame else None,
        "au_of_clip": _plain(_sigmoid(seen.aux["au_logits"])) if "au_logits" in seen.aux else None,
        "temporal_attention": _plain(per_frame["temporal_attention"][present])
        if "temporal_attention" in per_frame
        else None,
        "weights": {name: _plain(weight[present]) for name, weight in weights.items()},
    }


def serve(app: flask.Flask, port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; call `ready` with the address once the server answers. Port 0: any free port.

    Raises:
      UserError: the port cannot be used.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last server may have stopped just now
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--port={port} cannot be used ({error.strerror}); name another one") from error
        listener.listen()
        server = serving.make_server(
            HOST, port, app, threaded=True, request_handler=_Quiet, fd=listener.fileno()
        )  # with a bound socket, because make_server prints and exits if the port is busy
        try:
            ready(f"http://{HOST}:{server.port}/")
            server.serve_forever()
        finally:
            server.server_close()


class _Quiet(serving.WSGIRequestHandler):
    """A request handler that does not log successful requests."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing."""


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
    """Return nested lists of rounded numbers, with None for NaN, which JSON does not have."""
    rounded = np.round(np.asarray(values, np.float64), DIGITS)
    return np.where(np.isfinite(rounded), rounded, None).tolist()


def _columns(count: int) -> int:
    return max(1, math.isqrt(max(count - 1, 0)) + 1)


def _sheet(pictures: np.ndarray) -> bytes:
    """Return pictures [f, y, x] or RGB [f, y, x, 3] as one PNG, `_columns` per row; lossless: movements are small."""
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
