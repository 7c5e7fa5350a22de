"""Stands in for a training script: the same folder, exit codes and manners, at once and without torch.

The score is mu + 10 * seed, and at its best 2 * mu + 10 * seed.
``fail``: no, yes, kill, or the one seed that fails. ``seconds``: how long it takes. ``hold``: a folder; a run waits
before its last step as long as a file of its name is in there.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

KEYS = ("mu", "spline", "alpha", "blocks", "fail", "seconds", "steps", "hold", "config", "tracking.trackers")
KEYS += ("data.name", "data.root", "training.evaluate_every", "training.log_every", "coded.weight", "gan.weight")


def main() -> int:
    options = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
    folder, seed = Path(options.pop("output_dir")), int(options.pop("seed"))
    options.pop("resume")
    for key in options:
        if key not in KEYS:
            print(f"error: unknown configuration key {key!r}.", file=sys.stderr)
            return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / ".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (folder / "starts").open("a") as file:
        file.write(f"{os.environ['OMP_NUM_THREADS']} {os.getpid()}\n")
    asked, kept = json.dumps({key: options[key] for key in options if key != "seconds"}), folder / "asked"
    if kept.exists() and kept.read_text() != asked:
        print(f"error: belongs to another recipe: {kept.read_text()} -> {asked}", file=sys.stderr)
        return 2
    kept.write_text(asked)
    if options.get("fail") == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if options.get("fail") in ("yes", str(seed)):
        print("a first line", file=sys.stderr)
        raise RuntimeError("the stub fails")
    steps, mu = int(options.get("steps", 3)), float(options.get("mu", 0.5))
    (folder / "config.yaml").write_text(f"training: {{steps: {steps}}}\n")
    train(folder, steps, float(options.get("seconds", 0)) / steps, Path(options.get("hold", folder)) / folder.name)
    about = {"primary": "accuracy (%)", "better": "higher", "provenance": {"reference": {"data": "stubs"}}}
    scores = {"accuracy (%)": mu + 10 * seed, "loss": -mu}
    final = {"step": steps, "scores": scores, **about}
    best = {"step": 1, "scores": scores | {"accuracy (%)": 2 * mu + 10 * seed}, **about}
    (folder / "scores.json").write_text(json.dumps({"final": final, "best": best}))
    return 0


def train(folder: Path, steps: int, seconds: float, hold: Path) -> None:
    """From the newest checkpoint on, with one after each step; each step leaves a line in ``steps``."""
    kept = folder / "checkpoints"
    done = max([int(path.name.removeprefix("step-")) for path in kept.glob("step-*")], default=0)
    for step in range(done + 1, steps + 1):
        time.sleep(seconds)
        until = time.monotonic() + 600
        while step == steps and hold.exists():
            assert time.monotonic() < until, "held for too long"
            time.sleep(0.02)
        with (folder / "steps").open("a") as file:
            file.write(f"{step}\n")
        (kept / f"step-{step:08d}").mkdir(parents=True)


sys.exit(main())
