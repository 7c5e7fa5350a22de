"""What a person waits for before the first step, compared with ``import torch``: ``python -m benchmarks.start``.

Each measurement is a process of its own, from its start to its end, and all take turns. The first line on the screen is
timed up to the end of a process that is killed when it has printed it, the first step up to the end of a process that
ends there. Wall time, so the machine should be idle; ``chrt -r 10`` before the command (as root) comes near to it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.timing import measure, parser, report, rows_of

ROOT = Path(__file__).parents[1]
QUICKSTART = ["--config=quickstart", "--training.steps=2", "--resume=never"]
TOY = ["--model.width=4", "--training.batch_size=4", "--metrics.extractor=none"]
FIRST_STEP = """
import os, sys, train_gan
make = train_gan.task
def task(session):
    made = make(session)
    step = made.step
    def only(number):
        step(number)
        os._exit(0)
    made.step = only
    return made
train_gan.task = task
sys.exit(train_gan.main(sys.argv[1:]))
"""


def run(words: Sequence[str], expected: int = 0) -> None:
    """Run ``python <words>`` to its end, and check its exit code."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stderr


def first_line(words: Sequence[str]) -> None:
    """Run ``python <words>`` until it has printed a line."""
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout
    line = process.stdout.readline()
    process.kill()
    process.communicate()
    assert line.startswith(b"Loading"), line


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    options = parser(__doc__, "python -m benchmarks.start").parse_args(arguments)
    with TemporaryDirectory() as folder:
        recipe = [*QUICKSTART, f"--output_dir={folder}/run", *(TOY if options.toy else [])]
        variants = {
            "import torch": partial(run, ["-c", "import torch"]),
            "train_gan.py --help": partial(run, ["train_gan.py", "--help"]),
            "train_gan.py --list-recipes": partial(run, ["train_gan.py", "--list-recipes"]),
            "train_gan.py --version": partial(run, ["train_gan.py", "--version"]),
            "an unknown key": partial(run, ["train_gan.py", "--training.stepps=1"], 2),
            "a recipe that isn't there": partial(run, ["train_gan.py", "--config=nowhere.yaml"], 2),
            "evaluate.py --help": partial(run, ["evaluate.py", "--help"]),
            "quickstart, to the first line": partial(first_line, ["train_gan.py", *recipe]),
            "quickstart, to the end of the first step": partial(run, ["-c", FIRST_STEP, *recipe]),
        }
        if options.toy:
            names = ("import torch", "an unknown key", "quickstart, to the end of the first step")
            variants = {name: variants[name] for name in names}
        timings = measure(variants, 1 if options.toy else options.repeats)
    report("from the start of a process to its end", rows_of(timings), "cpu", options.json)


if __name__ == "__main__":
    main()
