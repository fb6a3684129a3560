"""README and docs: their Python runs, their commands have flags that exist, their links lead somewhere."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from stag_configs import base
from stag_datasets import corpus
from stag_datasets.synth_me import render, script
from stag_experiments.benchmark import PARTS
from stag_experiments.parts import diagrams
from stag_jax.analysis import charts, drawing, load_run
from stag_jax.config import from_config_dict
from stag_jax.deploy import TO_TRY
from stag_jax.training import loop
from tests import films, makers

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "datasets").glob("*/README.md"))
SCRIPTS = {path.stem for path in (ROOT / "experiments").glob("*.py")} - {"__init__", "cli", "interrupts"}
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
# A script, the part of a benchmark, and flags: on a line of its own or in backquotes.
COMMAND = re.compile(r"\b(\w+)\.py((?: [a-z]+)?)((?: \[?--[^`\n|]*)?)")
OUTPUT = re.compile(r"^error: .*$", re.MULTILINE)  # a message that a page shows
# Parses command lines by the flags that each script defines. A script is imported in a process of its own, and each
# line is parsed in another, because ml_collections defines the flags of overrides from sys.argv.
PARSER = """
import importlib, json, os, sys
from absl import flags
from stag_experiments import benchmark, cli
from stag_jax.analysis import report

def apart(work, *arguments):
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            work(*arguments)
        except BaseException as error:
            print(f"{arguments[0]}.py {' '.join(arguments[-1])}: {str(error).splitlines()[0]}")
        sys.stdout.flush()
        os._exit(0)
    os.wait()

def parse(name, words):
    sys.argv = [name, *words]
    rest = flags.FLAGS(sys.argv)[1:]
    if "config" in flags.FLAGS and flags.FLAGS.config is not None:
        flags.FLAGS.config.keys()  # a file that could not be read is told of here
    assert not rest, f"no flags: {rest}"

def parse_all(name, part, lines):
    if part:
        importlib.import_module(f"{benchmark.PACKAGE}.{benchmark.PARTS[part][0]}").define_flags()
    else:
        importlib.import_module(f"stag_experiments.{name}")
    for words in lines:
        apart(parse, name, words)

for request in json.load(sys.stdin):
    apart(parse_all, *request)
print("all parsed")
"""


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def python_blocks(path):
    """(line, source) of each block."""
    text = path.read_text(encoding="utf-8")
    return [(text[: match.start(1)].count("\n"), match[1]) for match in PYTHON.finditer(text)]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The folder of a user who has followed the quickstart, with a small made-up study in place of the rendered one."""
    root = tmp_path_factory.mktemp("quickstart")
    archive = makers.write_composite(root / "archive")
    built = corpus.build("composite_flow", data_dir=root / "data", manual_dir=archive)
    config = makers.tiny_config(data__data_dir=str(root / "data"), train__steps=10, protocol__bootstrap=10)
    with jax.numpy_dtype_promotion("standard"):
        loop.run(config, root / "runs" / "synth_me", built)
    folder = root / "data" / "synth_me" / "default"
    folder.mkdir(parents=True)
    (folder / "1.1.0").symlink_to(built, target_is_directory=True)
    run = load_run(root / "runs" / "synth_me")
    confusion = np.asarray(run.metrics["confusion"])
    figures = run.folder / "report" / "figures"
    figures.mkdir(parents=True)
    drawing.save(charts.confusion_figure(confusion, run.classes), figures / "confusion")
    (root / "stablehlo-int8.stag").symlink_to(TO_TRY)
    (root / "recordings").mkdir()  # the twin of docs/your-own-corpus.md
    recipe = corpus.builder("synth_me/tiny", data_dir="").builder_config.recipe
    frames = render.render_clip(script.subject_clips(recipe, 0)[0]).frames[:5]
    films.write(root / "clip.mp4", frames, codec="mpeg4", pixels="yuv420p", rate=100)
    return root


@pytest.mark.parametrize("path", [path for path in PAGES if python_blocks(path)], ids=name_of)
def test_python_runs_as_shown(path, quickstart, monkeypatch):
    monkeypatch.chdir(quickstart)
    names = {"__name__": "__main__"}
    with jax.numpy_dtype_promotion("standard"):
        for line, source in python_blocks(path):
            exec(compile("\n" * line + source, path, "exec"), names)
    if "probability" in names:
        np.testing.assert_allclose(names["probability"].sum(axis=1), 1, atol=1e-5)


def commands(text):
    """Yield (script, part of a benchmark, arguments) of each command line in a text."""
    for name, part, flags in COMMAND.findall(OUTPUT.sub("", text)):
        if name in SCRIPTS and (flags or part.strip() in PARTS):
            # Brackets are around what may be missing; `...` and NAME stand for any study.
            words = shlex.split(flags.replace("[", " ").replace("]", " "), comments=True)
            words = [word.replace("=...", "=configs/base.py").replace(":NAME", ":synth_me") for word in words]
            words = [word for word in words if word not in ("--help", "--flags", "...", ".")]
            yield name, part.strip() if name == "benchmark" else "", words


def test_commands_are_told_from_text():
    text = "`train.py --config=... --workdir=DIR` and\n`benchmark.py soak --out=DIR # slow`; see stag.py --x, train.py"
    assert list(commands(text)) == [
        ("train", "", ["--config=configs/base.py", "--workdir=DIR"]),
        ("benchmark", "soak", ["--out=DIR"]),
    ]


def parse(lines):
    """Returns what is wrong with command lines, and whether all were looked at."""
    by_script = {}
    for name, part, words in lines:
        known = by_script.setdefault((name, part), [])
        known += [words] * (words not in known)
    request = json.dumps([[name, part, each] for (name, part), each in by_script.items()])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PARSER], input=request, capture_output=True, text=True, cwd=ROOT
    )
    *faults, last = done.stdout.splitlines() or [done.stderr]
    assert last == "all parsed", done.stdout + done.stderr
    return faults


def test_every_command_has_flags_that_exist():
    texts = [path.read_text(encoding="utf-8") for path in PAGES]
    for path in (*(ROOT / "configs").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")):
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        shown = [line.replace("--config=FILE", "") for line in re.findall("python experiments/.*", about)]
        texts += [re.sub(r"(?<!\.)\.$|(?<=\.{3})\.$", "", line) for line in shown]  # the sentence's full stop
    lines = [line for text in texts for line in commands(text)]
    assert len(lines) > 80 and {name for name, _, _ in lines} == SCRIPTS
    wrong = [
        ("predict", "", ["--vidio=FILE"]),
        ("train", "", ["--config=configs/base.py", "--config.model.widht=8"]),
        ("sweep", "", ["--config=configs/sweeps/missing.py"]),
        ("benchmark", "soak", ["--workdir=DIR", "--steps=4"]),
    ]
    faults = parse([*lines, *wrong])
    assert [fault for fault in faults if not any(" ".join(words) in fault for *_, words in wrong)] == []
    assert len(faults) == len(wrong)


def slug(heading):
    """The anchor of a heading, by the rules of GitHub and of mkdocs where they agree."""
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[\s]+", "-", plain)


def broken(path, text):
    """Yield the links of a page that lead nowhere."""
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        missing = file != path and not file.is_file()
        if missing or (path.is_relative_to(ROOT / "docs") and not file.is_relative_to(ROOT / "docs")):
            yield f"{name_of(path)}: {target}"
        elif anchor:
            there = text if file == path else file.read_text(encoding="utf-8")
            included = re.sub(r'--8<-- "(.*)"', lambda match: (ROOT / match[1]).read_text(encoding="utf-8"), there)
            if anchor not in map(slug, HEADING.findall(FENCE.sub("", included))):
                yield f"{name_of(path)}: {target}"


def test_links_lead_somewhere():
    assert [fault for path in PAGES for fault in broken(path, path.read_text(encoding="utf-8"))] == []
    text = "## Own corpus\n[a](start.md) [b](missing.md) [c](start.md#nowhere) [d](#own-corpus) [e](../README.md)"
    faults = list(broken(ROOT / "docs" / "new.md", text))
    assert faults == [f"docs/new.md: {link}" for link in ("missing.md", "start.md#nowhere", "../README.md")]


def test_readme_is_short_and_leads_to_what_a_newcomer_wants():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    wanted = {"start.md", "outputs.md#resuming", "corpus.md", "video.md", "scripts.md#load-checkpoints"}
    assert {f"docs/{page}" for page in wanted} <= set(LINK.findall(text))


def test_diagrams_show_the_code_as_it_is():
    config = from_config_dict(base.get_config())
    for name, drawn in {"rooms.svg": diagrams.rooms(), "model.svg": diagrams.model(config)}.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == drawn, "run experiments/figures.py --out=docs"


def test_implied_imports_are_not_drawn():
    edges = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set(), "e": {"d"}}
    assert diagrams.direct(edges) == [("a", "b"), ("b", "c"), ("c", "d"), ("e", "d")]


def test_the_citation_is_of_this_version():
    version = re.search(r'version="(.*)"', (ROOT / "setup.py").read_text(encoding="utf-8"))[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
