"""Table, plots and page of a sweep, from its run folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cs_gan.files import write_text
from cs_gan.report import save_study
from cs_gan.sweep.plain import as_plain
from cs_gan.sweep.plan import Run
from cs_gan.sweep.plots import save_plots
from cs_gan.sweep.results import Results, read_results
from cs_gan.sweep.rows import write_rows
from cs_gan.sweep.spec import Sweep
from cs_gan.sweep.tables import csv_table, markdown


def summarise(sweep: Sweep, runs: Sequence[Run], folder: Path) -> Results:
    """Write table.csv, rows.csv, table.md, results.json, study.html and plots/ from the results so far."""
    folder.mkdir(parents=True, exist_ok=True)
    results = read_results(sweep, runs)
    write_text(folder / "table.csv", csv_table(results))
    write_text(folder / "rows.csv", write_rows(results))
    write_text(folder / "results.json", json.dumps(as_plain(results), indent=2))
    drawn = save_plots(folder / "plots", results)
    pictures = "".join(f"\n![{path.stem}](plots/{path.name})\n" for path in drawn)
    write_text(folder / "table.md", markdown(results) + pictures)
    save_study(folder / "study.html", folder)
    return results
