"""sdist and wheel, built as for a release. The wheel holds cs_gan alone, beside a project with its own ``models``."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


TAG = "9.8.7"


def git(*arguments: str, cwd: Path = ROOT) -> str:
    command = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.org", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def tracked() -> list[str]:
    """The files of the checkout, those that will be committed next included."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [name for name in listed if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """A folder with the sdist and the wheel of this checkout, as if it were tagged."""
    for package in ("build", "setuptools_scm", "twine"):
        pytest.importorskip(package, reason=f'{package} comes with pip install -e ".[dev]"')
    if not (ROOT / ".git").exists():
        pytest.skip("the sdist holds what git tracks, and there is no git here")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("release")
    # A copy, so that building leaves nothing in the checkout, with a history of one commit.
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    git("init", "--quiet", cwd=source)
    git("add", "--all", cwd=source)
    git("commit", "--quiet", "--message=all", cwd=source)
    git("tag", f"v{TAG}", cwd=source)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def wheel(release) -> Path:
    (built,) = release.glob("*.whl")
    return built


def test_version_is_that_of_the_tag(release):
    assert {path.name for path in release.iterdir()} == {f"cs_gan-{TAG}.tar.gz", f"cs_gan-{TAG}-py3-none-any.whl"}


def test_without_git_the_version_is_a_development_one(tmp_path):
    pytest.importorskip("setuptools_scm")
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    command = [sys.executable, "-m", "setuptools_scm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d+\.\d+\.\d+\.dev0", done.stdout.strip())


def test_checkout_that_is_not_installed_has_a_version_too(after_torch):
    script = """
import importlib.metadata
def nothing(name):
    raise importlib.metadata.PackageNotFoundError(name)
import torch  # asks for versions of its own
importlib.metadata.version = nothing
import cs_gan
print(cs_gan.__version__)
"""
    assert after_torch(script).strip() == "0+unknown"


def test_twine_finds_nothing_to_mend(release):
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, release.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_sdist_holds_what_git_tracks(release):
    (sdist,) = release.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
        names = {name for name in names if archive.getmember(f"cs_gan-{TAG}/{name}").isfile()}
    made = {name for name in names if name.startswith("cs_gan.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert names - made == set(tracked())
    assert {"models/pretrained.py", "train_gan.py", "tests/test_packaging.py", "docs/index.md"} <= names


def test_wheel_holds_cs_gan_alone_and_its_type_marker(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"cs_gan"}
    # README's `from models import PretrainedGenerator` is for a checkout: the networks are not in the wheel.
    assert "cs_gan/py.typed" in names
    sources = {name for name in tracked() if name.startswith("cs_gan/")}
    assert sources <= set(names)


@pytest.fixture(scope="module")
def empty_environment(wheel, tmp_path_factory) -> Path:
    """The Python of a new environment that holds the wheel alone; torch comes from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run([sys.executable, "-m", "pip", *install], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("lib/python3*/site-packages")
    # A .pth adds folders after its own and reads no .pth in them, so the checkout, which is installed for
    # development there, stays out.
    (site / "torch.pth").write_text("\n".join(sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})))
    return python


def test_installed_wheel_and_a_project_with_its_own_models_both_work(empty_environment, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("from models.gan import Critic\n")
    (tmp_path / "models" / "gan.py").write_text("import torch\n\n\nclass Critic(torch.nn.Linear):\n    mine = True\n")
    script = f"""
import sys
from pathlib import Path
import torch
import cs_gan, cs_gan.attacks, cs_gan.gan
import models
assert Path(cs_gan.__file__).is_relative_to(sys.prefix), cs_gan.__file__
assert Path(models.__file__).parent.parent == Path(__file__).parent, models.__file__
assert cs_gan.__version__ == "{TAG}"
critic = models.Critic(3, 1)
assert critic.mine
coded = cs_gan.CodedSmoothing(critic, blocks=[""], ratio=1.5)
optimizer = torch.optim.SGD(critic.parameters(), 0.1)
real, fake = torch.randn(2, 8, 3)
losses = cs_gan.gan.critic_step(critic, optimizer, real, fake, torch.rand(8), coded=coded)
assert losses["critic_coded"] > 0
"""
    (tmp_path / "main.py").write_text(script)
    command = [str(empty_environment), "main.py"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def extras() -> set[str]:
    """The modules that the extras of pyproject.toml bring, as they are imported."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {re.split(r"[\[<>=]", line)[0].lower().replace("_", "-") for lines in listed.values() for line in lines}
    return {
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if wanted & {package.lower().replace("_", "-") for package in packages}
    }


def test_neither_import_nor_the_default_code_loads_scipys_interpolation(after_torch):
    script = """
import sys, torch
import cs_gan, cs_gan.gan
code = cs_gan.SplineCode(64, 96)
code.decode(code.encode(torch.ones(64, 2)))
cs_gan.CodedSmoothing(torch.nn.Tanh(), [""])
assert "scipy.interpolate" not in sys.modules
cs_gan.SplineCode(8, 12, spline="quintic")
assert "scipy.interpolate" in sys.modules  # the name is still what we look for
"""
    after_torch(script)


def test_import_takes_under_a_second_beyond_torch_and_loads_no_extra(after_torch):
    assert {"torchvision", "accelerate", "matplotlib", "PIL", "sklearn"} <= extras()
    # Seconds of this process alone, so that a busy machine counts for little.
    script = """
import json, sys, time
import torch
before, start = set(sys.modules), time.process_time()
import cs_gan, cs_gan.gan, cs_gan.attacks
seconds = time.process_time() - start
print(json.dumps([seconds, sorted({name.split(".")[0] for name in set(sys.modules) - before})]))
"""
    seconds = []
    for _ in range(3):
        taken, loaded = json.loads(after_torch(script))
        assert "cs_gan" in loaded
        assert set(loaded) & extras() == set()
        seconds.append(taken)
        if taken < 1:  # 0.1 measured
            return
    pytest.fail(f"import cs_gan took {seconds} s beyond torch")
