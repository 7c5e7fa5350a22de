"""The common part of the tasks for classifiers and encoders: one network, one optimiser, batches of one data set."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from commands.image_task import ImageTask
from cs_gan import SplineCode
from cs_gan.core.schedule import Schedule
from cs_gan.data import ImageStore, train_and_test
from cs_gan.errors import ConfigError
from cs_gan.randomness import derive_seed
from cs_gan.training import (
    ClassifierConfig,
    Session,
    SslConfig,
    read_snapshot,
    set_learning_rate,
    sgd_or_adamw,
    warmed_up,
)
from cs_gan.training.recipes.sections import CodeConfig

Network = TypeVar("Network", bound=nn.Module)


def images(config: ClassifierConfig | SslConfig, session: Session) -> tuple[ImageStore, ImageStore]:
    """Images to train on, and other images to score on."""
    return train_and_test(
        **config.data.parts(config.seed),
        progress=session.is_main and sys.stderr.isatty(),
        loading=session.accelerator.local_main_process_first,
    )


class OneNetworkTask(ImageTask):
    """A network, everything that its training needs, and one step. The constructor checks everything.

    A subclass builds its network between :meth:`load` and :meth:`prepare`. ``network`` may be wrapped for several
    processes; ``bare`` is the network itself.
    """

    bare: Any

    def load(self, config: ClassifierConfig | SslConfig, session: Session) -> None:
        """Load the images, and convert epochs to steps."""
        self.config, self.session = config, session
        self.store, self.test_store = images(config, session)
        training, size = config.training, len(self.store)
        if training.epochs is not None:
            training.steps = math.ceil(training.epochs * size / (training.batch_size * session.processes))

    def build(self, function: Callable[..., Network]) -> Network:
        """The network of ``model`` with weights drawn from the seed; ConfigError for invalid arguments."""
        torch.manual_seed(derive_seed(self.config.seed, "weights"))
        try:
            network = function(**self.model)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return network.to(self.session.device, memory_format=torch.channels_last)

    def prepare(self, code: CodeConfig, blocks: Sequence[str], views: int = 1, weight: Schedule = 1.0) -> None:
        """Code ``blocks`` of ``bare``, which must be set. Make the optimiser, the batches and the captured step.

        Args:
            code: how blocks are coded.
            blocks: names or patterns.
            views: number of samples of each image in a batch.
            weight: of the penalty.
        """
        config, session = self.config, self.session
        seed, samples = derive_seed(config.seed, "coded"), views * config.training.batch_size
        self.coded = code.attach(self.bare, blocks, config.training, seed, samples, weight)
        self.modules = {"network": self.bare}
        self.optimizers = {"network": sgd_or_adamw(config.training, self.bare, session.device)}
        self.network = session.accelerator.prepare(self.bare)
        self.prepare_steps(
            "random nodes are drawn in every step" if code.nodes == "random" else "",
            "share_dropout puts random states back" if code.share_dropout else "",
        )

    # -- one step ----------------------------------------------------------------------------------

    def begin(self, step: int, K: int) -> SplineCode | None:
        """Set random state and schedules for a step. Returns the code for K samples, or None if it doesn't code."""
        seed, training = self.config.seed, self.config.training
        torch.manual_seed(derive_seed(seed, "step", step, self.session.rank))  # for networks with dropout
        factor = warmed_up(step / training.horizon, training.warmup, 1 / training.horizon, training.decay)
        set_learning_rate(self.optimizers["network"], training.learning_rate * factor)
        if self.coded is not None:
            self.coded.set_step(step, training.horizon, hold_end=True)
        self.measured = self.measures(step, self.coded)
        return self.coded.code(K) if self.coded is not None and self.coded.due else None

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
        """The learning rate, and N/K if blocks are coded."""
        rate = {"learning_rate": float(self.optimizers["network"].param_groups[0]["lr"])}
        return rate | ({"ratio": self.coded.ratio} if self.coded else {})
