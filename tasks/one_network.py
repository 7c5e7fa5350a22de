"""What the tasks for classifiers and encoders share: one network, one optimiser, batches of one data set."""

from __future__ import annotations

import copy
import math
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from cs_gan import HeldShare, SplineCode
from cs_gan.core.schedule import Schedule
from cs_gan.data import train_and_test
from cs_gan.data.labelled import labels_fingerprint
from cs_gan.errors import ConfigError
from cs_gan.randomness import derive_seed
from cs_gan.training import Session, device_options, read_snapshot, set_learning_rate, without_dynamo
from cs_gan.training.recipes.sections import CodeConfig
from tasks.image_task import ImageTask
from tasks.loading import first_on_machine
from tasks.sections import NetworkTrainingConfig, OneNetworkConfig

Config = TypeVar("Config", bound=OneNetworkConfig)


class OneNetworkTask(ImageTask[Config]):
    """A network, everything that its training needs, and one step. The constructor checks everything.

    ``network`` may be wrapped for several processes; ``bare`` is the network itself.

    Attributes:
        builder: makes the network from its arguments; a function of ``models``.
        views: number of samples of each image in a batch.
    """

    bare: Any
    builder: Callable[..., nn.Module]
    views = 1

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """The arguments of ``builder``, for images of ``store``."""

    @property
    @abstractmethod
    def code(self) -> CodeConfig:
        """How blocks are coded."""

    @abstractmethod
    def coded_blocks(self) -> tuple[Sequence[str], Schedule | HeldShare]:
        """Names or patterns of the coded blocks, and the weight of their penalty."""

    def __init__(self, session: Session[Config]) -> None:
        self.session, config, training = session, session.config, session.config.training
        self.store, self.test_store = train_and_test(
            **config.data.parts(config.seed),
            progress=session.is_main and sys.stderr.isatty(),
            loading=partial(first_on_machine, session.accelerator),
        )
        if training.epochs is not None:
            training.steps = math.ceil(training.epochs * len(self.store) / (training.batch_size * session.processes))
        self.warm_up_steps = math.floor(training.warmup * training.horizon)
        self.model = self.arguments()
        self.bare = self._network()
        self.modules = {"network": self.bare}
        self.optimizers = {"network": sgd_or_adamw(training, self.bare, session.device)}
        blocks, weight = self.coded_blocks()
        self.samples = self.views * training.batch_size
        self.coded = self.attach(self.code, self.bare, blocks, purpose="coded", batch_size=self.samples, weight=weight)
        self.network = session.prepared(self.bare)
        self.prepare_steps(
            "random nodes are drawn in every step" if self.code.nodes == "random" else "",
            "share_dropout puts random states back" if self.code.share_dropout else "",
        )

    def _network(self) -> nn.Module:
        """The network with weights drawn from the seed; ConfigError for invalid arguments."""
        torch.manual_seed(derive_seed(self.config.seed, "weights"))
        try:
            network = self.builder(**self.model)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return network.to(self.session.device).to(memory_format=torch.channels_last)

    def data_circumstances(self) -> dict[str, str]:
        """The labels to train on, and the images and labels to score on."""
        scored = f"{self.test_store.fingerprint} {labels_fingerprint(self.test_store)}"
        return {"labels": labels_fingerprint(self.store), "scored_images": scored}

    # -- one step ----------------------------------------------------------------------------------

    def begin(self, step: int) -> SplineCode | None:
        """Set random state and schedules for a step. Returns its code, or None if it doesn't code."""
        seed, training = self.config.seed, self.config.training
        torch.manual_seed(derive_seed(seed, "step", step, self.session.rank))  # for networks with dropout
        factor = warmed_up(step / training.horizon, training.warmup, 1 / training.horizon, training.decay)
        set_learning_rate(self.optimizers["network"], training.learning_rate * factor)
        if self.coded is not None:
            self.coded.set_step(step, training.horizon, hold_end=True)
        self.measured = self.measures(step, self.coded)
        return self.coded.code(self.samples) if self.coded is not None and self.coded.due else None

    # -- between steps -----------------------------------------------------------------------------

    def sample(self, done: int) -> None:
        """Do nothing: there are no pictures for a classifier or an encoder."""

    @property
    def result(self) -> nn.Module:
        """The network itself."""
        network: nn.Module = self.bare
        return network

    def to_score(self, snapshot: Path | None) -> Any:
        """A copy of the network without coded blocks, the same in all processes; or the network of a snapshot."""
        network = copy.deepcopy(self.bare)
        if snapshot is not None:
            network.load_state_dict(read_snapshot(snapshot).tensors)
        self.session.align_buffers(network)
        return network

    def extras(self) -> dict[str, float]:
        """The learning rate, N/K if blocks are coded, and a weight that follows the gradient."""
        rate = {"learning_rate": float(self.optimizers["network"].param_groups[0]["lr"])}
        return rate | self.held_weights() | ({"ratio": self.coded.ratio} if self.coded else {})


def sgd_or_adamw(training: NetworkTrainingConfig, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimiser, for all weights."""
    common = {**device_options(device, training.learning_rate), "weight_decay": training.weight_decay}
    if training.optimizer == "adamw":
        capturable = device.type == "cuda"
        return without_dynamo(torch.optim.AdamW)(network.parameters(), capturable=capturable, **common)
    momentum: dict[str, Any] = {"momentum": training.momentum, "nesterov": training.nesterov}
    return without_dynamo(torch.optim.SGD)(network.parameters(), **momentum, **common)


def warmed_up(progress: float, warmup: float, step: float, decay: str) -> float:
    """The learning rate's factor: linear warm-up, then constant or half a cosine to 0.

    Args:
        progress: fraction of the steps that are done, in [0, 1).
        warmup: fraction of the steps over which it grows.
        step: one step as a fraction of all steps.
        decay: constant or cosine.
    """
    if progress < warmup:
        return (progress + step) / warmup
    if decay == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
