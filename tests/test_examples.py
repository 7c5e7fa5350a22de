"""Each example is short, adds what its first lines say, runs as a user runs it, and is the bare loop at weight 0."""

from __future__ import annotations

import ast
import math
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NUMBER = r"(\d\.\de[-+]\d\d|nan|inf)"
COUNTED = {3: "three lines", 4: "four lines"}

every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


class Nothing:
    """In place of CodedSmoothing in a bare loop, whose printing still asks for a penalty."""

    def __init__(self, *_args: Any, **_options: Any) -> None:
        pass

    def penalty(self) -> torch.Tensor:
        return torch.zeros(())


def marked(source: str) -> list[tuple[str, str]]:
    """The lines that end in ``# coded i/n``, with their marks."""
    return re.findall(r"^ *(.*?)  # coded (\d/\d)$", source, flags=re.MULTILINE)


def bare(source: str) -> str:
    """The source without its marked lines."""
    lines = []
    for line in source.splitlines():
        code, mark, _ = line.partition("  # coded ")
        if not mark:
            lines.append(line)
        elif "CodedSmoothing(" in code:
            lines.append(code.replace("CodedSmoothing(", "Nothing("))
        elif code.lstrip().startswith("with "):
            lines.append(" " * (len(code) - len(code.lstrip())) + "if True:")
    return "\n".join(lines)


def trained(source: str, weight: float) -> dict[str, torch.Tensor]:
    """The state after three steps of the source's loop."""
    scope: dict[str, Any] = {"__name__": "example", "Nothing": Nothing}
    exec(compile(source, "example", "exec"), scope)
    return dict(scope["train"](steps=3, seed=1, weight=weight).state_dict())


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def installed(path, tmp_path, monkeypatch):
    """Skips where a package that the example imports is missing; leaves no global state behind."""
    for package in re.findall(r"^(?:from|import) (\w+)", path.read_text(), flags=re.MULTILINE):
        pytest.importorskip(package, reason=f'{path.name} needs {package}: pip install -e ".[examples]"')
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # Lightning sets them for good
        monkeypatch.setenv(name, "0")
    yield
    if "accelerate" in sys.modules:
        sys.modules["accelerate"].state.AcceleratorState._reset_state(reset_partial_state=True)


def test_all_examples_are_found():
    assert len(EXAMPLES) >= 8


@every_example
def test_is_under_80_lines(path):
    assert len(path.read_text().splitlines()) < 80


@every_example
def test_first_lines_say_what_is_added(path):
    source = path.read_text()
    told = ast.get_docstring(ast.parse(source), clean=False)
    lines = marked(source)
    assert [mark for _, mark in lines] == [f"{i}/{len(lines)}" for i in range(1, len(lines) + 1)]
    assert re.findall(r"^    (.*)$", told, flags=re.MULTILINE) == [code for code, _ in lines]
    assert COUNTED[len(lines)] in told.splitlines()[0]
    # Apart from what is printed, nothing else knows of coding.
    rest = source.replace(told, "")
    assert rest.count("CodedSmoothing(") == 1
    unmarked = [line for line in rest.splitlines() if "coded." in line and "# coded" not in line]
    assert all(
        line.strip().startswith(("penalties.append(", "self.penalties.append(", "self.log(")) for line in unmarked
    )


@every_example
def test_imports_public_names_alone(path):
    """And nothing of ours that is not installed with the package."""
    public = {"CodedSmoothing", "Linear", "RandomizedCodedInference"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = {alias.name for alias in getattr(node, "names", [])}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module != "cs_gan" or names <= public
            names = {node.module} - {"cs_gan"}
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not {name.split(".")[0] for name in names} & {"cs_gan", "models", "train_gan", "tests"}


@every_example
@pytest.mark.usefixtures("installed")
def test_runs_and_prints_a_penalty_above_0(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--steps=2", "--seed=1"])
    runpy.run_path(str(path), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    penalties = [re.search(rf"coded penalty {NUMBER}$", line) for line in lines if re.match(r"step +\d+  ", line)]
    closing = re.match(rf"coded penalty {NUMBER} -> {NUMBER}, \w.* \d", lines[-1])
    assert len(penalties) == 2
    for number in [match[1] for match in penalties] + [closing[1], closing[2]]:
        assert math.isfinite(float(number))
        assert float(number) > 0
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


@every_example
@pytest.mark.usefixtures("installed")
def test_weight_0_is_the_bare_loop_to_the_bit(path):
    source = path.read_text()
    without = trained(bare(source), weight=0.0)
    assert equal(trained(source, weight=0.0), without)
    assert not equal(trained(source, weight=1.0), without)


def test_a_bare_loop_has_nothing_coded():
    for path in EXAMPLES:
        code = bare(path.read_text()).split("def train")[-1]
        assert not re.search(r"observe\(\)|set_step|weight \* |CodedSmoothing\(", code)


def test_runs_from_anywhere_in_a_process_of_its_own(tmp_path, after_torch):
    pytest.importorskip("sklearn")
    path = str(ROOT / "examples" / "vae.py")
    printed = after_torch(f"""
import os, runpy, sys
os.chdir({str(tmp_path)!r})
sys.path.append({str(ROOT)!r})
sys.argv = [{path!r}, "--steps=1"]
runpy.run_path({path!r}, run_name="__main__")
""")
    assert printed.splitlines()[-1].startswith("coded penalty ")


@every_example
def test_readme_has_its_result(path):
    table = (ROOT / "examples" / "README.md").read_text()
    row = next(line for line in table.splitlines() if f"[{path.name}]({path.name})" in line)
    assert re.search(r"-> \d", row)
