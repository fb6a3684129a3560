"""Diagrams of the documentation as SVG: packages and what they import, and the blocks of the network.

The text is read from the code (imports, docstrings, shapes, parameter counts). Only positions are chosen here. A new
package or block without a position is an error, so a diagram cannot become incomplete without notice.
"""

import ast
import textwrap
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stag_jax.config import Config
from stag_jax.model import network
from stag_jax.motion import nodes
from stag_jax.types import ClipBatch

ROOT = Path(__file__).parents[2]
INSTALLED = {"stag_datasets": "datasets", "stag_configs": "configs", "stag_experiments": "experiments"}
BASE = "base"  # the modules of stag_jax that are in no package, drawn as one box
WIDTH = 900  # of both diagrams, pixels
SHORT = 12  # letters of a clause that says too little alone
TIMES = "\u00d7"
INK, PALE, LINE, DATA = "#1b2733", "#eef3f8", "#5b6b7a", "#a15c00"


class DiagramBox(NamedTuple):
    """A box with a title and lines of text; x, y is the middle of its upper edge, pixels."""

    x: float
    y: float
    title: str
    lines: tuple[str, ...]
    width: float = 225.0

    @property
    def height(self) -> float:
        """Height in pixels, from the number of lines."""
        return 34.0 + 15.0 * len(self.lines)


class Arrow(NamedTuple):
    """An arrow between two boxes, by name."""

    start: str
    end: str
    kind: str = "down"  # from bottom to top; "side": from side to side; "data": from bottom to side, dashed
    text: str = ""


# Middle of each box (x) and its row.
ROOMS = {
    "experiments": (450, 0),
    "configs": (130, 1),
    "viewer": (370, 1),
    "datasets": (770, 1),
    "analysis": (320, 2),
    "deploy": (560, 2),
    "training": (420, 3),
    "corpora": (495, 4),
    "motion": (495, 5),
    "protocol": (772, 5),
    "model": (200, 6),
    "face": (495, 6),
    BASE: (450, 7),
}
ROW = 122.0


def imports(root: Path = ROOT) -> dict[str, set[str]]:
    """Return, for each package, the packages that it imports anywhere, read from the source below `root`."""
    packages = {path.parent.name for path in (root / "stag_jax").glob("*/__init__.py")}
    found: dict[str, set[str]] = {name: set() for name in (*sorted(packages), *INSTALLED.values(), BASE)}
    for folder in ("stag_jax", *INSTALLED.values()):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).parts
            room = parts[0] if folder != "stag_jax" else parts[1] if parts[1] in packages else BASE
            if parts != ("stag_jax", "__init__.py"):  # its names are imported when asked for, from everywhere
                found[room] |= {_room(name, packages) for name in _imported(path)} - {"", room}
    return found


def _imported(path: Path) -> Iterable[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(name: str, packages: set[str]) -> str:
    first, _, rest = name.partition(".")
    if first == "stag_jax" and rest:
        second = rest.partition(".")[0]
        return second if second in packages else BASE
    return INSTALLED.get(first, "")


def direct(edges: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Return the imports that no chain of other imports implies (the transitive reduction), sorted."""

    def reach(name: str) -> set[str]:
        return edges[name].union(*map(reach, edges[name]))

    return sorted(
        (start, end)
        for start, ends in edges.items()
        for end in ends
        if not any(end in reach(between) for between in ends - {end})
    )


def rooms(root: Path = ROOT) -> str:
    """Return the diagram of packages: an arrow points to what a package imports.

    Raises KeyError for a package without a position in `ROOMS`.
    """
    edges = imports(root)
    boxes = {}
    for name in edges:
        x, row = ROOMS[name]
        if name == BASE:
            modules = sorted(path.stem for path in (root / "stag_jax").glob("[a-z]*.py"))
            lines = (", ".join(modules), "shared records and settings; files, pictures, processes")
            boxes[name] = DiagramBox(x, 14 + ROW * row, "modules without a package", lines, 420.0)
        else:
            folder = root / (name if name in INSTALLED.values() else f"stag_jax/{name}")
            boxes[name] = DiagramBox(
                x, 14 + ROW * row, folder.relative_to(root).as_posix(), _about(folder / "__init__.py")
            )
    arrows = [Arrow(start, end) for start, end in direct(edges)]
    arrows.append(Arrow("datasets", "corpora", "data", "corpora on disk"))
    return _svg("Packages of STAG-JAX and what they import", boxes, arrows, ROW * 8 - 20)


def _about(path: Path) -> tuple[str, ...]:
    """Return the first clause of a module's docstring in lines that fit a box."""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
    for end in (". ", "; ", ": "):
        clause = text.split(end)[0]
        text = clause if len(clause) > SHORT else text
    return tuple(textwrap.wrap(text.rstrip("."), 32)[:3])


def model(config: Config) -> str:
    """Return the diagram of STAG for these settings, with the shape that each block gives and its parameters.

    Raises KeyError if the settings switch off a block that is drawn.
    """
    graph = nodes.graph(config.graph, config.motion)
    net = network.make_network(config, graph)
    t, n, d, u = config.motion.frames, len(graph.node_names), len(graph.feature_mirror), len(graph.units)
    batch = ClipBatch(
        *(jnp.zeros((1, t, n, d)), jnp.zeros((1, t)), jnp.zeros((1, t)), jnp.ones((1, t), bool)),
        *(jnp.zeros((1, u)), jnp.ones((1, u), bool), jnp.zeros(1, jnp.int32)),
    )

    def apply() -> tuple[dict, dict]:
        params = network.init(net, jax.random.key(0), batch)
        _, state = net.module.apply({"params": params}, batch, graph, train=False, capture_intermediates=True)
        return params, state["intermediates"]

    params, given = jax.eval_shape(apply)
    shapes = {name: jax.tree.leaves(value["__call__"])[0].shape[1:] for name, value in given.items() if name in params}
    counts = {name: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree)) for name, tree in params.items()}
    return _blocks(config, shapes, counts, (t, n, d, u))


def _blocks(config: Config, shapes: Mapping, counts: Mapping, sizes: tuple[int, ...]) -> str:
    t, n, d, u = sizes
    layers, encoders, crosses = config.model.gat_layers, config.model.transformer_layers, config.model.cross_layers

    def block(x: float, y: float, title: str, text: str, *names: str, width: float = 255.0) -> DiagramBox:
        """Return a box; the shape is that of the last of the modules `names`, the parameters are those of all."""
        shape = f" {TIMES} ".join(map(str, shapes[names[-1]]))
        total = sum(counts[name] for name in names)
        return DiagramBox(x, y, title, (text, f"gives {shape}; {total:,} parameters"), width)

    gat, encoder = [f"gat_{i}" for i in range(layers)], [f"encoder_{i}" for i in range(encoders)]
    to_space, to_time = [f"to_space_{i}" for i in range(crosses)], [f"to_time_{i}" for i in range(crosses)]
    given = f"{t} frames {TIMES} {n} regions {TIMES} {d} numbers"
    left, right, middle = 240, 660, 450
    boxes = {
        "nodes": DiagramBox(middle, 14, "node features x[t, n]", (given,), 255.0),
        "embed": block(middle, 106, "embedding", "W x + e[n] + time code", "embed"),
        "au": block(150, 196, "action units in each frame", f"{u} units, each from its regions", "au"),
        "connectivity": block(150, 306, "dynamic connectivity B[t]", "log(ε + S + Mᵀ a C a M)", "connectivity"),
        "gat": block(middle, 306, f"E-GAT, {layers} layers", "over regions by B[t], over time", *gat),
        "over_time": block(left, 416, "spatial tokens", "attention over frames", "over_time"),
        "over_nodes": block(right, 416, "temporal tokens", "attention over regions", "over_nodes", "time_code"),
        "encoder": block(right, 512, f"transformer, {encoders} layer", "over all frames", *encoder),
        "to_space": block(left, 650, "space asks time", "cross-attention", *to_space),
        "to_time": block(right, 650, "time asks space", "cross-attention", *to_time),
        "readout": block(left, 760, "readout", "a few features of each region", "readout"),
        "pool": block(right, 760, "pooling", "attention over frames", "pool"),
        "logits": block(middle, 864, "classes", "linear, from both", "logits"),
    }
    boxes["over_nodes"] = boxes["over_nodes"]._replace(
        lines=(
            "attention over regions + time code",
            f"gives {t} {TIMES} {config.model.width}; {counts['over_nodes'] + counts['time_code']:,} parameters",
        )
    )
    drawn = {"embed", "au", "connectivity", "over_time", "over_nodes", "time_code", "readout", "pool", "logits"}
    missing = set(counts) - drawn - {*gat, *encoder, *to_space, *to_time}
    if missing:
        raise KeyError(f"blocks without a position in the diagram: {sorted(missing)}")
    arrows = [
        *(Arrow("nodes", "embed"), Arrow("embed", "gat"), Arrow("embed", "au", "side")),
        *(Arrow("au", "connectivity"), Arrow("connectivity", "gat", "side")),
        *(Arrow("gat", "over_time"), Arrow("gat", "over_nodes"), Arrow("over_nodes", "encoder")),
        *(Arrow("over_time", "to_space"), Arrow("encoder", "to_time")),
        *(Arrow("over_time", "to_time"), Arrow("encoder", "to_space")),
        *(Arrow("to_space", "readout"), Arrow("to_time", "pool"), Arrow("readout", "logits"), Arrow("pool", "logits")),
    ]
    title = f"STAG with the default settings: {sum(counts.values()):,} parameters"
    return _svg(title, boxes, arrows, 942)


def _svg(title: str, boxes: Mapping[str, DiagramBox], arrows: Iterable[Arrow], height: float) -> str:
    """Return a picture with a background of its own, so that it is legible on a page of any colour."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height:g}" rx="8" fill="#ffffff"/>',
        *(_arrow(arrow, boxes) for arrow in arrows),
        *map(_drawn, boxes.values()),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _drawn(box: DiagramBox) -> str:
    rows = [f'<text x="{box.x:g}" y="{box.y + 21:g}" font-size="14" font-weight="600">{escape(box.title)}</text>']
    for number, line in enumerate(box.lines):
        rows.append(f'<text x="{box.x:g}" y="{box.y + 38 + 15 * number:g}" font-size="12">{escape(line)}</text>')
    left = box.x - box.width / 2
    frame = f'<rect x="{left:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="6"'
    return f'{frame} fill="{PALE}" stroke="{LINE}"/>\n<g text-anchor="middle" fill="{INK}">{"".join(rows)}</g>'


def _arrow(arrow: Arrow, boxes: Mapping[str, DiagramBox]) -> str:
    start, end = boxes[arrow.start], boxes[arrow.end]
    to_right = 1 if end.x > start.x else -1
    x1, y1 = start.x, start.y + start.height
    x2, y2 = end.x - to_right * end.width / 2, end.y + end.height / 2
    if arrow.kind == "side":
        x1, y1 = start.x + to_right * start.width / 2, start.y + start.height / 2
        path = f"M{x1:g} {y1:g}L{x2:g} {y2:g}"
    elif arrow.kind == "data":
        path = f"M{x1:g} {y1:g}C{x1:g} {y2:g} {x1:g} {y2:g} {x2:g} {y2:g}"
    else:
        x1 += np.clip(end.x - start.x, -0.35 * start.width, 0.35 * start.width)
        x2, y2 = end.x + np.clip(start.x - end.x, -0.35 * end.width, 0.35 * end.width), end.y
        bend = (y2 - y1) / 2
        path = f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
    colour, dash = (DATA, ' stroke-dasharray="5 4"') if arrow.kind == "data" else (LINE, "")
    drawn = f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.4"{dash} marker-end="url(#head)"/>'
    if arrow.text:
        place = f'x="{x1 + 8:g}" y="{(y1 + y2) / 2:g}"'
        drawn += f'<text {place} font-size="12" fill="{colour}">{escape(arrow.text)}</text>'
    return drawn
