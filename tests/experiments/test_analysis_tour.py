"""The notebook, executed as a newcomer would, on a small run."""

import os
import sys
from pathlib import Path

import jax
import nbclient
import nbformat
import pytest

from stag_datasets import corpus
from stag_jax.training import loop
from tests import makers

NOTEBOOK = Path(__file__).parents[2] / "experiments" / "analysis_tour.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook with its outputs."""
    root = tmp_path_factory.mktemp("tour")
    archive = makers.write_composite(root / "archive")
    prepared = corpus.build("composite_flow", data_dir=root, manual_dir=archive)
    config = makers.tiny_config(data__data_dir=str(root), data__manual_dir=str(archive), seeds=(0, 3))
    with jax.numpy_dtype_promotion("standard"):
        loop.run(config, root / "run", prepared)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    before = os.environ.get("STAG_WORKDIR")
    os.environ["STAG_WORKDIR"] = str(root / "run")
    try:
        client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(root)}})
        client.create_kernel_manager()
        # This interpreter, whatever kernels are installed beside it.
        client.km.kernel_spec.argv[0] = sys.executable
        client.execute()
    finally:
        os.environ.pop("STAG_WORKDIR")
        if before is not None:
            os.environ["STAG_WORKDIR"] = before
    return notebook


def printed(notebook):
    """All that it has printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not any(output["output_type"] == "error" for output in outputs)
    return "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")


def test_it_runs_from_the_first_cell_to_the_last(executed):
    text = printed(executed)
    assert "stag on composite_flow - 35 clips, 5 folds" in text
    one, other = text.partition("accuracy ")[2].split("\n")[0].split(", and metrics.json says ")
    assert one == other
    assert float(text.partition("largest difference from predictions.csv: ")[2].split()[0]) < 1e-5
    assert "probability of the true class" in text


def test_it_shows_a_table_and_a_figure(executed):
    data = [output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])]
    assert sum("text/html" in each for each in data) == 2 and any("image/png" in each for each in data)


def test_it_is_committed_without_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs") and not cell.get("execution_count")
