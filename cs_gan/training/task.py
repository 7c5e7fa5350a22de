"""What the training loop trains, and where it stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.training.losses import Losses
from cs_gan.training.run_folder import Row
from cs_gan.training.session import Session


@dataclass
class State:
    """Where a run stands, beside its weights.

    Attributes:
        step: steps done.
        losses: since the last line of log.jsonl.
        metrics: every evaluation so far.
    """

    step: int = 0
    losses: Losses = field(default_factory=Losses)
    metrics: list[Row] = field(default_factory=list)

    @property
    def best(self) -> Row | None:
        """The evaluation with the best primary score, the earlier one where two are equal."""

        def cost(row: Row) -> float:
            value = float(row["scores"][row["primary"]])
            return -value if row["better"] == "higher" else value

        return min(self.metrics, key=cost, default=None)


class Task(ABC):
    """What is trained: networks, optimisers, a step.

    Attributes:
        session: what surrounds it.
        modules, optimizers: by name; together with the step they are all that the next step depends on.
        circumstances: what a step depends on beside the configuration, so that a resume can hold it to the same.
        images_per_step: on all processes together.
    """

    session: Session
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    circumstances: dict[str, Any]
    images_per_step: int

    @property
    def rescores(self) -> bool:
        """Whether a network is scored otherwise at the end than for the curve, and so once more."""
        return True

    @abstractmethod
    def step(self, step: int) -> dict[str, Tensor]:
        """One update, a function of (weights, seed, step, rank) alone; detached scalar losses by name.

        The next step may write over them.
        """

    @abstractmethod
    def sample(self, done: int) -> None:
        """Pictures of the state after ``done`` steps; called on the first process."""

    @abstractmethod
    def evaluate(self, about: dict[str, Any], *, full: bool = False, snapshot: Path | None = None) -> Row | None:
        """Scores of the network as it is, or of a snapshot; called on all processes; None where nothing is scored.

        Args:
            about: what goes into the provenance.
            full: with the counts of the end rather than of the curve.
            snapshot: a file that :meth:`save_snapshot` wrote.

        Returns:
            ``{"scores": {name: value}, "primary": name, "better": "lower" or "higher", "provenance": {...}}``.
        """

    @abstractmethod
    def save_snapshot(self, path: Path, done: int, scores: Mapping[str, float] | None) -> None:
        """The network for use, in one file."""

    @abstractmethod
    def draw(self) -> None:
        """Curves and report of the run folder, after a new line of metrics.jsonl."""

    @abstractmethod
    def describe(self) -> list[str]:
        """What is trained on what, a line each."""

    def extras(self) -> dict[str, float]:
        """More values for the log, such as where a schedule stands."""
        return {}

    def scoring_seconds(self, evaluations: int) -> float:
        """About how long so many evaluations and the one in full at the end take, without the real images' part.

        0 where nothing is scored, or it can't be told.
        """
        return 0.0

    @abstractmethod
    def close(self) -> None:
        """Let go of what the task holds, such as threads."""
