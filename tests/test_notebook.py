"""The notebook runs from top to bottom, and any of its cells runs again; what is committed shows what it printed."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
CONTENT = json.loads(NOTEBOOK.read_text())
CODE = [cell for cell in CONTENT["cells"] if cell["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def pictures(cells: list[dict]) -> int:
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])


def test_committed_notebook_was_run_from_top_to_bottom_and_is_small():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert not [output for cell in CODE for output in cell["outputs"] if output["output_type"] == "error"]
    assert pictures(CODE) == sum("plt.subplots(" in source(cell) for cell in CODE) >= 5
    assert NOTEBOOK.stat().st_size < 400_000
    assert not [word for word in ("/root", "/home", "/work", "/tmp") if word in NOTEBOOK.read_text()]


@pytest.fixture
def first_cell(monkeypatch, tmp_path):
    """Runs the first cell where the package is missing, or isn't; returns what it asks pip for."""
    manager = pytest.importorskip("IPython.core.inputtransformer2").TransformerManager()
    monkeypatch.delenv("CS_GAN_REPOSITORY", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(missing: bool) -> list[str]:
        asked: list[str] = []

        class Shell:
            def run_line_magic(self, name, line):
                assert name == "pip"
                asked.append(line)

        if missing:
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        names = {"get_ipython": Shell}
        exec(manager.transform_cell(source(CODE[0])), names)
        return [line.format(**names) for line in asked]  # as IPython fills in names

    return run


def test_first_cell_does_nothing_where_the_package_is(first_cell):
    assert first_cell(missing=False) == []


def test_first_cell_installs_the_package_from_its_repository(first_cell, monkeypatch):
    monkeypatch.setenv("CS_GAN_REPOSITORY", "git+https://example.org/someone/cs_gan")
    (line,) = first_cell(missing=True)
    options, required, *others = shlex.split(line.removeprefix("install"))
    assert options == "--quiet"
    requirement = Requirement(required)
    assert (requirement.name, requirement.url) == ("cs-gan", "git+https://example.org/someone/cs_gan")
    assert requirement.name == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
    assert {"matplotlib", "torchvision"} <= set(others)


def test_first_cell_installs_the_checkout_that_it_is_in(first_cell, monkeypatch):
    monkeypatch.chdir(ROOT / "examples")
    (line,) = first_cell(missing=True)
    assert f'"cs-gan @ {ROOT.as_uri()}"' in line


def test_first_cell_asks_for_the_address_where_it_knows_none(first_cell):
    with pytest.raises(RuntimeError, match="set REPOSITORY to the address"):
        first_cell(missing=True)


def test_every_cell_runs_and_those_that_code_blocks_run_again(monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason='nbclient comes with pip install -e ".[dev]"')
    for package in ("ipykernel", "matplotlib", "sklearn", "torchvision"):
        pytest.importorskip(package)
    import nbformat

    # As this process: the checkout, one thread; and trainings of a few steps.
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("QUICKSTART_SECONDS", "0.3")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (held_out,) = (cell for cell in notebook.cells if "split([1597, 200])" in cell.source)
    held_out.source = held_out.source.replace("split([1597, 200])", "split([1773, 24])")  # a few images to classify
    again = [cell for cell in notebook.cells if cell.cell_type == "code" and "replace=True" in cell.source]
    assert len(again) == 3
    notebook.cells += [nbformat.from_dict(cell | {"id": f"again-{i}"}) for i, cell in enumerate(again)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = "".join(output.get("text", "") for cell in ran for output in cell.outputs)
    assert "inside and outside the same to the bit: True" in printed
    assert "objective: 0.9 x task loss" in printed
    assert "one image, filled up from the reference inputs: (1, 10)" in printed
    assert pictures(ran) == sum("plt.subplots(" in cell.source for cell in ran)
