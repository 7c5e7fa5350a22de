"""``python -m cs_gan.sweep configs/sweeps/<name>.yaml``: a grid of runs over seeds, then one table and plots.

The same command continues after a kill or after its time is over. Finished runs are not repeated, the others resume. It
can then run them elsewhere (--executor).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cs_gan.errors import ConfigError, CsGanError
from cs_gan.sweep.execute import run_all
from cs_gan.sweep.executors import NAMES, Executor, make_executor, read_options
from cs_gan.sweep.lock import held
from cs_gan.sweep.node import Request
from cs_gan.sweep.outcome import read_outcome
from cs_gan.sweep.plan import Run, plan
from cs_gan.sweep.results import judged
from cs_gan.sweep.rows import adopt_rows
from cs_gan.sweep.spec import Sweep, read_sweep
from cs_gan.sweep.stop import Stop
from cs_gan.sweep.summary import summarise

TIME_OVER = 124  # as in timeout(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all runs are done, 2 if one failed or the file can't be used.

    130 after Ctrl-C, 143 after SIGTERM, 124 if the time is over.
    """
    options = _parser().parse_args(arguments)
    try:
        for key in ("jobs", "minutes"):
            value = getattr(options, key)
            if value is not None and not value > 0:
                raise ConfigError(f"--{key}={value:g} must be {'at least 1' if key == 'jobs' else 'above 0'}.")
        sweep, folder = read_sweep(options.file), options.output or Path("samples") / "sweeps" / options.file.stem
        runs = plan(sweep, folder)
        if options.dry_run:
            _list(sweep, runs)
            return 0
        if options.rows:
            print(
                f"{adopt_rows(runs, options.rows.read_text())} finished runs taken from {options.rows}", file=sys.stderr
            )
        if options.summarise:
            summarise(sweep, runs, folder)
            print(folder / "table.md")
            return 0
        with held(folder):
            return _sweep(sweep, runs, folder, options)
    except (CsGanError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cs_gan.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a sweep, such as configs/sweeps/digits.yaml")
    parser.add_argument(
        "--jobs",
        type=int,
        help="runs at a time (default: one a core, sharing its threads; on one GPU give fewer; Ray and Slurm get all "
        "runs at once and queue them)",
    )
    parser.add_argument("--minutes", type=float, help="then stop: runs save, and the same command continues them")
    parser.add_argument("--output", type=Path, help="default: samples/sweeps/<name of the file>")
    parser.add_argument(
        "--rows", type=Path, help="rows.csv of this sweep from elsewhere, such as docs/results/: its runs count as done"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the runs with their commands, run nothing")
    parser.add_argument(
        "--summarise", action="store_true", help="write table and plots of the results so far, run nothing"
    )
    parser.add_argument("--executor", choices=NAMES, default="local", help="where runs execute (default: local)")
    parser.add_argument(
        "--executor-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options: num_gpus=1 for Ray, timeout_min=240 slurm_partition=gpu for Slurm (docs/studies.md)",
    )
    return parser


def _list(sweep: Sweep, runs: Sequence[Run]) -> None:
    """Print what a start would do."""
    for run in runs:
        state = "done" if _done(run) else "to run"
        print(f"{run.name} ({state})\n  {shlex.join(run.command)}")
    points = len({run.point.slug for run in runs})
    print(f"{points} points x {len(sweep.seeds)} seeds = {len(runs)} runs, {sum(map(_done, runs))} done")


def _done(run: Run) -> bool:
    return read_outcome(run).status == "done"


def _sweep(sweep: Sweep, runs: Sequence[Run], folder: Path, options: argparse.Namespace) -> int:
    """Run what isn't done, and report all runs."""
    missing = [run for run in runs if not _done(run)]
    stop, request = Stop(options.minutes), Request(folder)
    if missing:
        given = read_options(options.executor_options)
        executor = make_executor(options.executor, given, folder, request, options.jobs, len(missing))
        with stop:
            _execute(sweep, runs, missing, executor, request, stop)
    results = summarise(sweep, runs, folder)
    failed, waiting = results.total("failed"), results.total("not run")
    print(folder / "table.md")
    if waiting and stop.reason:
        print(f"stopped with {waiting} runs left. The same command continues from here.", file=sys.stderr)
        return 128 + stop.signal if stop.signal else TIME_OVER
    if failed or waiting:
        print(
            f"error: {failed + waiting} of {len(runs)} runs failed or were stopped. The table says why.",
            file=sys.stderr,
        )
        return 2
    return 0


def _execute(
    sweep: Sweep, runs: Sequence[Run], missing: Sequence[Run], executor: Executor, request: Request, stop: Stop
) -> None:
    """With a bar."""
    terminal = sys.stderr.isatty()
    bar: tqdm[Any] = tqdm(
        total=len(runs),
        initial=len(runs) - len(missing),
        unit="run",
        smoothing=0,  # runs end in bursts of as many as there are jobs
        dynamic_ncols=terminal,
        mininterval=0.2 if terminal else 30.0,
    )

    def say(message: str) -> None:
        if terminal:
            bar.write(message, file=sys.stderr)
        else:
            print(message, file=sys.stderr, flush=True)

    def ended(run: Run) -> None:
        outcome = judged(read_outcome(run), sweep)
        if outcome.status == "done":
            bar.update()
            score = (sweep.scores or [outcome.primary])[0]
            say(f"{run.name}: {score} = {outcome.scores[score]:.4g} ({outcome.seconds or 0:.0f} s)")
        elif outcome.reason:  # a run that was cancelled before its start has none
            say(f"{run.name} {outcome.status}: {outcome.reason}")

    say(f"{len(runs)} runs, {len(runs) - len(missing)} done; {executor.slots} at a time; {missing[0].folder.parent}")
    run_all(missing, executor, request, stop, ended, say)
    bar.close()


if __name__ == "__main__":
    sys.exit(main())
