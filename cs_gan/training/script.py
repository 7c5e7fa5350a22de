"""Run a training script: from its command line to its exit code."""

from __future__ import annotations

import ctypes
import gc
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cs_gan.errors import CsGanError
from cs_gan.training.recipes.help import answer
from cs_gan.training.recipes.parse import Config, parse_config

if TYPE_CHECKING:
    from cs_gan.training.session import Session
    from cs_gan.training.task import Task


def run_script(
    script: str,
    kind: type[Config],
    make: Callable[[Session[Config]], Task[Config]],
    arguments: Sequence[str] | None,
    description: str,
    recipes: str,
) -> int:
    """Parse, build, train.

    Args:
        script: its ``__file__``.
        kind: the class of the recipe.
        make: builds the task and checks everything. It imports what it needs, so that this comes after the parse.
        arguments: the command line; None is ``sys.argv``.
        description: for ``--help``.
        recipes: the folder of the recipes that come with the script, relative to it.

    Returns:
        0 when done, 2 for an error the user can fix, 128 + the number of a signal that ended it: 130 after Ctrl-C, 143
        after SIGTERM.
    """
    prog = os.path.basename(sys.argv[0])
    words = sys.argv[1:] if arguments is None else arguments
    folder = Path(script).parent / recipes
    if text := answer(words, kind, prog, description, folder):
        print(text)
        return 0
    if not words:
        print("error: give a recipe or keys: --list-recipes names the recipes, --help the keys.", file=sys.stderr)
        return 2
    words = ["--help" if word == "--help-all" else word for word in words]
    _end_with_launcher()
    try:
        config = parse_config(kind, words, prog=prog, description=description, recipes=folder)
        if os.environ.get("RANK", "0") == "0":
            print("Loading torch, images and networks ...", file=sys.stderr, flush=True)
        ended = _run(config, make, _command(script, words))
        _leave_group()
    except KeyboardInterrupt:
        print("stopped at once; the last checkpoint stands.", file=sys.stderr)
        return 130
    except (CsGanError, OSError) as error:  # OSError: a full disk, a file that can't be read
        print(f"error: {error}", file=sys.stderr)
        return 2
    return ended and 128 + ended


def _run(config: Config, make: Callable[[Session[Config]], Task[Config]], command: str) -> int:
    """The number of the signal that ended it, or 0. What it opened is closed."""
    from cs_gan.training.session import Session

    if config.dry_run:
        from cs_gan.training.dry_run import dry_run as run
    else:
        from cs_gan.training.loop import train as run

    with ExitStack() as stack:
        session = Session(config, stack, command)
        task = make(session)
        stack.callback(task.close)
        ended = run(task)
        session.end_trackers()
    return ended


def _leave_group() -> None:
    """Leave the process group if there is one, and end its threads.

    A thread of gloo takes Python's lock when it drops the tensors of the last exchange. If Python has ended by then,
    the process aborts. A network that is wrapped for several processes holds the group, so it is collected first.
    """
    import torch.distributed

    if torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def _command(script: str, words: Sequence[str]) -> str:
    """The command that was typed. The launcher is not known, but torchrun does the same."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    start = ["python"] if processes == 1 else ["torchrun", f"--nproc_per_node={processes}"]
    return shlex.join([*start, Path(script).name, *words])


def _end_with_launcher() -> None:
    """Make Linux send SIGTERM when the launcher dies, because accelerate launch doesn't pass on its own SIGTERM."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "LOCAL_RANK" in os.environ
    if launched and sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
