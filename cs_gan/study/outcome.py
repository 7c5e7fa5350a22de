"""The outcome of a run, read from its folder."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from cs_gan.files import write_text
from cs_gan.runs import SIGNALS, RunFolder
from cs_gan.runs.settings import LENGTH
from cs_gan.study.plan import Run, identity

RECORD = "study.json"  # file in the run's folder: its settings and how it ended
OUTPUT = "output.txt"
STOPPED = {128 + number for number in SIGNALS} | {-number for number in SIGNALS}
MOST = 600  # maximum length of a reason
BEST = "best "  # prefix of a score's name: at the best step, not the last


@dataclass(frozen=True)
class Outcome:
    """The state of a run: ``done`` with scores; ``failed``; or ``not run``, which the next start of the study runs.

    ``seconds`` is the wall-clock time of all its starts, including loading and scoring. ``settings`` is the digest of
    the settings it was made with, empty if unknown.
    """

    status: Literal["done", "failed", "not run"]
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    primary: str = ""
    better: str = ""
    scored_on: str = ""
    seconds: float | None = None
    settings: str = ""
    images: str = ""  # fingerprint of the test images it was scored on; those of the training images depend on the seed
    step: int | None = None  # where the next start continues, for an unfinished run
    steps: int | None = None  # number of requested steps


def read_outcome(run: Run) -> Outcome:
    """Read the folder. Scores count only if they were made with the current settings."""
    record = _read(run.folder / RECORD)
    if record and (changed := _changed(record, run)):
        refused = f". {record['refused']}" if record.get("refused") else ""
        return Outcome("not run", f"made with other settings ({'; '.join(changed.values())}){refused}")
    if "row" in record:
        return Outcome(**record["row"])
    step, steps = _steps_done(run.folder), _steps(run.folder)
    if not record:
        return Outcome("not run", step=step, steps=steps)
    code, reason, seconds = record.get("exit_code"), str(record.get("reason", "")), record.get("seconds")
    if code in STOPPED:
        return Outcome("not run", "stopped before its end", seconds=seconds, step=step, steps=steps)
    if code != 0:
        return Outcome("failed", reason, seconds=seconds, step=step, steps=steps)
    scored = _read(RunFolder(run.folder).scores)
    final = scored.get("final") or {}
    if not final.get("scores"):
        return Outcome("failed", reason or "it left no scores.json", seconds=seconds, step=step, steps=steps)
    if final.get("step") != steps:
        return Outcome("failed", f"scored at step {final.get('step')}, but {steps} are requested", seconds=seconds)
    scores = {name: float(value) for name, value in final["scores"].items()}
    scores |= {
        f"{BEST}{name}": float(value) for name, value in ((scored.get("best") or {}).get("scores") or {}).items()
    }
    about = (final.get("provenance") or {}).get("reference") or {}
    scored_on = ", ".join(str(about[key]) for key in ("data", "split") if about.get(key))
    primary, better = final.get("primary", ""), final.get("better", "")
    on_training_images = str(about.get("split")).startswith("train")
    images = "" if on_training_images else str(about.get("fingerprint") or "")
    return Outcome("done", "", scores, primary, better, scored_on, seconds, run.settings, images)


def made_otherwise(run: Run) -> str:
    """The settings in which what is in the folder differs; empty if this run may continue it, or there is nothing.

    A run may train longer than before.
    """
    record, files = _read(run.folder / RECORD), RunFolder(run.folder)
    begun = "row" in record or files.scores.exists() or bool(_steps_done(run.folder))
    changed = _changed(record, run) if record and begun else {}
    return "" if changed.keys() <= LENGTH and "row" not in record else "; ".join(changed.values())


def record(run: Run, code: int, seconds: float, output_from: int) -> None:
    """Record how a run ended.

    Args:
        run: the run.
        code: its exit code.
        seconds: duration of this start; that of earlier starts is added.
        output_from: position of its output in the file, after that of earlier starts.
    """
    reason = ""
    if code != 0:
        reason = last_words(run.folder / OUTPUT, output_from) or "without a word"
        reason += f" (killed by {signal.Signals(-code).name})" if code < 0 else ""
        before = _read(run.folder / RECORD)
        if before.get("exit_code") == 0 and _changed(before, run) and _is_finished(run.folder):
            # A longer run was refused before its first step: the shorter one is still there.
            write_text(run.folder / RECORD, json.dumps(before | {"refused": reason}, indent=2))
            return
    elif not RunFolder(run.folder).scores.exists():
        reason = "it ended before its last step (training.max_minutes?), or nothing scores it (metrics)"
    _write(run, code, reason, seconds)


def record_loss(run: Run, reason: str) -> None:
    """Record the end of a run that couldn't record it itself, for example because its node is gone."""
    _write(run, None, reason, 0.0)


def adopt(run: Run, outcome: Outcome) -> None:
    """Take over a run that was done elsewhere, of which only its row is left."""
    run.folder.mkdir(parents=True, exist_ok=True)
    write_text(run.folder / RECORD, json.dumps({"asked": run.asked, "row": asdict(outcome)}, indent=2))


def last_words(path: Path, start: int = 0) -> str:
    """The error message of a run, or its last line."""
    with path.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in re.split(r"[\r\n]+", file.read().decode(errors="replace"))]
    lines = [line for line in lines if line]
    errors = [number for number, line in enumerate(lines) if line.startswith("error:")]
    return (" ".join(lines[errors[-1] :]) if errors else "".join(lines[-1:]))[:MOST]


def _write(run: Run, code: int | None, reason: str, seconds: float) -> None:
    before = _read(run.folder / RECORD)
    if before and _changed(before, run).keys() <= LENGTH:
        seconds += float(before.get("seconds") or 0.0)
    content = {"asked": run.asked, "exit_code": code, "reason": reason, "seconds": round(seconds, 1)}
    run.folder.mkdir(parents=True, exist_ok=True)
    write_text(run.folder / RECORD, json.dumps(content, indent=2))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _steps(folder: Path) -> int | None:
    """The number of steps of the run, from its resolved configuration."""
    try:
        return int(yaml.safe_load(RunFolder(folder).config.read_text())["training"]["steps"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _is_finished(folder: Path) -> bool:
    """Whether the folder has the final scores of the run that it describes."""
    step = (_read(RunFolder(folder).scores).get("final") or {}).get("step")
    return step is not None and step == _steps(folder)


def _steps_done(folder: Path) -> int | None:
    """The step of the newest checkpoint; None if the run hasn't started."""
    files = RunFolder(folder)
    return max(files.checkpointed_steps(), default=0) if files.config.exists() else None


def _changed(record: Mapping[str, Any], run: Run) -> dict[str, str]:
    """Key -> ``key: before -> now``, of the settings that change results."""
    asked = record.get("asked")
    before, now = identity(asked if isinstance(asked, dict) else {}), identity(run.asked)
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return {key: f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys}
