"""Imports go one way: scripts -> tasks -> {models, cs_gan.*}; the subpackages of cs_gan -> core -> the ground floor."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = (
    "digits errors files flat_keys lazy names precision predictions randomness read_yaml restore runs second_derivative"
)
GROUND = {f"cs_gan.{name}" for name in NAMES.split()}
SHARED = GROUND | {"cs_gan.core"}
# A study's page is made as a run's is; what a run leaves behind is read and written by name.
USES = {
    "cs_gan.study": {"cs_gan.report"},
    "cs_gan.runs": {"cs_gan.errors", "cs_gan.files", "cs_gan.flat_keys"},
    "cs_gan.second_derivative": {"cs_gan.errors"},
    "cs_gan.read_yaml": {"cs_gan.errors", "cs_gan.flat_keys"},
}
SCRIPTS = {path.stem for path in ROOT.glob("*.py")} | {"train_gan", "train_classifier", "evaluate"}
KINDS = {"gan": set[str](), "classifier": set[str](), "encoder": set[str](), "robustness": {"classifier"}}
"""The kinds of runs in tasks/, and the other kinds that each may use."""
FILES = sorted(path for folder in ("cs_gan", "models", "tasks") for path in (ROOT / folder).rglob("*.py"))
# What `pip install cs-gan` does without; jsonargparse and accelerate come with the extra [gan].
HEAVY = ("torchvision", "torch_fidelity", "accelerate", "sklearn", "matplotlib", "jsonargparse")


def imported(source: str, package: str) -> set[str]:
    """Every module that the source imports anywhere in it, absolute; ``from a import b`` gives a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def part(module: str) -> str:
    """``cs_gan.core.code`` -> ``cs_gan.core``; what is not of this project -> its first name."""
    names = module.split(".")
    return ".".join(names[:2]) if names[0] == "cs_gan" else names[0]


def violations(path: str, source: str) -> set[str]:
    """The imports that a file at ``path`` (relative, with slashes) may not have."""
    *package, name = path.removesuffix(".py").split("/")
    modules = imported(source, ".".join(package))
    home = part(".".join([*package, name]))
    inside = {part(module) for module in modules if module.split(".")[0] == "cs_gan"} - {"cs_gan"}
    bad = {module for module in modules if part(module) in SCRIPTS}
    if package[0] == "tasks":
        own = package[1] if len(package) > 1 else None
        kinds = {module.split(".")[1] for module in modules if module.startswith("tasks.")} & KINDS.keys()
        return bad | {f"tasks.{kind}" for kind in kinds - {own} - KINDS.get(own or "", set())}
    bad |= {module for module in modules if part(module) == "tasks"}
    if package[0] == "models":
        return bad | inside | {module for module in modules if module == "cs_gan"}
    bad |= {module for module in modules if part(module) == "models"}
    if home == "cs_gan.__init__":
        allowed = SHARED
    elif home in GROUND:
        allowed = {home} | USES.get(home, set())
    else:
        allowed = SHARED | {home} | USES.get(home, set())
    # From within the package `import cs_gan` would be circular; only its version is worth asking for.
    names = {module.split(".")[1] for module in modules if module.startswith("cs_gan.") and module.count(".") == 1}
    return (
        bad
        | {f"cs_gan.{name}" for name in names if f"cs_gan.{name}" not in allowed | {"cs_gan.__version__"}}
        | {module for module in inside if module not in allowed | {"cs_gan.__version__"}}
    )


@pytest.mark.parametrize("path", [str(file.relative_to(ROOT).as_posix()) for file in FILES])
def test_imports_go_one_way(path):
    assert violations(path, (ROOT / path).read_text()) == set()


def at_run_time(source: str) -> str:
    """The source without what only a type checker reads."""
    tree = ast.parse(source)
    tree.body = [
        line for line in tree.body if not (isinstance(line, ast.If) and "TYPE_CHECKING" in ast.dump(line.test))
    ]
    return ast.unparse(tree)


def circles(sources: dict[str, str]) -> set[str]:
    """The modules that can't be put into an order in which each imports only earlier ones, not even in a function."""
    uses = {name: imported(at_run_time(source), name.rpartition(".")[0]) - {name} for name, source in sources.items()}
    while free := {name for name, used in uses.items() if not used & uses.keys()}:
        uses = {name: used for name, used in uses.items() if name not in free}
    return set(uses)


def test_no_modules_import_each_other_in_a_circle():
    files = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES if path.stem != "__init__"}
    assert circles({name: path.read_text() for path, name in files.items()}) == set()


def test_a_circle_is_seen_even_if_a_function_closes_it():
    sources = {"a.b": "from a import c", "a.c": "def f():\n    from a.b import x", "a.d": "import json"}
    assert circles(sources) == {"a.b", "a.c"}
    assert circles(sources | {"a.c": "if TYPE_CHECKING:\n    import a.b"}) == set()


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cs_gan/core/a.py", "from cs_gan.gan import b"),
        ("cs_gan/core/a.py", "from cs_gan import metrics"),
        ("cs_gan/core/a.py", "from ..data import b"),
        ("cs_gan/core/a.py", "def f():\n    import cs_gan.training.run"),
        ("cs_gan/gan/a.py", "from cs_gan.training.checkpoint import save"),
        ("cs_gan/data/a.py", "import cs_gan.metrics as m"),
        ("cs_gan/gan/a.py", "import models"),
        ("cs_gan/gan/a.py", "from models.gan import build_gan"),
        ("cs_gan/report/a.py", "import train_gan"),
        ("cs_gan/report/a.py", "from cs_gan.study import plan"),
        ("cs_gan/study/a.py", "from cs_gan.training.checkpoint import save"),
        ("cs_gan/errors.py", "from cs_gan.core import code"),
        ("cs_gan/__init__.py", "from cs_gan.gan import b"),
        ("models/a.py", "from cs_gan import CodedSmoothing"),
        ("models/a.py", "from cs_gan.errors import ConfigError"),
        ("models/a.py", "from evaluate import main"),
        ("cs_gan/report/a.py", "from tasks.gan.commands import sample"),
    ],
)
def test_the_rule_sees_a_wrong_import(path, source):
    assert violations(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cs_gan/core/a.py", "from cs_gan.core.code import b\nimport numpy\nfrom .nodes import c"),
        ("cs_gan/core/a.py", "from ..errors import CodeError\nfrom cs_gan import errors"),
        ("cs_gan/gan/a.py", "from cs_gan.core import b\nfrom cs_gan.randomness import c\nfrom . import losses"),
        ("cs_gan/__init__.py", "from cs_gan.core import b"),
        ("models/a.py", "from models.blocks import b\nimport torch"),
        ("tasks/robustness/a.py", "from tasks.classifier.load import classifier_of\nfrom tasks.job import Job"),
        ("tasks/gan/a.py", "from models import build_gan\nfrom cs_gan.training import Session"),
        ("cs_gan/training/a.py", "from cs_gan.runs import RunFolder"),
    ],
)
def test_the_rule_passes_a_right_import(path, source):
    assert violations(path, source) == set()


def test_import_cs_gan_loads_no_optional_dependency(after_torch):
    code = f"import sys, cs_gan; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert after_torch(code).strip() == "[]"


def test_what_a_run_leaves_behind_is_read_without_torch():
    code = "import sys, cs_gan.runs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


def test_no_module_imports_itself_in_a_circle():
    """A circle makes the first import of one of its modules fail or succeed by the order of imports."""
    graph = {}
    for path in FILES:
        *package, name = path.relative_to(ROOT).with_suffix("").parts
        home = ".".join(package if name == "__init__" else [*package, name])
        graph[home] = top_level_imports(path.read_text(), ".".join(package)) - {home}
    done, active = set(), []

    def visit(module):
        assert module not in active, f"circle: {' -> '.join([*active[active.index(module) :], module])}"
        if module in done:
            return
        active.append(module)
        for other in sorted(graph[module] & graph.keys()):
            # A package's own parts are imported while the package is.
            if not module.startswith(f"{other}."):
                visit(other)
        active.pop()
        done.add(module)

    for module in graph:
        visit(module)


def top_level_imports(source: str, package: str) -> set[str]:
    """The modules that are imported when this one is, not inside its functions."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return imported(ast.unparse(tree), package)


def test_what_make_compat_runs_needs_no_extra():
    """tests/compat.sh has torch, numpy, scipy and pytest alone."""
    files = [path for folder in ("core", "gan", "attacks") for path in (ROOT / "tests" / folder).glob("*.py")]
    assert files
    extras = {*HEAVY, *SCRIPTS} | {f"cs_gan.{name}" for name in ("data", "metrics", "report", "study", "training")}
    found = {path.name: extras & {part(module) for module in imported(path.read_text(), "tests")} for path in files}
    assert {name: modules for name, modules in found.items() if modules} == {}
