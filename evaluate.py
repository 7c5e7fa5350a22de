"""Evaluate a trained network from its snapshot: ``python evaluate.py <command> <snapshot or run folder>``.

Generators have the commands ``sample``, ``interpolate``, ``score``, ``nearest`` and ``publish``. Classifiers have
``accuracy`` and ``attack``, and encoders have ``accuracy``. ``--help`` lists the commands, and ``evaluate.py <command>
--help`` the options of one. Only ``score`` can use several processes:
``accelerate launch evaluate.py score <run folder>``.

``compare`` and ``stats`` need no snapshot: they take anyone's images, or statistics of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cs_gan import __version__
from cs_gan.errors import ConfigError, CsGanError
from tasks.options import Parser

if TYPE_CHECKING:
    import torch

    from tasks.compare import FileCommand
    from tasks.job import Command, Job

COMMANDS = {
    "sample": "images of a generator: a grid, or a folder",
    "interpolate": "images on the way from one seed to the next",
    "score": "a generator's scores; several processes can share the work",
    "nearest": "generated images beside the nearest training images",
    "publish": "a generator on the Hugging Face Hub, with a model card",
    "accuracy": "scores of a classifier, or of an encoder's features",
    "attack": "a classifier under Randomized Coded Inference, attacked",
}
"""The commands on a snapshot, as ``--help`` lists them."""
FILES = {
    "compare": "two sets of images, or their statistics, scored against each other",
    "stats": "a statistics file (mu and sigma) of a set of images",
}
"""The commands on files."""


def command(name: str) -> Command:
    """What a command does. Imported here, because ``--help`` and an error on the command line need none of them."""
    from tasks.job import Command

    if name == "publish":
        from tasks.gan.publish import COMMAND

        return COMMAND
    if name == "attack":
        from tasks.robustness.command import COMMAND

        return COMMAND
    if name == "accuracy":
        from tasks.classifier.scores import score_accuracy
        from tasks.encoder.scores import score_features

        json = {"type": Path, "help": "file for scores and provenance (beside the snapshot)"}
        runs: dict[str, Callable[[Job], None]] = {"classifier": score_accuracy, "encoder": score_features}
        return Command(runs, {"json": (None, json)}, "data|metrics")
    from tasks.gan.commands import COMMANDS

    return COMMANDS[name]


def file_command(name: str) -> FileCommand:
    """What a command on files does."""
    from tasks.compare import FILE_COMMANDS

    return FILE_COMMANDS[name]


def parse(words: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the words that change the recipe."""
    parser = Parser(prog="evaluate.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s of cs-gan {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    device = {"help": "such as cpu or cuda:1 (default: a GPU if there is one)"}
    words = sys.argv[1:] if words is None else words
    for name, summary in COMMANDS.items():
        subparser = commands.add_parser(name, help=summary, allow_abbrev=False)
        if name not in words:  # only the command that runs is imported
            continue
        asked = command(name)
        subparser.description = asked.help
        subparser.add_argument("snapshot", type=Path, help="a snapshot, or a run folder for its snapshot.safetensors")
        subparser.add_argument("--best", action="store_true", help="read best.safetensors of the run folder")
        for option, (default, settings) in {**asked.options, "device": (None, device)}.items():
            subparser.add_argument(f"--{option}", default=default, **settings)
    for name, summary in FILES.items():
        subparser = commands.add_parser(name, help=summary, allow_abbrev=False)
        if name not in words:
            continue
        on_files = file_command(name)
        subparser.description = on_files.help
        for file, description in on_files.files.items():
            subparser.add_argument(file, type=Path, help=description)
        for option, (default, settings) in {**on_files.options, "device": (None, device)}.items():
            subparser.add_argument(f"--{option}", default=default, **settings)
    arguments, overrides = parser.parse_known_args(words)
    if overrides and (arguments.command in FILES or not command(arguments.command).sections):
        names = [word.partition("=")[0].rpartition(".")[2] for word in overrides]  # --metrics.extractor=x -> extractor
        options = [f"--{name}" for name in names if name in vars(arguments)]
        hint = f"Did you mean {' '.join(options)}?" if options else "--help lists what it takes."
        raise ConfigError(f"{arguments.command} doesn't take {' '.join(overrides)}. {hint}")
    return arguments, overrides


def prepare(arguments: argparse.Namespace, overrides: list[str]) -> Job:
    """Everything a command on a snapshot needs, checked."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    from cs_gan.training import find_snapshot, read_snapshot
    from tasks.job import Job

    # Without a GPU, or if the user asks for it, several processes communicate over the CPU. Accelerate must be told so.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available())
    if state.num_processes > 1 and (arguments.command != "score" or arguments.device):
        raise ConfigError("only score can use several processes, without --device. Start this command with python.")
    path = find_snapshot(arguments.snapshot, arguments.best)
    snapshot = read_snapshot(path)
    if snapshot.kind not in command(arguments.command).runs:
        fitting = [f"evaluate.py {name}" for name in COMMANDS if snapshot.kind in command(name).runs]
        raise ConfigError(
            f"{arguments.command} doesn't take {path}: it holds a network of kind {snapshot.kind!r}. Its commands: "
            f"{', '.join(fitting) or 'none'}."
        )
    return Job(arguments, overrides, state, path, snapshot, usable(arguments.device, state.device))


def usable(asked: str | None, default: torch.device) -> torch.device:
    """The device of ``--device``, or the default; ConfigError if it can't be used."""
    import torch

    try:
        device = torch.device(asked or default)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # which one it is depends on the build of torch
        raise ConfigError(f"--device {asked} can't be used: {str(error).splitlines()[0]}") from error
    return device


def main(words: list[str] | None = None) -> int:
    """Run from the command line; 0 at the end, 2 after an error that the user can fix, 130 after Ctrl-C."""
    try:
        arguments, overrides = parse(words)
        if arguments.command in FILES:
            import torch

            device = usable(arguments.device, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
            file_command(arguments.command).run(arguments, device)
            return 0
        job = prepare(arguments, overrides)
        command(job.arguments.command).runs[job.snapshot.kind](job)
        job.state.destroy_process_group()
    except (CsGanError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
