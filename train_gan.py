#!/usr/bin/env python
"""Train a GAN with coded blocks: ``accelerate launch train_gan.py --config configs/gan/<recipe>.yaml``.

Any key of the recipe can be given as ``--key=value``; ``--help-all`` lists them. A step is one generator update.
"""

import sys

from cs_gan.training import run_script
from tasks.gan.recipe import GanConfig
from tasks.gan.task import GanTask

DESCRIPTION = "Train a WGAN-GP with coded blocks."


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for an error the user can fix, 130 after Ctrl-C, 143 after SIGTERM."""
    return run_script(__file__, GanConfig, GanTask, arguments, DESCRIPTION, "configs/gan")


if __name__ == "__main__":
    sys.exit(main())
