"""Results that a command has already computed, in a file that stays readable if the process is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cs_gan.runs import append_line, read_lines


class Ledger:
    """Results by key, one JSON line each. A key contains everything that the result depends on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._results: dict[str, Any] = {str(line.get("key")): line.get("row") for line in read_lines(path)}

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The stored result, or else that of ``compute``, which is then stored."""
        if key not in self._results:
            result = compute()
            append_line(self.path, {"key": key, "row": result})
            self._results[key] = result
        return self._results[key]
