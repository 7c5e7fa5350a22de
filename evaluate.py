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
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from cs_gan.errors import ConfigError, CsGanError
from cs_gan.training import find_snapshot, read_snapshot
from tasks.classifier.scores import score_accuracy
from tasks.compare import FILE_COMMANDS
from tasks.encoder.scores import score_features
from tasks.gan.commands import COMMANDS as GAN_COMMANDS
from tasks.gan.publish import COMMAND as PUBLISH
from tasks.job import Command, Job
from tasks.options import Parser
from tasks.robustness.command import COMMAND as ATTACK

COMMANDS: dict[str, Command] = {
    **GAN_COMMANDS,
    "publish": PUBLISH,
    "accuracy": Command(
        {"classifier": score_accuracy, "encoder": score_features},
        {"json": (None, {"type": Path, "help": "file for scores and provenance (beside the snapshot)"})},
        "data|metrics",
    ),
    "attack": ATTACK,
}


def parse(words: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the words that change the recipe."""
    parser = Parser(prog="evaluate.py", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    device = {"help": "such as cpu or cuda:1 (default: a GPU if there is one)"}
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help, description=command.help, allow_abbrev=False)
        subparser.add_argument("snapshot", type=Path, help="a snapshot, or a run folder for its snapshot.safetensors")
        subparser.add_argument("--best", action="store_true", help="read best.safetensors of the run folder")
        for option, (default, settings) in {**command.options, "device": (None, device)}.items():
            subparser.add_argument(f"--{option}", default=default, **settings)
    for name, on_files in FILE_COMMANDS.items():
        subparser = commands.add_parser(name, help=on_files.help, description=on_files.help, allow_abbrev=False)
        for file, description in on_files.files.items():
            subparser.add_argument(file, type=Path, help=description)
        for option, (default, settings) in {**on_files.options, "device": (None, device)}.items():
            subparser.add_argument(f"--{option}", default=default, **settings)
    arguments, overrides = parser.parse_known_args(words)
    if overrides and (arguments.command in FILE_COMMANDS or not COMMANDS[arguments.command].sections):
        raise ConfigError(f"{arguments.command} doesn't take {' '.join(overrides)}; --help lists what it takes.")
    return arguments, overrides


def prepare(arguments: argparse.Namespace, overrides: list[str]) -> Job:
    """Everything a command on a snapshot needs, checked."""
    # Without a GPU, or if the user asks for it, several processes communicate over the CPU. Accelerate must be told so.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available())
    if state.num_processes > 1 and (arguments.command != "score" or arguments.device):
        raise ConfigError("only score can use several processes, without --device. Start this command with python.")
    path = find_snapshot(arguments.snapshot, arguments.best)
    snapshot = read_snapshot(path)
    if snapshot.kind not in COMMANDS[arguments.command].runs:
        fitting = [f"evaluate.py {name}" for name, command in COMMANDS.items() if snapshot.kind in command.runs]
        raise ConfigError(
            f"{arguments.command} doesn't take {path}: it holds a network of kind {snapshot.kind!r}. Its commands: "
            f"{', '.join(fitting) or 'none'}."
        )
    return Job(arguments, overrides, state, path, snapshot, usable(arguments.device, state.device))


def usable(asked: str | None, default: torch.device) -> torch.device:
    """The device of ``--device``, or the default; ConfigError if it can't be used."""
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
        if arguments.command in FILE_COMMANDS:
            device = usable(arguments.device, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
            FILE_COMMANDS[arguments.command].run(arguments, device)
            return 0
        job = prepare(arguments, overrides)
        COMMANDS[job.arguments.command].runs[job.snapshot.kind](job)
        job.state.destroy_process_group()
    except (CsGanError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
