"""Summarise the results of benchmarks/gpu.sh in table.md: ``python -m benchmarks.gpu_table <folder>``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree


def table(folder: Path) -> str:
    """The result of the tests, then for each benchmark milliseconds, ratios and other figures."""
    lines, machine = [], ""
    if (folder / "tests.xml").exists():
        suite = ElementTree.parse(folder / "tests.xml").getroot()[0].attrib
        counts = {key: int(suite[key]) for key in ("tests", "failures", "errors", "skipped")}
        (folder / "tests.json").write_text(json.dumps(counts))
        lines.append("Tests: " + ", ".join(f"{value} {key}" for key, value in counts.items()) + ".")
    for path in sorted(folder.glob("*.json")):
        results: dict[str, Any] = json.loads(path.read_text())
        if "title" not in results:
            continue
        machine = machine or results["machine"]
        lines += ["", f"**{results['title']}** (`{path.stem}`)", ""]
        if results["ms"]:
            ratios = {name: f"{value:.3f}" for name, value in results["ratio"].items()}
            lines += ["| | ms | ratio |", "|---|---|---|"]
            lines += [f"| {name} | {value:.4g} | {ratios.get(name, '')} |" for name, value in results["ms"].items()]
        for key in [key for key in results if key not in ("title", "machine", "ms", "ratio")]:
            lines += ["", f"{key}: {_readable(results[key])}"]
    return "\n".join([f"{machine}.", "", *lines, ""])


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_readable(number)}" for key, number in value.items())
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def main(arguments: list[str]) -> int:
    """Print the table and write table.md."""
    folder = Path(arguments[0] if arguments else "gpu-results")
    if not folder.is_dir():
        print(f"{folder} doesn't exist: run `bash benchmarks/gpu.sh` first.", file=sys.stderr)
        return 2
    text = table(folder)
    (folder / "table.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
