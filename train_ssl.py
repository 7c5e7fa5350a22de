#!/usr/bin/env python
"""Train an encoder without labels: ``accelerate launch train_ssl.py --config configs/ssl/<recipe>.yaml``.

Any key of the recipe can be given as ``--key=value``; ``--help-all`` lists them. A step is one update on one batch,
with two views of each image. Only the scores use labels.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cs_gan.training import parse_config, run_script
from tasks.encoder.recipe import SslConfig

if TYPE_CHECKING:
    from cs_gan.training import Session
    from tasks.encoder.task import EncoderTask

DESCRIPTION = "Train an encoder without labels, plainly or coded."


def task(session: Session[SslConfig]) -> EncoderTask:
    """What is trained. It is imported here, because --help and an error on the command line don't need it."""
    from tasks.encoder.task import EncoderTask

    return EncoderTask(session)


def check_arguments(arguments: list[str]) -> None:
    """Raise ConfigError for a command line that ``main`` would refuse; studies ask before they start."""
    parse_config(SslConfig, arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for an error the user can fix, 130 after Ctrl-C, 143 after SIGTERM."""
    return run_script(__file__, SslConfig, task, arguments, DESCRIPTION, "configs/ssl")


if __name__ == "__main__":
    sys.exit(main())
