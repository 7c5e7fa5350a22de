#!/usr/bin/env python
"""Train a GAN with coded blocks: ``accelerate launch train_gan.py --config configs/gan/<recipe>.yaml``.

Any key of the recipe can be given as ``--key=value``; ``--help-all`` lists them. A step is one generator update.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cs_gan.training import parse_config, run_script
from tasks.gan.recipe import GanConfig

if TYPE_CHECKING:
    from cs_gan.training import Session
    from tasks.gan.task import GanTask

DESCRIPTION = "Train a WGAN-GP with coded blocks."


def task(session: Session[GanConfig]) -> GanTask:
    """What is trained. It is imported here, because --help and an error on the command line don't need it."""
    from tasks.gan.task import GanTask

    return GanTask(session)


def check_arguments(arguments: list[str]) -> None:
    """Raise ConfigError for a command line that ``main`` would refuse; studies ask before they start."""
    parse_config(GanConfig, arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for an error the user can fix, 130 after Ctrl-C, 143 after SIGTERM."""
    return run_script(__file__, GanConfig, task, arguments, DESCRIPTION, "configs/gan")


if __name__ == "__main__":
    sys.exit(main())
