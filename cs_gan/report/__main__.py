"""``python -m cs_gan.report samples/<run> [samples/<other> ...]``: report on a run, or compare several."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cs_gan.errors import DataError
from cs_gan.report import save_comparison, save_overview, save_report, save_zoo
from cs_gan.runs import RunFolder


def main(arguments: list[str] | None = None) -> int:
    """0 if the file was written; 2 if a folder is not a run, or the output has another suffix."""
    parser = argparse.ArgumentParser(prog="python -m cs_gan.report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, as train_gan.py writes them")
    parser.add_argument(
        "--output",
        type=Path,
        help="a page (.html), picture (.png) or table (.md); report.html in the run's folder, or comparison.html for "
        "several runs",
    )
    options = parser.parse_args(arguments)
    single = len(options.runs) == 1
    output = options.output or (options.runs[0] / "report.html" if single else Path("comparison.html"))
    try:
        write(output, options.runs)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(output)
    return 0


def write(output: Path, runs: Sequence[Path]) -> None:
    """A picture, a table or a page, by the suffix of ``output``.

    Folders of a study are left out in which no run began, or of which it took only the row from elsewhere.

    Raises:
        DataError: if a folder is not a run, or the suffix is none of ``.png``, ``.md`` and ``.html``.
    """
    if output.suffix not in (".png", ".md", ".html"):
        raise DataError(f"--output={output}: give a file name that ends in .html, .png or .md.")
    for run in runs:
        if not run.is_dir():
            raise DataError(f"{run} is not a folder. Give the folder of a run.")
    rows = [run for run in runs if (run / "study.json").exists() and not RunFolder(run).config.exists()]
    if rows and len(rows) < len(runs):
        print(f"note: {len(rows)} folders of a study have no run and are left out, such as {rows[0]}", file=sys.stderr)
        runs = [run for run in runs if run not in rows]
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".png":
        save_overview(output, runs)
    elif output.suffix == ".md":
        save_zoo(output, runs)
    elif len(runs) == 1:
        save_report(output, runs[0])
    else:
        save_comparison(output, runs)


if __name__ == "__main__":
    sys.exit(main())
