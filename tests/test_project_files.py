"""Workflows, templates, hooks, Dockerfiles, CITATION.cff: they parse, name what exists, agree with pyproject.toml."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_docs import missing

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "Dockerfile.cuda"]
YAML_FILES = [*WORKFLOWS, *TEMPLATES, ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]
PYTHONS = [name.split(" :: ")[-1] for name in PYPROJECT["project"]["classifiers"] if " 3." in name]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> dict[Any, Any]:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict), path
    return content


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return dict(read(path)["jobs"])


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job.get("steps", [])]


def values_of(content: Any, key: str) -> list[Any]:
    """Every value that a nesting has under ``key``."""
    if isinstance(content, list):
        return [value for one in content for value in values_of(one, key)]
    if not isinstance(content, dict):
        return []
    here = [content[key]] if key in content else []
    return here + values_of(list(content.values()), key)


def test_there_is_something_to_read():
    assert {path.stem for path in WORKFLOWS} == {"docs", "release", "tests"}
    assert len(TEMPLATES) >= 2


@pytest.mark.parametrize("path", YAML_FILES, ids=name_of)
def test_parses_and_repeats_no_key(path):
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key) for key, _ in node.value]
            assert len(keys) == len(set(keys)), (path, keys)
            return super().construct_mapping(node, deep)

    assert yaml.load(path.read_text(), Strict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_workflow_runs_what_exists(path):
    commands = [step["run"] for step in steps(path) if "run" in step]
    assert missing("\n".join(commands)) == []
    named = values_of(read(path), "cache-dependency-path")
    named += [uses for uses in values_of(read(path), "uses") if uses.startswith("./")]
    assert [name for name in named if not (ROOT / name).is_file()] == []
    needed = [job.get("needs", []) for job in jobs(path).values()]
    needed = [[names] if isinstance(names, str) else names for names in needed]
    assert {name for names in needed for name in names} <= set(jobs(path))


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_workflow_may_only_read_but_for_what_it_publishes(path):
    assert read(path)["permissions"] == {"contents": "read"}
    granted = {name: job["permissions"] for name, job in jobs(path).items() if "permissions" in job}
    expected = {
        "docs": {"deploy": {"pages": "write", "id-token": "write"}},
        "release": {"publish": {"id-token": "write"}},
    }
    assert granted == expected.get(path.stem, {})


def test_pythons_agree():
    floor = PYPROJECT["project"]["requires-python"].removeprefix(">=")
    assert PYTHONS[0] == floor == PYPROJECT["tool"]["mypy"]["python_version"]
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + floor.replace(".", "")
    tests = jobs(ROOT / ".github" / "workflows" / "tests.yml")
    assert tests["test"]["strategy"]["matrix"]["python"] == PYTHONS
    for path in WORKFLOWS:
        versions = values_of(steps(path), "python-version")
        assert all(version in (floor, "${{ matrix.python }}") for version in versions)
    for path in DOCKERFILES:
        assert re.findall(r"^FROM python:([\d.]+)", path.read_text(), re.MULTILINE)[0] in PYTHONS


def test_hooks_have_the_versions_of_the_dev_extra():
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    dev = PYPROJECT["project"]["optional-dependencies"]["dev"]
    (ruff,) = [line for line in dev if line.startswith("ruff")]
    assert "==" in ruff
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert hooks["ruff-check"]["additional_dependencies"] == hooks["ruff-format"]["additional_dependencies"] == [ruff]
    assert hooks["mypy"]["entry"] == ".venv/bin/mypy"  # the one that `make install` puts there
    assert any(line.startswith("mypy==") for line in dev)


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_dockerfile_copies_and_starts_what_exists_and_not_as_root(path):
    lines = path.read_text().replace("\\\n", " ").splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in shlex.split(line)[1:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert missing(path.read_text()) == []
    (command,) = [line.removeprefix("CMD ") for line in lines if line.startswith("CMD")]
    assert missing(" ".join(yaml.safe_load(command))) == []
    (user,) = [line.split()[1] for line in lines if line.startswith("USER")]
    assert int(user) > 0
    extras = set(re.findall(r"\.\[([\w,]+)\]", path.read_text())[0].split(","))
    assert extras <= set(PYPROJECT["project"]["optional-dependencies"])
    for library in ("torch", "torchvision"):  # as the package asks for them
        (wanted,) = [found for found in re.findall(r'"([^"]+)"', path.read_text()) if re.match(rf"{library}\W", found)]
        gan = PYPROJECT["project"]["dependencies"] + PYPROJECT["project"]["optional-dependencies"]["gan"]
        assert wanted in gan
    assert re.search(r"VERSION=(\S+)", path.read_text())[1] == PYPROJECT["tool"]["setuptools_scm"]["fallback_version"]


def test_dockerfiles_differ_only_in_how_they_are_called_and_where_torch_comes_from():
    cpu, cuda = ([line for line in path.read_text().splitlines() if line[:1] != "#"] for path in DOCKERFILES)
    differing = [pair for pair in zip(cpu, cuda, strict=True) if pair[0] != pair[1]]
    assert [pair[0].startswith("RUN pip install") for pair in differing] == [True]


def test_citation_is_of_this_package_and_its_paper():
    citation = read(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "type"} <= set(citation)
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert set(citation["keywords"]) == set(PYPROJECT["project"]["keywords"])
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2510.00253"
    assert paper["url"] in (ROOT / "README.md").read_text()
    assert [author["family-names"] for author in paper["authors"]] == ["Moradi", "Jahaninezhad", "Maddah-Ali"]


@pytest.mark.parametrize("path", [path for path in TEMPLATES if path.stem != "config"], ids=name_of)
def test_issue_form_asks_something(path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    assert all(field["attributes"]["label"] for field in fields)
