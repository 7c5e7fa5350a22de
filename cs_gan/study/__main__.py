"""``python -m cs_gan.study configs/studies/<name>.yaml``: a grid of runs over seeds, then one table and plots.

The same command continues after a kill or after its time is over. Finished runs are not repeated, the others resume. It
can then run them elsewhere (--executor).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cs_gan.errors import ConfigError, CsGanError
from cs_gan.study.check import check_points
from cs_gan.study.execute import run_all
from cs_gan.study.executor import Executor
from cs_gan.study.executors import NAMES, make_executor, read_options
from cs_gan.study.lock import held
from cs_gan.study.outcome import Outcome, adopt, made_otherwise, read_outcome
from cs_gan.study.plan import Run, plan, with_recipe_as_read
from cs_gan.study.process import Request
from cs_gan.study.results import judged
from cs_gan.study.rows import adoptable
from cs_gan.study.spec import Study, checked_baseline, read_study
from cs_gan.study.stop import ALIKE, Stop
from cs_gan.study.summary import summarise

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
        study, folder = read_study(options.file), options.output or Path("samples") / "studies" / options.file.stem
        if options.baseline is not None:
            study = replace(study, baseline=checked_baseline(study.path, options.baseline, study.cases))
        runs = plan(study, folder)
        if not options.summarise:
            check_points(study, runs)
        known = _known(study, runs, options.rows) if options.rows else []
        if options.dry_run:
            _list(study, runs, {run.name for run, _ in known})
            return 0
        _check_folders(runs)
        for run, outcome in known:
            adopt(run, outcome)
        if options.summarise:
            summarise(study, runs, folder)
            print(folder / "table.md")
            return 0
        with held(folder):
            return _run(study, runs, folder, options)
    except (CsGanError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cs_gan.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a study, such as configs/studies/digits.yaml")
    parser.add_argument(
        "--jobs",
        type=int,
        help="runs at a time (default: one a core, sharing its threads; on one GPU give fewer; Ray and Slurm get all "
        "runs at once and queue them)",
    )
    parser.add_argument("--minutes", type=float, help="then stop: runs save, and the same command continues them")
    parser.add_argument("--output", type=Path, help="default: samples/studies/<name of the file>")
    parser.add_argument(
        "--rows", type=Path, help="rows.csv of this study from elsewhere, such as docs/results/: its runs count as done"
    )
    parser.add_argument(
        "--baseline", metavar="CASE", help="compare with this case, instead of the one that the file names"
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


def _list(study: Study, runs: Sequence[Run], known: set[str]) -> None:
    """Print what a start would do."""
    done = {run.name for run in runs if run.name in known or _done(run)}
    for run in runs:
        otherwise = made_otherwise(run)
        state = f"made with other settings ({otherwise})" if otherwise else "done" if run.name in done else "to run"
        print(f"{run.name} ({state})\n  {shlex.join(run.command)}")
    points = len({run.point.slug for run in runs})
    print(f"{points} points x {len(study.seeds)} seeds = {len(runs)} runs, {len(done)} done")


def _known(study: Study, runs: Sequence[Run], rows: Path) -> list[tuple[Run, Outcome]]:
    """The finished runs of these rows. The first start of a study whose rows shall be kept has none yet."""
    if not rows.exists():
        print(f"{rows} doesn't exist yet: no run is taken from it", file=sys.stderr)
        return []
    known = adoptable(study, runs, rows.read_text())
    unknown = sum(not outcome.settings for _, outcome in known)
    note = f"; {unknown} of them don't say with which settings they were made" if unknown else ""
    print(
        f"{len(known)} finished runs taken from {rows}{note}. Rows of other settings, or without a score that the "
        "study asks for, are not.",
        file=sys.stderr,
    )
    return known


def _done(run: Run) -> bool:
    return read_outcome(run).status == "done"


def _check_folders(runs: Sequence[Run]) -> None:
    """Refuse to go on with runs of other settings; note folders of no run."""
    otherwise = [(run, changed) for run in runs if (changed := made_otherwise(run))]
    if otherwise:
        run, changed = otherwise[0]
        raise ConfigError(
            f"{len(otherwise)} of {len(runs)} runs were made with other settings, such as {run.folder} ({changed}). "
            "Give another --output to keep them, or delete their folders to run them again."
        )
    folder, names = runs[0].folder.parent, {run.name for run in runs}
    others = sorted(path.name for path in folder.glob("*") if path.is_dir() and path.name not in names)
    if others:
        more = f", or in {len(others) - 1} more folders there" if others[1:] else ""
        print(f"note: no run of this study is in {folder / others[0]}{more}.", file=sys.stderr)


def _run(study: Study, runs: Sequence[Run], folder: Path, options: argparse.Namespace) -> int:
    """Run what isn't done, and report all runs."""
    missing = [run for run in with_recipe_as_read(study, runs, folder) if not _done(run)]
    missing.sort(key=lambda run: read_outcome(run).status == "failed")  # those that failed before come last
    stop, request = Stop(options.minutes), Request(folder)
    if missing:
        executor_options = read_options(options.executor_options)
        executor = make_executor(options.executor, executor_options, folder, request, options.jobs, len(missing))
        with stop:
            _execute(study, runs, missing, executor, request, stop)
    results = summarise(study, runs, folder)
    failed, waiting = results.total("failed"), results.total("not run")
    print(folder / "table.md")
    if waiting and stop.failure:
        print(
            f"{stop.failure}\nerror: the first {ALIKE} runs all failed with the error above, and {waiting} more were "
            "not run. Repeat the command when it is mended; runs that failed come last then.",
            file=sys.stderr,
        )
        return 2
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
    study: Study, runs: Sequence[Run], missing: Sequence[Run], executor: Executor, request: Request, stop: Stop
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
        outcome = judged(read_outcome(run), study)
        stop.count(outcome.reason if outcome.status == "failed" and outcome.reason.startswith("error:") else "")
        if outcome.status == "done":
            bar.update()
            score = (study.scores or [outcome.primary])[0]
            say(f"{run.name}: {score} = {outcome.scores[score]:.4g} ({outcome.seconds or 0:.0f} s)")
        elif outcome.reason:  # a run that was cancelled before its start has none
            say(f"{run.name} {outcome.status}: {outcome.reason}")

    say(f"{len(runs)} runs, {len(runs) - len(missing)} done; {executor.slots} at a time; {missing[0].folder.parent}")
    run_all(missing, executor, request, stop, ended, say)
    bar.close()


if __name__ == "__main__":
    sys.exit(main())
