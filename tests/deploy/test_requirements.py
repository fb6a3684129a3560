"""What looks at recordings imports no package that its list of requirements leaves out."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "stag_jax" / "deploy" / "requirements.txt"
# Packages whose modules have other names.
MODULES = {"dlib-bin": "dlib", "opencv-python-headless": "cv2", "pillow": "PIL", "absl-py": "absl"}
BROUGHT = {"ml_dtypes"}  # by jax, always
PROGRAM = """
import sys
from stag_jax.deploy import artefact, scan, plain
print(*(module.__file__ for name, module in sys.modules.items() if name.startswith("stag_jax")), sep="\\n")
"""


def imported_at_the_top(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_every_package_that_is_imported_is_listed():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=ROOT)
    names = {name for path in map(Path, done.stdout.split()) for name in imported_at_the_top(path)}
    listed = re.findall(r"^([\w-]+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    known = {MODULES.get(name, name) for name in listed} | set(sys.stdlib_module_names) | BROUGHT | {"stag_jax"}
    assert names - known == set() and {"dlib", "cv2", "jax", "filelock"} <= names
