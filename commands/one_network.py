"""The common part of the tasks for classifiers and encoders: one network, one optimiser, batches of one data set."""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cs_gan import CodedSmoothing, SplineCode
from cs_gan.data import BatchStream, ImageStore, batch_indices, train_and_test
from cs_gan.errors import ConfigError
from cs_gan.randomness import derive_seed
from cs_gan.report import save_curve, save_metrics_csv, save_report
from cs_gan.training import (
    CapturedStep,
    ClassifierConfig,
    Session,
    SslConfig,
    Task,
    as_plain,
    save_snapshot,
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


class OneNetworkTask(Task):
    """A network, everything that its training needs, and one step. The constructor checks everything.

    A subclass builds its network between :meth:`load` and :meth:`prepare`. ``network`` may be wrapped for several
    processes; ``bare`` is the network itself.

    Attributes:
        kind: of the snapshot.
        model: the arguments that build the network.
        images: the decoded images on the GPU, or None if batches are made in main memory.
    """

    kind: str
    config: Any
    model: dict[str, Any]
    bare: Any
    coded: CodedSmoothing | None

    def load(self, config: ClassifierConfig | SslConfig, session: Session) -> None:
        """Load the images, and convert epochs to steps."""
        self.config, self.session = config, session
        self.train_store, self.test_store = images(config, session)
        training, size = config.training, len(self.train_store)
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

    def prepare(self, code: CodeConfig) -> None:
        """Make the optimiser, the batches and the captured step. ``bare`` must be set."""
        config, session = self.config, self.session
        self.modules = {"network": self.bare}
        self.optimizers = {"network": sgd_or_adamw(config.training, self.bare, session.device)}
        self.network = session.accelerator.prepare(self.bare)
        self.batches = BatchStream(self.batch, config.data.workers, pin=session.device.type == "cuda")
        resident = config.data.device == "auto" and self.train_store.fits(session.device)
        self.images = self.train_store.images.to(session.device) if resident else None
        capture, self.capture_line = session.capture(
            "random nodes are drawn in every step" if code.nodes == "random" else "",
            "share_dropout puts random states back" if code.share_dropout else "",
        )
        self.update = CapturedStep(self.one_step, session.device, capture=capture)
        self.circumstances = {
            "draws": "SplitMix64",
            "processes": session.processes,
            "images": self.train_store.fingerprint,
            "precision": session.precision,
        }
        self.images_per_step = config.training.batch_size * session.processes

    # -- one step ----------------------------------------------------------------------------------

    def begin(self, step: int, K: int) -> SplineCode | None:
        """Set random state and schedules for a step. Returns the code for K samples, or None if it doesn't code."""
        seed, training = self.config.seed, self.config.training
        torch.manual_seed(derive_seed(seed, "step", step, self.session.rank))  # for networks with dropout
        factor = warmed_up(step / training.horizon, training.warmup, 1 / training.horizon, training.decay)
        set_learning_rate(self.optimizers["network"], training.learning_rate * factor)
        if self.coded is None:
            return None
        self.coded.set_step(step, training.horizon)
        return self.coded.code(K) if self.coded.due else None

    def rows(self, draw: int) -> Tensor:  # -> (B,)
        """The indices of the images in a draw."""
        rank, world = self.session.rank, self.session.processes
        size, seed = self.config.training.batch_size, self.config.seed
        return batch_indices(len(self.train_store), size, draw, seed=seed, rank=rank, world_size=world)

    @abstractmethod
    def batch(self, draw: int) -> Tensor:  # -> (B, C, H, W) in [-1, 1], on the CPU
        """A batch, if the images are in main memory."""

    one_step: Callable[..., dict[str, Tensor]]
    """One update, a function of tensors."""

    # -- between steps -----------------------------------------------------------------------------

    def sample(self, done: int) -> None:
        """Do nothing: there are no pictures for a classifier or an encoder."""

    def draw(self) -> None:
        """Table, curve and report of the run."""
        folder = self.session.folder
        save_metrics_csv(folder.table, folder.metrics)
        save_curve(folder.curve, folder.metrics)
        save_report(folder.report, folder.path)

    def save_snapshot(self, path: Path, done: int, scores: Mapping[str, float] | None) -> None:
        """The network with its recipe."""
        found, config = None if scores is None else dict(scores), as_plain(self.config)
        save_snapshot(path, self.bare, kind=self.kind, model=self.model, config=config, step=done, scores=found)

    def extras(self) -> dict[str, float]:
        """The learning rate, and N/K if blocks are coded."""
        rate = {"learning_rate": float(self.optimizers["network"].param_groups[0]["lr"])}
        return rate | ({"ratio": self.coded.ratio} if self.coded else {})

    def close(self) -> None:
        """End the threads that prepare batches."""
        self.batches.close()
