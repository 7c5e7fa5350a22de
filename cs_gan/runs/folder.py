"""The folder of a run: the names of its files, and the lock of the process that writes to it."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cs_gan.errors import ConfigError
from cs_gan.files import lock
from cs_gan.runs.lines import write_whole

WRITER = ".lock"
"""Held by the process that writes to a folder, until it ends or is killed."""


EVALUATED = (
    *(
        "samples.png",
        "samples-*.png",
        "samples.npz",
        "interpolation.png",
        "interpolation-*.png",
        "nearest.png",
        "nearest-*.png",
    ),
    *("score-*.json", "accuracy.json", "accuracy-*.json", "probe.json", "probe-*.json"),
    *(f"robustness{of}/robustness.{kind}" for of in ("", "-*") for kind in ("jsonl", "json", "csv", "html")),
)
"""What evaluate.py writes beside a network unless it is told another place."""


class RunFolder:
    """The files of one run.

    ::

        config.yaml         the resolved recipe
        log.jsonl           losses and speed, one line every log_every steps
        metrics.jsonl       scores with their provenance, one line per evaluation
        metrics.csv, curve.png, report.html     table, plot and page made from it
        scores.json         full scores of the final and the best network
        grid.png            the newest samples;  grids/step-<step>.png  all samples
        training_data.json  name, path and number of the training images
        real.png            some of them, in a grid like that of the samples
        interpolation-strip.png, nearest-strip.png  between latents; beside the nearest training images
        snapshot.safetensors    the averaged network now, with its configuration
        best.safetensors        the averaged network at its best score
        checkpoints/        everything a resume needs
        tracking/           TensorBoard's files
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.log = path / "log.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.table = path / "metrics.csv"
        self.curve = path / "curve.png"
        self.report = path / "report.html"
        self.scores = path / "scores.json"
        self.grid = path / "grid.png"
        self.data = path / "training_data.json"
        self.real = path / "real.png"
        # evaluate.py writes interpolation.png and nearest.png here.
        self.interpolation = path / "interpolation-strip.png"
        self.nearest = path / "nearest-strip.png"
        self.snapshot = path / "snapshot.safetensors"
        self.best = path / "best.safetensors"
        self.grids = path / "grids"
        self.checkpoints = path / "checkpoints"
        self.tracking = path / "tracking"

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Create the folder and lock it against a second run. A kill releases the lock.

        Raises:
            ConfigError: if it can't be written, another process has locked it, or it holds files of these names that
                no run wrote.
        """
        foreign = self._foreign()
        if foreign:
            raise ConfigError(
                f"output_dir={self.path} holds {foreign} that no run of cs_gan wrote, and a run would write over it: "
                "give another --output_dir."
            )
        try:
            self.grids.mkdir(parents=True, exist_ok=True)
            file = (self.path / WRITER).open("w")
        except OSError as error:
            raise ConfigError(f"output_dir={self.path} can't be written: {error}. Choose another folder.") from error
        with file:
            if not lock(file):
                raise ConfigError(
                    f"another process is still writing to {self.path}. Wait for it to end, or give another "
                    "--output_dir."
                )
            yield

    def checkpointed_steps(self) -> list[int]:
        """The steps of the checkpoints. Whether they are damaged is not checked."""
        matches = (re.fullmatch(r"step-(\d+)", path.name) for path in self.checkpoints.glob("step-*"))
        return sorted(int(match[1]) for match in matches if match)

    def _written(self) -> list[Path]:
        """The files and folders that a run writes and that exist."""
        paths = [self.config, self.log, self.metrics, self.table, self.curve, self.report, self.scores, self.grid]
        paths += [self.data, self.real, self.interpolation, self.nearest]
        paths += [self.snapshot, self.best, self.checkpoints, self.tracking, *(grid for _, grid in self.grid_steps())]
        return [path for path in paths if path.exists()]

    def _foreign(self) -> str:
        """The name of a file that a run would write over, in a folder that no run has written to; empty if none."""
        if (self.path / WRITER).exists() or any(self.checkpoints.glob("step-*/manifest.json")):
            return ""
        return next((str(path.relative_to(self.path)) for path in self._written()), "")

    def clear(self) -> None:
        """Delete what a run, and evaluate.py for its networks, wrote here, and nothing else."""
        made = [path for pattern in EVALUATED for path in self.path.glob(pattern)]
        for path in {*self._written(), *made}:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def identity(self) -> str:
        """An id of eight letters that stays with this folder, for trackers that can continue a run."""
        path = self.path / ".id"
        if not path.exists():
            write_whole(path, uuid.uuid4().hex[:8])
        return path.read_text()

    def grid_at(self, step: int) -> Path:
        """The path of the sample grid of a step."""
        return self.grids / f"step-{step:08d}.png"

    def grid_steps(self) -> list[tuple[int, Path]]:
        """Step and path of each sample grid, in the order of their steps."""
        matches = ((re.fullmatch(r"step-(\d+)\.png", path.name), path) for path in self.grids.glob("step-*.png"))
        return sorted((int(match[1]), path) for match, path in matches if match)
