"""Peak memory of a start and of a critic step, plain and coded: ``python -m benchmarks.memory``.

Each figure is from a process of its own, as Linux counts it. A step's memory is its peak above what the process had
before. *Over FLOPs* is the ratio coded / plain of that memory divided by the ratio of the FLOPs.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.coded_pass import Steps
from benchmarks.start import FIRST_STEP, QUICKSTART, ROOT, TOY
from benchmarks.timing import machine, parser, width_of
from cs_gan.training.dry_run import counting

PEAK = "import re; print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
CASES: dict[str, tuple[list[str] | None, float]] = {"plain": (None, 1.0), "coded": ([""], 1.5)}


def peak_of(code: str, *words: str) -> float:
    """MiB at the peak of ``python -c <code>``, which prints KiB at its end."""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024


def step_memory(options: argparse.Namespace) -> float:
    """MiB of the first critic step of ``options.case``, above what the process had before."""
    step = Steps(options).step("critic", *CASES[options.case])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = _status("VmRSS")
    step(0)
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def flops(options: argparse.Namespace, case: str) -> int:
    """FLOPs of a critic step."""
    step = Steps(options).step("critic", *CASES[case])
    with counting() as counter:
        step(0)
    return int(counter.get_total_flops())


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    words = parser(__doc__, "python -m benchmarks.memory", repeats=3)
    words.add_argument("--network", default="paper32", help="a name for build_gan")
    words.add_argument("--batch", type=int, default=64)
    words.add_argument("--width", type=int, help="of the networks (default: their own)")
    words.add_argument("--case", choices=[*CASES], help="only this step, in this process")
    options = words.parse_args(arguments)
    if options.toy:
        options.network, options.batch, options.width, options.repeats = "dcgan16", 4, 4, 1
    if options.case:
        print(step_memory(options))
        return
    with TemporaryDirectory() as folder:
        recipe = [*QUICKSTART, f"--output_dir={folder}/run", *(TOY if options.toy else [])]
        ended = FIRST_STEP.replace("        os._exit(0)", f"        {PEAK}; sys.stdout.flush(); os._exit(0)")
        figures = {
            "import torch": peak_of(f"import torch; {PEAK}"),
            "from cs_gan import CodedSmoothing": peak_of(f"from cs_gan import CodedSmoothing; {PEAK}"),
            "quickstart, to the end of the first step": peak_of(ended, *recipe),
        }
    size = [f"--network={options.network}", f"--batch={options.batch}"]
    size += [f"--{name}={value}" for name, value in width_of(options.width).items()]
    for case in CASES:
        command = [sys.executable, "-m", "benchmarks.memory", *size, f"--case={case}"]
        found = [
            float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
            for _ in range(options.repeats)
        ]
        figures[f"critic step, {case}"] = sorted(found)[len(found) // 2]
    memory = figures["critic step, coded"] / figures["critic step, plain"]
    arithmetic = flops(options, "coded") / flops(options, "plain")
    print(f"{options.network}, batch {options.batch}; coded: whole critic, N = 1.5 K\n{machine()}")
    for name, value in figures.items():
        print(f"{name:<42} {value:8.1f} MiB")
    print(f"coded / plain: memory {memory:.3f}, FLOPs {arithmetic:.3f}, over FLOPs {memory / arithmetic:.3f}")
    if options.json:
        results = {"MiB": figures, "memory_ratio": memory, "flops_ratio": arithmetic, "machine": machine()}
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
