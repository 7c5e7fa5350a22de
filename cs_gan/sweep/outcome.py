"""What became of a run, told from its folder."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from cs_gan.sweep.plan import Run

RECORD = "sweep.json"  # in the run's folder: what was asked, and how it ended
OUTPUT = "output.txt"
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
MOST = 600  # letters of a reason
BEST = "best "  # in front of a score's name: of the step that scored best, not of the last one


@dataclass(frozen=True)
class Outcome:
    """How a run stands: ``done`` with scores; ``failed``; or ``not run``, which another start of the sweep does.

    ``seconds`` is the wall-clock time of all its starts, with loading and scoring.
    """

    status: Literal["done", "failed", "not run"]
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    primary: str = ""
    better: str = ""
    scored_on: str = ""
    seconds: float | None = None
    step: int | None = None  # where another start goes on from, of a run that isn't done
    steps: int | None = None  # how many are asked for


def read_outcome(run: Run) -> Outcome:
    """From what the folder holds. Scores count only where all that is asked now is what was asked then."""
    record = _read(run.folder / RECORD)
    if record and record.get("asked") != run.asked:
        return Outcome("not run", f"made with other settings ({_differences(record.get('asked') or {}, run.asked)})")
    step, steps = _steps_done(run.folder), _steps(run.folder)
    if not record:
        return Outcome("not run", step=step, steps=steps)
    code, reason, seconds = record.get("exit_code"), str(record.get("reason", "")), record.get("seconds")
    if code in STOPPED:
        return Outcome("not run", "stopped before its end", seconds=seconds, step=step, steps=steps)
    if code != 0:
        return Outcome("failed", reason, seconds=seconds, step=step, steps=steps)
    told = _read(run.folder / "scores.json")
    final = told.get("final") or {}
    if not final.get("scores"):
        return Outcome("failed", reason or "it left no scores.json", seconds=seconds, step=step, steps=steps)
    if final.get("step") != steps:
        return Outcome("failed", f"scored at step {final.get('step')}, and {steps} are asked for", seconds=seconds)
    scores = {name: float(value) for name, value in final["scores"].items()}
    scores |= {f"{BEST}{name}": float(value) for name, value in ((told.get("best") or {}).get("scores") or {}).items()}
    about = (final.get("provenance") or {}).get("reference") or {}
    scored_on = ", ".join(str(about[key]) for key in ("data", "split") if about.get(key))
    return Outcome("done", "", scores, final.get("primary", ""), final.get("better", ""), scored_on, seconds)


def record(run: Run, code: int, seconds: float, output_from: int) -> None:
    """Keep how a run ended.

    Args:
        run: which.
        code: its exit code.
        seconds: how long this start took; that of earlier ones is added.
        output_from: where its output begins in the file, which holds that of earlier starts too.
    """
    reason = ""
    if code != 0:
        reason = last_words(run.folder / OUTPUT, output_from) or "without a word"
        reason += f" (killed by {signal.Signals(-code).name})" if code < 0 else ""
    elif not (run.folder / "scores.json").exists():
        reason = "it ended before its last step (training.max_minutes?), or nothing scores it (metrics)"
    _write(run, code, reason, seconds)


def record_loss(run: Run, reason: str) -> None:
    """Keep that a run ended where nothing could record it, as when its node is gone."""
    _write(run, None, reason, 0.0)


def last_words(path: Path, start: int = 0) -> str:
    """The error that a run ended with, or else its last line."""
    with path.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in re.split(r"[\r\n]+", file.read().decode(errors="replace"))]
    lines = [line for line in lines if line]
    errors = [number for number, line in enumerate(lines) if line.startswith("error:")]
    return (" ".join(lines[errors[-1] :]) if errors else "".join(lines[-1:]))[:MOST]


def write_whole(path: Path, content: str) -> None:
    """Replace a text file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)


def _write(run: Run, code: int | None, reason: str, seconds: float) -> None:
    before = _read(run.folder / RECORD)
    if before.get("asked") == run.asked:
        seconds += float(before.get("seconds") or 0.0)
    content = {"asked": run.asked, "exit_code": code, "reason": reason, "seconds": round(seconds, 1)}
    run.folder.mkdir(parents=True, exist_ok=True)
    write_whole(run.folder / RECORD, json.dumps(content, indent=2))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _steps(folder: Path) -> int | None:
    """How many steps the run was to make, as it resolved them."""
    try:
        return int(yaml.safe_load((folder / "config.yaml").read_text())["training"]["steps"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return None


def _steps_done(folder: Path) -> int | None:
    """The step of the newest checkpoint; None where nothing was begun."""
    if not (folder / "config.yaml").exists():
        return None
    found = (re.fullmatch(r"step-(\d+)", path.name) for path in (folder / "checkpoints").glob("step-*"))
    return max((int(match[1]) for match in found if match), default=0)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return "; ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys)
