"""Rules of the house that no linter knows. Each checker maps {path: source} to complaints, so that it can be tested."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"stag_datasets": "datasets", "stag_configs": "configs", "stag_experiments": "experiments"}
TOP = {
    "setup.py",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "pyproject.toml",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "mkdocs.yml",
}
TOP |= {"stag_jax", "configs", "datasets", "experiments", "tests", "docs"}
LINES = 420
MAIN = 100  # lines of a script

# What each room of stag_jax may import, besides itself.
ROOMS = {"types": (), "allowed": (), "processes": (), "files": (), "config": ("types", "allowed"), "media": ("types",)}
ROOMS["face"] = ("types", "config")
ROOMS["model"] = ROOMS["protocol"] = ROOMS["motion"] = ("types", "config", "face")
ROOMS["corpora"] = ("types", "config", "files", "processes", "media", "face", "protocol", "motion")
ROOMS["training"] = (*ROOMS["corpora"], "model", "corpora")
ROOMS["analysis"] = ROOMS["deploy"] = (*ROOMS["training"], "training")
ROOMS["viewer"] = (*ROOMS["analysis"], "analysis")
# Modules of training that only training knows: reports and video ask trained networks by `training/trained.py`.
INSIDE = {"fold", "stepping", "optim", "members", "layout", "augment"}
ONLY_IN = {"dlib": "stag_jax/face/landmarks.py", "orbax": "stag_jax/training/checkpoint.py"}
ONLY_IN |= {"jinja2": "stag_jax/analysis/page/__init__.py", "flask": "stag_jax/viewer/__init__.py"}
ONLY_IN |= {"torch": "experiments/benchmarks/torch_reference.py", "submitit": "experiments/parts/launch.py"}
ONLY_IN |= {"jax2onnx": "stag_jax/deploy/onnx_file.py", "onnx": "stag_jax/deploy/onnx_file.py"}
ONLY_IN |= {"tensorflow": "stag_jax/deploy/litert.py"}
EXPORTING = {
    "portable.py",
    "exporting.py",
    "onnx_file.py",
    "litert.py",
}  # of stag_jax/deploy: those that make what runs elsewhere
NOWHERE = {"keras"}


def sources():
    paths = [path for folder in ("stag_jax", *FOLDERS.values()) for path in (ROOT / folder).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def imports(path, source):
    """Full dotted names of all that is imported anywhere in the file."""
    package = path.split("/")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def check_rooms(files):
    """Imports in stag_jax run downwards."""
    for path, source in files.items():
        if not path.startswith("stag_jax/") or path == "stag_jax/__init__.py":
            continue
        room = path.split("/")[1].removesuffix(".py")
        for name in imports(path, source):
            parts = name.split(".")
            if parts[0] in ("stag_datasets", "datasets", "stag_experiments", "experiments", "stag_configs", "configs"):
                yield f"{path} imports {name}"
            elif parts[0] == "stag_jax" and room not in ROOMS:
                yield f"{path} is in no known room"
            elif parts[0] == "stag_jax" and parts[1] != room and parts[1] not in ROOMS[room]:
                yield f"{path} imports {name}"
            elif room in ("analysis", "deploy") and parts[:2] == ["stag_jax", "training"] and parts[2] in INSIDE:
                yield f"{path} imports {name}"


def check_outside(files):
    """Corpora and settings do not need the library; some libraries have one place, some none."""
    for path, source in files.items():
        for name in imports(path, source):
            first = name.split(".")[0]
            if path.startswith("datasets/") and first in ("stag_jax", "stag_configs", "stag_experiments"):
                yield f"{path} imports {name}"
            if path.startswith("configs/") and first not in ("ml_collections", "stag_configs"):
                yield f"{path} imports {name}"
            if first in NOWHERE or path != ONLY_IN.get(first, path):
                yield f"{path} imports {name}"


def check_runtime(files):
    """What looks at recordings needs nothing of training: an exported network runs without these packages."""
    for path, source in files.items():
        name = path.removeprefix("stag_jax/deploy/")
        if name == path or name in EXPORTING:
            continue
        for node in ast.parse(source).body:  # `recognition.from_run` asks for training when it is called
            if isinstance(node, ast.Import | ast.ImportFrom):
                for each in imports(path, ast.unparse(node)):
                    if each.startswith("stag_jax.training.") and not each.startswith("stag_jax.files."):
                        yield f"{path} imports {each}"


def check_docstrings(files):
    """Packages everywhere, and public functions, classes and methods of stag_jax, say what they are."""
    for path, source in files.items():
        tree = ast.parse(source)
        if not ast.get_docstring(tree):
            yield f"{path} has no docstring"
        if path.startswith("stag_jax/"):
            classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
            for node in [*tree.body, *(member for group in classes for member in group.body)]:
                named = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
                if named and not ast.get_docstring(node):
                    yield f"{path}: {node.name} has no docstring"


def check_length(files):
    """No file is longer than what a reader keeps in mind."""
    for path, source in files.items():
        if source.count("\n") > LINES:
            yield f"{path} has more than {LINES} lines"


def check_mains(files):
    """Scripts are short; what they share is `cli.py`, with the signals, and in packages."""
    for path, source in files.items():
        *folder, name = path.split("/")
        if folder == ["experiments"] and name not in ("cli.py", "interrupts.py") and source.count("\n") > MAIN:
            yield f"{path} has more than {MAIN} lines"


def check_names(files):
    """No two files, and no two public classes, of stag_jax and experiments have one name."""
    known = {}
    for path, source in files.items():
        if path.split("/")[0] not in ("stag_jax", "experiments"):
            continue
        name = path.rsplit("/", 1)[1]
        classes = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
        for each in [name] * (name != "__init__.py") + [name for name in classes if not name.startswith("_")]:
            other = known.setdefault(each, path)
            if other != path:
                yield f"{path} has a name of {other}: {each}"


def check_top(entries):
    """The root of the repository holds nothing but the known entries."""
    yield from (entry for entry in sorted(set(entries)) if entry not in TOP and not entry.startswith("."))


@pytest.mark.parametrize(
    "check", [check_rooms, check_outside, check_runtime, check_docstrings, check_length, check_names, check_mains]
)
def test_the_house_is_in_order(check):
    files = sources()
    assert {"stag_jax/types.py", "configs/base.py", "datasets/corpus.py", "experiments/train.py"} <= set(files)
    assert list(check(files)) == []


def test_tests_are_short_too():
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
    assert list(check_length(files)) == []


def test_the_root_holds_what_is_known():
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    entries = {line.split("/")[0] for line in listed.splitlines()}
    assert "setup.py" in entries
    assert list(check_top(entries)) == []


DOCUMENTED = '"""It."""\n'
PLANTED = [
    (check_rooms, "stag_jax/model/stag.py", "from stag_jax.training import fold"),
    (check_rooms, "stag_jax/model/stag.py", "from stag_jax.motion.nodes import graph"),
    (check_rooms, "stag_jax/model/stag.py", "from ..protocol import metrics"),
    (check_rooms, "stag_jax/protocol/metrics.py", "def f():\n    from stag_jax import model"),
    (check_rooms, "stag_jax/face/regions.py", "import stag_jax.motion.optical_flow"),
    (check_rooms, "stag_jax/config.py", "from stag_jax import face"),
    (check_rooms, "stag_jax/types.py", "from stag_jax.config import Config"),
    (check_rooms, "stag_jax/media.py", "from stag_jax.config import Config"),
    (check_rooms, "stag_jax/motion/optical_flow.py", "from stag_jax.media import read_image"),
    (check_rooms, "stag_jax/deploy/app.py", "from stag_jax.analysis import report"),
    (check_rooms, "stag_jax/analysis/report.py", "from stag_jax import deploy"),
    (check_rooms, "stag_jax/training/loop.py", "from stag_datasets import corpus"),
    (check_rooms, "stag_jax/attic/old.py", "from stag_jax import types"),
    (check_rooms, "stag_jax/analysis/report.py", "from stag_jax.training import fold"),
    (check_rooms, "stag_jax/deploy/exporting.py", "from stag_jax.training.stepping import train"),
    (check_outside, "datasets/synth_me/labels.py", "from stag_jax.types import Clip"),
    (check_outside, "configs/base.py", "import numpy as np"),
    (check_outside, "stag_jax/motion/optical_flow.py", "import dlib"),
    (check_outside, "stag_jax/training/loop.py", "from orbax import checkpoint"),
    (check_outside, "experiments/train.py", "import tensorflow as tf"),
    (check_outside, "stag_jax/deploy/exporting.py", "def f():\n    import tensorflow"),
    (check_outside, "stag_jax/deploy/litert.py", "import keras"),
    (check_outside, "stag_jax/training/loop.py", "import torch"),
    (check_outside, "stag_jax/deploy/artefact.py", "def f():\n    import jax2onnx"),
    (check_runtime, "stag_jax/deploy/scan.py", "from stag_jax.training import trained"),
    (check_docstrings, "datasets/new/__init__.py", "x = 1"),
    (check_docstrings, "stag_jax/face/regions.py", DOCUMENTED + "def table():\n    return 1"),
    (check_docstrings, "stag_jax/face/regions.py", DOCUMENTED + "class Table:\n    x = 1"),
    (
        check_docstrings,
        "stag_jax/face/regions.py",
        DOCUMENTED + 'class T:\n    """It."""\n    def rows(self):\n        pass',
    ),
    (check_mains, "experiments/train.py", "\n" * 101),
    (check_length, "stag_jax/model/stag.py", "\n" * (LINES + 1)),
]


@pytest.mark.parametrize("check, path, source", PLANTED)
def test_a_planted_fault_is_found(check, path, source):
    (complaint,) = check({path: source})
    assert complaint.startswith(path)


@pytest.mark.parametrize("path", ["experiments/flow.py", "stag_jax/deploy/optical.py"])
def test_names_that_are_taken_are_found(path):
    files = {
        "stag_jax/motion/flow.py": "class Field:\n    pass",
        path: "class Field:\n    pass\nclass Other:\n    pass",
    }
    found = list(check_names(files))
    assert found[-1] == f"{path} has a name of stag_jax/motion/flow.py: Field" and len(found) == 1 + path.endswith(
        "flow.py"
    )


def test_what_is_allowed_is_not_complained_about():
    files = {
        "stag_jax/motion/nodes.py": DOCUMENTED + "from stag_jax.face import regions\nfrom stag_jax.types import Clip",
        "stag_jax/training/loop.py": DOCUMENTED + "from stag_jax import config as c\nfrom stag_jax.model import stag",
        "stag_jax/face/landmarks.py": DOCUMENTED + "import dlib\ndef _private():\n    pass",
        "stag_jax/deploy/recognition.py": DOCUMENTED
        + "from stag_jax import media\ndef _f():\n    from stag_jax.training import x",
        "stag_jax/deploy/litert.py": DOCUMENTED + "def _f():\n    import tensorflow as tf",
        "stag_jax/deploy/film.py": DOCUMENTED + "from stag_jax.files import write_text",
        "stag_jax/training/checkpoint.py": DOCUMENTED + "from orbax.checkpoint import v1",
        "datasets/corpus.py": DOCUMENTED + "import tensorflow_datasets as tfds\nfrom stag_datasets import corpus",
        "configs/base.py": DOCUMENTED + "from ml_collections import ConfigDict\nfrom stag_configs import base",
        "experiments/train.py": DOCUMENTED + "from stag_jax.deploy import x\nfrom stag_datasets import corpus",
    }
    for check in (check_rooms, check_outside, check_runtime, check_docstrings, check_length, check_names, check_mains):
        assert list(check(files)) == []
    assert list(check_top(["setup.py", ".gitignore", "stag_jax", "notes.txt"])) == ["notes.txt"]
