#!/usr/bin/env python
"""Train an encoder without labels: ``accelerate launch train_ssl.py --config configs/ssl/<recipe>.yaml``.

Any key of the recipe can be given as ``--key=value``; ``--help-all`` lists them. A step is one update on one batch,
with two views of each image. Only the scores use labels.
"""

import sys

from cs_gan.training import run_script
from tasks.encoder.recipe import SslConfig
from tasks.encoder.task import EncoderTask

DESCRIPTION = "Train an encoder without labels, plainly or coded."


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for an error the user can fix, 130 after Ctrl-C, 143 after SIGTERM."""
    return run_script(__file__, SslConfig, EncoderTask, arguments, DESCRIPTION, "configs/ssl")


if __name__ == "__main__":
    sys.exit(main())
