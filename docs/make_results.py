"""Make the pages of docs/results/ from the raw rows beside them: ``make results``.

``python docs/make_results.py samples/studies/<name>`` first copies a finished study's rows there. A study's file is
``configs/studies/<name>.yaml``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cs_gan.report.chart import save_figure  # noqa: E402
from cs_gan.study.plan import plan  # noqa: E402
from cs_gan.study.plots import against_strength  # noqa: E402
from cs_gan.study.rows import read_rows  # noqa: E402
from cs_gan.study.spec import read_study  # noqa: E402
from cs_gan.study.tables import markdown  # noqa: E402

RESULTS = ROOT / "docs" / "results"


def page(rows: Path) -> str:
    """The page of one study; paths in its file are relative to the repository.

    A study that varies a strength gets a picture of the scores against it.
    """
    study = read_study(Path("configs") / "studies" / f"{rows.stem}.yaml")
    results = read_rows(study, plan(study, Path("samples") / "studies" / rows.stem), rows.read_text())
    text = markdown(results)
    if figure := against_strength(results):
        save_figure(figure, rows.with_suffix(".png"), dpi=100)
        text += f"\n![{results.score} against strength]({rows.stem}.png)\n"
    return f"{text}\nRaw rows, one per run: `docs/results/{rows.name}`.\n"


def main(arguments: list[str]) -> None:
    """Copy what is given, then make every page."""
    for folder in map(Path, arguments):
        shutil.copy(folder / "rows.csv", RESULTS / f"{folder.name}.csv")
    for rows in sorted(RESULTS.glob("*.csv")):
        rows.with_suffix(".md").write_text(page(rows))
        print(rows.with_suffix(".md"))


if __name__ == "__main__":
    main(sys.argv[1:])
