"""Kill a training run many times, and check that its result is bit-identical to that of an uninterrupted run.

``python benchmarks/kills.py`` trains once without kills. Then it trains again with SIGKILL at random times, some of
them while a checkpoint is being written, and restarts with the same command after each kill. It prints what each kill
hit, and compares both runs. The exit code is 1 if they differ.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that `python benchmarks/kills.py` works

from benchmarks.killed_run import SAVING, Kill, Run, seen
from benchmarks.same_runs import compare
from cs_gan.runs import RunFolder, read_lines

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


def disturb(
    start: Callable[[], Run], kills: int, during_saves: int, pause: float, startup: float, every: int, seed: int
) -> list[Kill]:
    """Start, kill and restart the run, and finally let it finish.

    Args:
        start: starts the run, always with the same command.
        kills: number of kills.
        during_saves: number of kills that must hit the writing of a checkpoint.
        pause: mean seconds of training between kills.
        startup: seconds that a start takes.
        every: steps between evaluations.
        seed: for the times of the kills.
    """
    draw = random.Random(seed)
    plan = ["save"] * during_saves + ["any"] * (kills - during_saves)
    draw.shuffle(plan)
    done: list[Kill] = []
    while True:
        run = start()
        kind = plan.pop(0) if plan else "none"
        if kind == "none":
            run.finish()
        else:
            delay = draw.uniform(0, startup + 2 * pause)
            going = run.wait(partial(_older_than, run, delay))
            if going and kind == "save":
                going = run.wait(partial(_has_begun, run))
            family = run.family()  # before the save starts, because this takes as long as a save
            if going and kind == "save":
                going = run.wait(partial(run.unfinished, SAVING))
                time.sleep(draw.uniform(0, 0.01))  # to hit another stage of the save each time
            if going:
                run.kill(family)
        if done:
            done[-1].continued = run.began or "(killed before it read)"
        if run.process.returncode == 0:
            return done
        if run.process.returncode != -signal.SIGKILL:
            run.finish()
        step, doing = seen(run, every)
        done.append(Kill(run.seconds, run.began, step, doing))
        print(f"kill {len(done):2}: {run.seconds:5.1f} s after its start, at step {step}, {doing}", flush=True)
        if kind == "save" and not done[-1].saving:  # too late; plan another one
            if "any" in plan:
                plan.remove("any")
            plan.append("save")


def _older_than(run: Run, seconds: float) -> bool:
    return run.seconds > seconds


def _has_begun(run: Run) -> str:
    return run.began


def command(folder: Path, steps: int, processes: int, workers: int) -> list[str]:
    """The command line, the same for every start."""
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
    parser.add_argument("--kills", type=int, default=20, help="number of kills")
    parser.add_argument("--during-saves", type=int, default=5, help="number of kills while a checkpoint is written")
    parser.add_argument("--minutes", type=float, default=2.0, help="approximate time of uninterrupted training")
    parser.add_argument("--steps", type=int, help="training steps, instead of --minutes")
    parser.add_argument("--processes", type=int, default=1, help="with more than one, torchrun starts them")
    parser.add_argument("--workers", type=int, default=0, help="data.workers")
    parser.add_argument("--seed", type=int, default=0, help="for the times of the kills")
    parser.add_argument("--folder", type=Path, help="keep the runs in this folder; by default they are removed")
    given = parser.parse_args(arguments)
    if not 0 <= given.during_saves <= given.kills:
        parser.error("--during-saves must be between 0 and --kills")
    if given.folder and given.folder.exists() and any(given.folder.iterdir()):
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
    run = start("uninterrupted", steps)
    run.wait(lambda: run.began)
    startup = run.seconds
    run.finish()
    training = run.seconds - startup
    every = 4 * max(2, steps // 60)
    evaluations = len(read_lines(run.folder.metrics))
    print(
        f"{given.processes} process(es), {given.workers} workers, {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}\n"
        f"uninterrupted: {startup:.0f} s to start, {training:.0f} s for {steps} steps and {evaluations} evaluations",
        flush=True,
    )
    pause = training / (given.kills + 1)
    begin = time.monotonic()
    kills = disturb(lambda: start("killed", steps), given.kills, given.during_saves, pause, startup, every, given.seed)
    print(f"killed {len(kills)} times: {time.monotonic() - begin:.0f} s\n")
    print_table(
        ["kill", "seconds", "started from", "step reached", "doing", "then continued from"],
        [
            [str(n), f"{k.seconds:.1f}", k.began or "(not yet)", k.step, k.doing, k.continued]
            for n, k in enumerate(kills, 1)
        ],
    )
    rows = compare(RunFolder(base / "uninterrupted"), RunFolder(base / "killed"))
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
    """Print a Markdown table."""
    for line in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(line)} |")
    print()


if __name__ == "__main__":
    sys.exit(main())
