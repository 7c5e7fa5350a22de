#!/usr/bin/env python
"""Train a classifier: ``accelerate launch train_classifier.py --config configs/classifier/<recipe>.yaml``.

Any key of the recipe can be given as ``--key=value``; ``--help-all`` lists them. A step is one update on one batch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cs_gan.training import parse_config, run_script
from tasks.classifier.recipe import ClassifierConfig

if TYPE_CHECKING:
    from cs_gan.training import Session
    from tasks.classifier.task import ClassifierTask

DESCRIPTION = "Train a classifier, plainly or coded."


def task(session: Session[ClassifierConfig]) -> ClassifierTask:
    """What is trained. It is imported here, because --help and an error on the command line don't need it."""
    from tasks.classifier.task import ClassifierTask

    return ClassifierTask(session)


def check_arguments(arguments: list[str]) -> None:
    """Raise ConfigError for a command line that ``main`` would refuse; studies ask before they start."""
    parse_config(ClassifierConfig, arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for an error the user can fix, 130 after Ctrl-C, 143 after SIGTERM."""
    return run_script(
        __file__,
        ClassifierConfig,
        task,
        arguments,
        DESCRIPTION,
        "configs/classifier",
    )


if __name__ == "__main__":
    sys.exit(main())
