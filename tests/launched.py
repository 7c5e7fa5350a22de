"""What each of two processes runs in test_evaluate: evaluate.py with the variables that torchrun sets."""

from __future__ import annotations

import os
import sys

import sklearn.datasets  # noqa: F401 (here, where it is imported once for both)

import evaluate

WORLD = 2


def run(rank: str | int, port: str, *words: str) -> None:
    """The command line, as process ``rank``."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    sys.exit(evaluate.main(list(words)))
