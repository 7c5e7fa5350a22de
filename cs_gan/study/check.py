"""Let the script of a study check the settings of every point before the first run starts."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cs_gan.errors import ConfigError
from cs_gan.study.plan import Run
from cs_gan.study.spec import Study

CHECK = "check_arguments"
"""The function of a script that raises ConfigError for a command line it would refuse. A script may lack it."""


def check_points(study: Study, runs: Sequence[Run]) -> None:
    """Refuse a study with a setting that its script doesn't know: its first run may be hours before that one.

    Raises:
        ConfigError: with the name of the first such run.
    """
    check = _checker(study.script)
    if check is None:
        return
    for run in runs:
        if run.seed != study.seeds[0]:  # its point has been checked
            continue
        try:
            check(run.command[2:])
        except ConfigError as error:
            raise ConfigError(f"{study.path}: {run.name}: {error}") from None


def _checker(script: Path) -> Callable[[list[str]], None] | None:
    """The script's function. Only a script that has it is imported: another one may start to train then."""
    try:
        tree = ast.parse(script.read_bytes())
    except SyntaxError:
        return None  # its runs will say so
    if not any(isinstance(line, ast.FunctionDef) and line.name == CHECK for line in tree.body):
        return None
    sys.path.insert(0, str(script.resolve().parent))  # as for ``python <script>``
    try:
        check: Callable[[list[str]], None] = runpy.run_path(str(script), run_name="script_of_the_study")[CHECK]
    finally:
        sys.path.pop(0)
    return check
