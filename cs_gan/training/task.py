"""The task that the training loop trains, and its state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from cs_gan.runs import Row, best, evaluation_of
from cs_gan.training.recipes.sections import RunConfig
from cs_gan.training.session import Session
from cs_gan.training.unread_losses import UnreadLosses


@dataclass
class State:
    """The state of a run besides its weights.

    Attributes:
        step: number of steps done.
        losses: the losses since the last line of log.jsonl.
        metrics: every evaluation so far.
        remarked: whether a line of the log was written since the start of the process.
    """

    step: int = 0
    losses: UnreadLosses = field(default_factory=UnreadLosses)
    metrics: list[Row] = field(default_factory=list)
    remarked: bool = False

    @property
    def best(self) -> Row | None:
        """The evaluation with the best primary score; the earlier one if two are equal."""
        evaluations = [evaluation for row in self.metrics if (evaluation := evaluation_of(row))]
        top = best(evaluations)
        return next((row for row in self.metrics if top and row["step"] == top.step), None)


Config = TypeVar("Config", bound=RunConfig)


class Task(ABC, Generic[Config]):
    """What is trained: networks, optimisers, a step.

    Attributes:
        session: the environment of the run.
        modules, optimizers: by name. With the step number they are everything that the next step depends on.
        circumstances: what a step depends on besides the configuration. A resume must have the same.
        images_per_step: number of images in all processes together.
    """

    session: Session[Config]
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    circumstances: dict[str, Any]
    images_per_step: int
    warm_up_steps = 0
    """Evaluations up to this step are of an untrained network, which is never the best."""

    @property
    def config(self) -> Config:
        """The recipe."""
        return self.session.config

    @property
    def rescores(self) -> bool:
        """Whether the final score differs from that of the curve, so that networks are scored once more at the end."""
        return True

    @abstractmethod
    def step(self, step: int) -> dict[str, Tensor]:
        """One update, a function of only (weights, seed, step, rank). Returns detached scalar losses by name.

        The next step may overwrite them.
        """

    @abstractmethod
    def sample(self, done: int) -> None:
        """Save pictures of the state after ``done`` steps. Called on the first process."""

    @abstractmethod
    def evaluate(self, about: dict[str, Any], *, full: bool = False, snapshot: Path | None = None) -> Row | None:
        """Scores of the current network, or of a snapshot; None if nothing is scored. Called on all processes.

        The first process's row counts.

        Args:
            about: added to the provenance.
            full: use the counts of the final score, not those of the curve.
            snapshot: a file written by :meth:`save_snapshot`.

        Returns:
            ``{"scores": {name: value}, "primary": name, "better": "lower" or "higher", "provenance": {...}}``.
        """

    @abstractmethod
    def save_snapshot(self, path: Path, done: int, scores: Mapping[str, float] | None) -> None:
        """Save the network for use, in one file."""

    @abstractmethod
    def draw(self) -> None:
        """Update curves and report of the run folder, after a new line of metrics.jsonl."""

    @abstractmethod
    def describe(self) -> list[str]:
        """Lines that describe networks and data."""

    def extras(self) -> dict[str, float]:
        """More values for the log, such as the current value of a schedule."""
        return {}

    def remarks(self, values: Mapping[str, float]) -> list[str]:
        """Lines about the values of the first line of the log that is written after a start."""
        return []

    def scoring_seconds(self, evaluations: int) -> float:
        """Estimated time of this many evaluations and the full one at the end, without the real images.

        0 if nothing is scored, or there is no estimate.
        """
        return 0.0

    @abstractmethod
    def close(self) -> None:
        """Release resources, such as threads."""
