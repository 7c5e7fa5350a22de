"""The command line is understood before torch is imported, and a run imports what it uses. Modules are looked at, not
times: benchmarks/start.py has those."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import cs_gan
from benchmarks import start
from cs_gan.digits import _by_sklearn, read_digits
from cs_gan.metrics.cache import default_cache_dir
from cs_gan.metrics.digits import locate_weights

ROOT = Path(__file__).parents[1]
SLOW = ("torch", "accelerate", "torchvision", "torch_fidelity", "sklearn", "scipy", "matplotlib", "numpy")
# Runs a script with the words in sys.argv, and prints which of the modules are loaded at its end, on a last line.
PROBE = """
import runpy, sys
modules = sys.argv.pop(1).split(",")
sys.argv.pop(0)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    code = end.code
print(code, [name for name in modules if name in sys.modules])
"""


def loaded(words, modules=SLOW) -> str:
    command = [sys.executable, "-c", PROBE, ",".join(modules), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        ([], 2),  # not a run of 100,000 steps
        (["--list-recipes"], 0),
        (["--version"], 0),
        (["--training.stepps=1"], 2),
        (["--config=nowhere.yaml"], 2),
        (["--training.steps=0"], 2),
    ],
)
def test_a_training_script_answers_without_torch(words, code):
    assert loaded(["train_gan.py", *words]) == f"{code} []"


@pytest.mark.parametrize("script", ["train_classifier.py", "train_ssl.py"])
def test_the_other_scripts_too(script):
    assert loaded([script, "--training.stepps=1"]) == "2 []"


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--version"], 0), (["smaple", "run"], 2)])
def test_evaluate_answers_without_torch(words, code):
    assert loaded(["evaluate.py", *words]) == f"{code} []"


@pytest.mark.slow
def test_a_run_imports_what_it_uses(tmp_path):
    """Its scores and optimisers need neither torch-fidelity nor torch._dynamo, and digits no scikit-learn."""
    locate_weights(default_cache_dir())  # on a new machine a first run would train the classifier, with a plain Adam
    words = ["--config=quickstart", *start.TOY[:2], "--training.steps=1", "--metrics.num_samples=50"]
    unused = ("torchvision", "torch_fidelity", "sklearn", "torch._dynamo", "torch.distributed.tensor", "cs_gan.attacks")
    told = loaded(["train_gan.py", *words, f"--output_dir={tmp_path}"], (*unused, "matplotlib"))
    assert told == "0 ['matplotlib']"  # for the curve


def test_the_benchmark_of_the_start_gives_its_figures(tmp_path, capsys):
    start.main(["--toy", f"--json={tmp_path / 'start.json'}"])
    shown = capsys.readouterr().out
    for name in ("import torch", "an unknown key", "quickstart, to the end of the first step"):
        assert f"\n{name} " in shown
    assert (tmp_path / "start.json").exists()


def test_digits_are_those_of_scikit_learn():
    table, (grey, labels) = _by_sklearn(), read_digits()
    assert (grey.reshape(len(grey), -1) == (table[:, :-1] * (255 / 16)).round()).all()
    assert labels.tolist() == table[:, -1].tolist()


@pytest.mark.parametrize("package", ["cs_gan", "cs_gan.training", "cs_gan.report"])
def test_names_that_are_imported_late_are_all_there(package):
    module = importlib.import_module(package)
    assert all(getattr(module, name) is not None for name in module.__all__)
    assert set(module.__all__) <= set(dir(module))
    # Python would put a module in the place of a name that it shares.
    assert not set(module.__all__) & {part.name for part in pkgutil.iter_modules(module.__path__)}
    with pytest.raises(AttributeError, match=rf"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_the_version_is_that_of_the_package(capsys):
    import evaluate
    import train_gan

    assert train_gan.main(["--version"]) == 0
    with pytest.raises(SystemExit):
        evaluate.main(["--version"])
    assert capsys.readouterr().out.count(f"of cs-gan {cs_gan.__version__}") == 2
