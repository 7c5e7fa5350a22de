"""Kill a training run again and again and see that it ends as if nothing had happened, to the bit.

``python benchmarks/kills.py`` trains once undisturbed, then once with SIGKILL at random moments, some of them while a
checkpoint is being written, started again with the same command each time. It prints what each kill met and compares
the two runs; the exit code is 1 if they differ. The runs are watched from outside: nothing in them knows of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that `python benchmarks/kills.py` works from anywhere

from cs_gan.training import RunFolder, list_checkpoints, read_checkpoint, read_lines  # noqa: E402
from cs_gan.training.recipes.parse import flatten  # noqa: E402
from cs_gan.training.resume import FREE_ON_RESUME  # noqa: E402

RECIPE = {
    "data.name": "digits",
    "data.flip": "true",
    "model.name": "dcgan16",
    "model.width": "16",
    "training.batch_size": "32",
    "training.n_critic": "2",
    "training.decay": "linear",
    "training.ema_decay": "0.99",
    "training.log_every": "1",
    "coded.critic.blocks": "blocks.1",
    "coded.generator.blocks": "blocks.0",
    "coded.critic.weight_end": "0.2",
    "metrics.extractor": "digits",
    "metrics.num_samples": "200",
    "tracking.trackers": "none",
}
CALIBRATION_STEPS = 40
SAVING, PRUNING = "checkpoints/.partial-*", "checkpoints/.pruned-*"
WRITING = ("*.partial", "grids/*.partial")  # of a single file
POLL = 0.0005  # seconds; a checkpoint is under way for a few hundredths


# -- a run and its end -----------------------------------------------------------------------------


class Run:
    """One start of ``train_gan.py``, its output in a file."""

    def __init__(self, command: list[str], folder: Path, output: Path) -> None:
        self.folder, self.output = RunFolder(folder), output
        self._left = set(self._unfinished(SAVING, PRUNING, *WRITING))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONUNBUFFERED": "1"}
        self.start = time.monotonic()
        with output.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        return self.process.poll() is not None

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.start

    @property
    def began(self) -> str:
        """Where it went on from, in words, or nothing if it has not come so far."""
        found = re.search(r"Going on from (step \d+)|(Writing to)", self.output.read_text(errors="replace"))
        return (found[1] or "nothing: anew") if found else ""

    def unfinished(self, *patterns: str) -> list[Path]:
        """Files and folders under a temporary name, of this start and not of one that was killed before it."""
        return [path for path, changed in self._unfinished(*patterns) if (path, changed) not in self._left]

    def _unfinished(self, *patterns: str) -> Iterator[tuple[Path, int]]:
        for pattern in patterns:
            for path in self.folder.path.glob(pattern):
                with suppress(FileNotFoundError):  # it was renamed or removed meanwhile
                    yield path, path.stat().st_mtime_ns

    def wait(self, until: Callable[[], Any]) -> bool:
        """Poll; False if the run ended first."""
        while not until():
            if self.ended:
                return False
            time.sleep(POLL)
        return True

    def finish(self) -> None:
        """Wait for the end, which must be a good one."""
        if self.process.wait() != 0:
            raise SystemExit(
                f"a run ended with exit code {self.process.returncode}:\n{self.output.read_text()[-4000:]}"
            )

    def family(self) -> list[int]:
        """The process and all that it has started, the launcher first."""
        return [self.process.pid, *descendants(self.process.pid)]

    def kill(self, family: list[int]) -> None:
        """SIGKILL to all of them; waits until they are gone."""
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        while any(alive(pid) for pid in family):
            time.sleep(POLL)


def descendants(pid: int) -> list[int]:
    """Children, their children and so on; torchrun puts its processes into sessions of their own."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # "pid (name) state parent ...", where the name may hold anything
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [below for child in found for below in descendants(child)]


def alive(pid: int) -> bool:
    """Whether a process still runs; one that nobody has asked for its exit code doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# -- what a kill met -------------------------------------------------------------------------------


@dataclass
class Kill:
    """One line of the table."""

    seconds: float
    began: str
    step: str
    doing: str
    went_on: str = "-"

    @property
    def saving(self) -> bool:
        """Whether it came while a checkpoint was being written."""
        return self.doing.startswith("writing checkpoint")


def seen(run: Run, evaluate_every: int) -> tuple[str, str]:
    """The step that a dead run reached and what it was doing, as its folder tells."""
    folder = run.folder
    if not run.began:
        return "-", "starting up"
    log = read_lines(folder.log)
    step = int(log[-1]["step"]) if log else 0
    doing = "training"
    if partial := run.unfinished(SAVING):
        files = ", ".join(sorted(path.stem for path in partial[0].iterdir())) or "no file"
        doing = f"writing checkpoint {int(partial[0].name.rpartition('-')[2])} ({files} so far)"
    elif run.unfinished(PRUNING):
        doing = "pruning checkpoints"
    elif files := run.unfinished(*WRITING):
        file = files[0].relative_to(folder.path)
        doing = f"writing {file.with_name(file.name.strip('.').removesuffix('.partial'))}"
    elif step % evaluate_every == 0 and all(row["step"] != step for row in read_lines(folder.metrics)):
        doing = "evaluating"
    return str(step), doing


def disturb(
    start: Callable[[], Run], kills: int, during_saves: int, pause: float, startup: float, every: int, seed: int
) -> list[Kill]:
    """Start, kill, start again, and at last let it finish.

    Args:
        start: starts the run, always with the same command.
        kills: how many kills.
        during_saves: how many of them while a checkpoint is written.
        pause: mean seconds of training between kills.
        startup: seconds that a start takes.
        every: steps between evaluations.
        seed: of the moments.
    """
    draw = random.Random(seed)
    plan = ["save"] * during_saves + ["any"] * (kills - during_saves)
    draw.shuffle(plan)
    met: list[Kill] = []
    while True:
        run = start()
        kind = plan.pop(0) if plan else "none"
        if kind == "none":
            run.finish()
        else:
            delay = draw.uniform(0, startup + 2 * pause)
            going = run.wait(lambda run=run, delay=delay: run.seconds > delay)
            if going and kind == "save":
                going = run.wait(lambda run=run: run.began)
            family = run.family()  # before a save is seen: to look for it takes as long as a save
            if going and kind == "save":
                going = run.wait(lambda run=run: run.unfinished(SAVING))
                time.sleep(draw.uniform(0, 0.01))  # another stage of it each time
            if going:
                run.kill(family)
        if met:
            met[-1].went_on = run.began or "(killed before it read)"
        if run.process.returncode == 0:
            return met
        if run.process.returncode != -signal.SIGKILL:
            run.finish()
        step, doing = seen(run, every)
        met.append(Kill(run.seconds, run.began, step, doing))
        print(f"kill {len(met):2}: {run.seconds:5.1f} s after its start, at step {step}, {doing}", flush=True)
        if kind == "save" and not met[-1].saving:  # it came too late: another one shall hit
            if "any" in plan:
                plan.remove("any")
            plan.append("save")


# -- the comparison --------------------------------------------------------------------------------


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Names, types, shapes and every bit: 0.0 and -0.0 differ here."""
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype
        and one[key].shape == other[key].shape
        and bool(torch.equal(one[key].reshape(-1).view(torch.uint8), other[key].reshape(-1).view(torch.uint8)))
        for key in one
    )


def compare(whole: RunFolder, parts: RunFolder) -> list[tuple[str, str, bool]]:
    """What was compared, how much of it, and whether it is the same in two finished runs."""
    rows: list[tuple[str, str, bool]] = []
    (one, state), (other, other_state) = (
        read_checkpoint(list_checkpoints(folder.checkpoints)[-1]) for folder in (whole, parts)
    )
    groups = sorted({".".join(key.split(".")[:2]) for key in one.keys() | other.keys()})
    for group in groups:
        ours, theirs = ({k: v for k, v in each.items() if k.startswith(f"{group}.")} for each in (one, other))
        rows.append((group, f"{sum(v.numel() for v in ours.values()):,} numbers", same_bits(ours, theirs)))
    rows.append(("optimisers' settings, step", f"step {state['step']}", _rest(state) == _rest(other_state)))
    for name in ("snapshot", "best"):
        tensors = [load_file(getattr(folder, name)) for folder in (whole, parts)]
        rows.append((f"{name}.safetensors", f"{len(tensors[0])} tensors", same_bits(*tensors)))
    logs = [
        [{k: v for k, v in row.items() if k != "images_per_second"} for row in read_lines(folder.log)]
        for folder in (whole, parts)
    ]
    rows.append(("log.jsonl, all but the speed", f"{len(logs[0])} lines", logs[0] == logs[1]))
    scores = [[(row["step"], row["scores"]) for row in read_lines(folder.metrics)] for folder in (whole, parts)]
    rows.append(("metrics.jsonl, the scores", f"{len(scores[0])} lines", scores[0] == scores[1]))
    ends = [
        {name: (row["step"], row["scores"]) for name, row in json.loads(folder.scores.read_text()).items()}
        for folder in (whole, parts)
    ]
    rows.append(("scores.json, the scores", f"{len(ends[0])} networks", ends[0] == ends[1]))
    grids = [{path.name: path.read_bytes() for path in (folder.path / "grids").iterdir()} for folder in (whole, parts)]
    rows.append(("grids", f"{len(grids[0])} pictures", grids[0] == grids[1]))
    return rows


def _rest(state: dict[str, Any]) -> dict[str, Any]:
    """The state without what names the folder, the clock or what may change on a resume."""
    config = {key: value for key, value in flatten(state["config"]).items() if key not in FREE_ON_RESUME}
    rows = [(row["step"], row["scores"]) for row in state["metrics"]]
    return {**state, "config": config, "metrics": rows, "best": None}


# -- the command -----------------------------------------------------------------------------------


def command(folder: Path, steps: int, processes: int, workers: int) -> list[str]:
    """What is started, each time the same."""
    every = max(2, steps // 60)
    values = RECIPE | {
        "output_dir": str(folder),
        "training.steps": str(steps),
        "training.checkpoint_every": str(every),
        "training.sample_every": str(2 * every),
        "training.evaluate_every": str(4 * every),
        "data.workers": str(workers),
    }
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [*launcher, "train_gan.py", *(f"--{key}={value}" for key, value in values.items())]


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 1 if the two runs differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--during-saves", type=int, default=5, help="how many of them while a checkpoint is written")
    parser.add_argument("--minutes", type=float, default=2.0, help="of undisturbed training, about")
    parser.add_argument("--steps", type=int, help="instead of --minutes")
    parser.add_argument("--processes", type=int, default=1, help="more than one: through torchrun")
    parser.add_argument("--workers", type=int, default=0, help="data.workers")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--folder", type=Path, help="keep the runs here; by default they are removed")
    given = parser.parse_args(arguments)
    if not 0 <= given.during_saves <= given.kills:
        parser.error("--during-saves must lie in 0 ... kills")
    if given.folder and (given.folder.exists() and any(given.folder.iterdir())):
        parser.error(f"--folder={given.folder} isn't empty")
    base = given.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    base.mkdir(parents=True, exist_ok=True)
    try:
        return _measure(given, base)
    finally:
        if given.folder is None:
            shutil.rmtree(base)


def _measure(given: argparse.Namespace, base: Path) -> int:
    starts = 0

    def start(name: str, steps: int) -> Run:
        nonlocal starts
        starts += 1
        words = command(base / name, steps, given.processes, given.workers)
        return Run(words, base / name, base / f"start-{starts:02}.txt")

    steps = given.steps
    if steps is None:
        run = start("calibration", CALIBRATION_STEPS)
        run.finish()
        speed = sorted(row["images_per_second"] for row in read_lines(run.folder.log))[CALIBRATION_STEPS // 2]
        images = int(RECIPE["training.batch_size"]) * int(RECIPE["training.n_critic"]) * given.processes
        steps = round(60 * given.minutes * speed / images)
    run = start("undisturbed", steps)
    run.wait(lambda: run.began)
    startup = run.seconds
    run.finish()
    training = run.seconds - startup
    every = 4 * max(2, steps // 60)
    evaluations = len(read_lines(run.folder.metrics))
    print(
        f"{given.processes} process(es), {given.workers} workers, {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}\n"
        f"undisturbed: {startup:.0f} s to start, {training:.0f} s for {steps} steps and {evaluations} evaluations",
        flush=True,
    )
    pause = training / (given.kills + 1)
    begin = time.monotonic()
    kills = disturb(lambda: start("killed", steps), given.kills, given.during_saves, pause, startup, every, given.seed)
    print(f"killed {len(kills)} times: {time.monotonic() - begin:.0f} s\n")
    print_table(
        ["kill", "seconds", "started from", "step reached", "doing", "then went on from"],
        [
            [str(n), f"{k.seconds:.1f}", k.began or "(not yet)", k.step, k.doing, k.went_on]
            for n, k in enumerate(kills, 1)
        ],
    )
    rows = compare(RunFolder(base / "undisturbed"), RunFolder(base / "killed"))
    print_table(
        ["compared", "size", "verdict"], [[name, size, "same" if same else "DIFFERENT"] for name, size, same in rows]
    )
    same, hit = all(row[2] for row in rows), sum(kill.saving for kill in kills)
    enough = len(kills) >= given.kills and hit >= given.during_saves
    print(f"{len(kills)} kills, {hit} of them while a checkpoint was being written: {'same' if same else 'DIFFERENT'}.")
    if not enough:
        print("The run ended before all kills were made: give more --minutes.")
    return 0 if same and enough else 1


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """As markdown, so that it can be pasted into a page."""
    for line in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(line)} |")
    print()


if __name__ == "__main__":
    sys.exit(main())
