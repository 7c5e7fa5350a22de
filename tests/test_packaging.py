"""The wheel holds cs_gan alone, and lives beside a project that has a package ``models`` of its own."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    # A copy, so that building leaves nothing in the checkout.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for folder in ("cs_gan", "models"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".typed"):
                copy = source / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(target), str(source)]
    command = [sys.executable, "-m", "pip", *build]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("*.whl")
    return built


def test_wheel_holds_cs_gan_alone_and_its_type_marker(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"cs_gan"}
    assert "cs_gan/py.typed" in names
    sources = {str(file.relative_to(ROOT)) for file in (ROOT / "cs_gan").rglob("*.py")}
    assert sources <= set(names)


def test_installed_core_works_beside_a_foreign_models_package(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "project" / "models").mkdir(parents=True)
    (tmp_path / "project" / "models" / "__init__.py").write_text("MINE = True\n")
    script = """
import models, torch, cs_gan
assert models.MINE and "site" in cs_gan.__file__, cs_gan.__file__
net = torch.nn.Linear(3, 2)
coded = cs_gan.CodedSmoothing(net, blocks=[""], ratio=1.5)
with coded.observe():
    net(torch.randn(8, 3))
assert coded.penalty() > 0
"""
    (tmp_path / "project" / "main.py").write_text(script)
    # -P and PYTHONPATH: the unpacked wheel before the checkout that is installed for development.
    environment = {"PYTHONPATH": f"{tmp_path / 'site'}:{tmp_path / 'project'}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-P", str(tmp_path / "project" / "main.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
