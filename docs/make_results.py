"""Make the pages of docs/results/ from the raw rows beside them: ``make results``.

``python docs/make_results.py samples/sweeps/<name>`` first copies a finished sweep's rows there. A study's file is
``configs/studies/<name>.yaml`` or ``configs/sweeps/<name>.yaml``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cs_gan.sweep.plan import plan  # noqa: E402
from cs_gan.sweep.rows import read_rows  # noqa: E402
from cs_gan.sweep.spec import read_sweep  # noqa: E402
from cs_gan.sweep.tables import markdown  # noqa: E402

RESULTS = ROOT / "docs" / "results"


def page(rows: Path) -> str:
    """The page of one study; paths in its file are relative to the repository."""
    files = [Path("configs") / folder / f"{rows.stem}.yaml" for folder in ("studies", "sweeps")]
    sweep = read_sweep(next(path for path in files if path.exists()))
    text = markdown(read_rows(sweep, plan(sweep, Path("samples") / "sweeps" / rows.stem), rows.read_text()))
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
