"""``python -m cs_gan.report samples/<run> [samples/<other> ...]``: draw runs side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cs_gan.errors import DataError
from cs_gan.report import save_overview


def main(arguments: list[str] | None = None) -> int:
    """0 when the picture is written, 2 when a folder is no run."""
    parser = argparse.ArgumentParser(prog="python -m cs_gan.report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, as train_gan.py writes them")
    parser.add_argument("--output", type=Path, default=Path("overview.png"), help="the picture (overview.png)")
    options = parser.parse_args(arguments)
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        save_overview(options.output, options.runs)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
