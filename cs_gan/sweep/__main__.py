"""``python -m cs_gan.sweep configs/sweeps/<name>.yaml``: a grid of runs over seeds, then one table and plots.

The same command goes on after a kill: runs that are done are not run again, the others resume themselves.
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
from cs_gan.sweep.lock import held
from cs_gan.sweep.outcome import read_outcome
from cs_gan.sweep.plan import Run, plan
from cs_gan.sweep.results import judged
from cs_gan.sweep.spec import Sweep, read_sweep
from cs_gan.sweep.summary import summarise
from cs_gan.sweep.workers import Stop, run_all, usable_cores


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every run is done, 2 when one failed or the file can't be used, 130 after Ctrl-C, 143 after SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m cs_gan.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a sweep, such as configs/sweeps/digits.yaml")
    parser.add_argument(
        "--jobs", type=int, help="runs at a time (default: one a core, sharing its threads; on one GPU give fewer)"
    )
    parser.add_argument("--output", type=Path, help="default: samples/sweeps/<name of the file>")
    parser.add_argument("--dry-run", action="store_true", help="list the runs with their commands, run nothing")
    parser.add_argument("--summarise", action="store_true", help="write table and plots of what is there, run nothing")
    options = parser.parse_args(arguments)
    try:
        if options.jobs is not None and options.jobs < 1:
            raise ConfigError(f"--jobs={options.jobs} must be at least 1.")
        sweep, folder = read_sweep(options.file), options.output or Path("samples") / "sweeps" / options.file.stem
        runs = plan(sweep, folder)
        if options.dry_run:
            _list(sweep, runs)
            return 0
        if options.summarise:
            summarise(sweep, runs, folder)
            print(folder / "table.md")
            return 0
        with held(folder):
            return _sweep(sweep, runs, folder, options.jobs)
    except (CsGanError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _list(sweep: Sweep, runs: Sequence[Run]) -> None:
    """What a start would do."""
    for run in runs:
        state = "done" if _done(run) else "to run"
        print(f"{run.name} ({state})\n  {shlex.join(run.command)}")
    points = len({run.point.slug for run in runs})
    print(f"{points} points x {len(sweep.seeds)} seeds = {len(runs)} runs, {sum(map(_done, runs))} done")


def _done(run: Run) -> bool:
    return read_outcome(run).status == "done"


def _sweep(sweep: Sweep, runs: Sequence[Run], folder: Path, jobs: int | None) -> int:
    """Run what isn't done, and tell of all."""
    cores = usable_cores()
    jobs = jobs or cores
    missing = [run for run in runs if not _done(run)]
    terminal = sys.stderr.isatty()
    bar: tqdm[Any] = tqdm(
        total=len(runs),
        initial=len(runs) - len(missing),
        unit="run",
        smoothing=0,  # runs end in bursts, as many as there are jobs
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
        else:
            say(f"{run.name} {outcome.status}: {outcome.reason}")

    say(f"{len(runs)} runs, {len(runs) - len(missing)} done; {jobs} at a time; {folder}")
    with Stop() as stop:
        run_all(missing, jobs, max(1, cores // jobs), stop, ended, say)
        bar.close()
        results = summarise(sweep, runs, folder)
    failed, waiting = results.total("failed"), results.total("not run")
    print(folder / "table.md")
    if stop.signal:
        print(f"stopped with {waiting} runs to go; the same command goes on from here.", file=sys.stderr)
        return 128 + stop.signal
    if failed or waiting:
        print(
            f"error: {failed + waiting} of {len(runs)} runs failed or were stopped; the table says why.",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
