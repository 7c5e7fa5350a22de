"""The common part of all training tasks: batches of one set of images, a step that can be captured, results."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan import CodedSmoothing
from cs_gan.core.diagnosis.report import OVERWHELMING, PLAIN_TRAINING, USELESS
from cs_gan.data import BatchStream, ImageStore, batch_indices
from cs_gan.report import save_curve, save_metrics_csv, save_report
from cs_gan.training import CapturedStep, Task, as_plain, read_lines, save_snapshot
from cs_gan.training.recipes.sections import CodeConfig


class ImageTask(Task):
    """A task that trains on the images of one store.

    Attributes:
        kind: of the snapshot.
        config: the recipe.
        store: the images to train on.
        model: the arguments that build the network or networks.
        images: the decoded images on the GPU, or None if batches are made in main memory.
        augment_options: how images are augmented: flip, crop and dequantize of :meth:`ImageStore.batch`.
    """

    kind: str
    config: Any
    store: ImageStore
    model: dict[str, Any]
    augment_options: dict[str, Any]

    one_step: Callable[..., dict[str, Tensor]]
    """One update, a function of tensors."""

    def prepare_steps(self, *obstacles: str, batches: int = 1) -> None:
        """Make the stream of batches and the captured step.

        Args:
            obstacles: what can't be captured; see :meth:`Session.capture`.
            batches: number of batches of images in a step.
        """
        config, session = self.config, self.session
        self.batches = BatchStream(self.batch, config.data.workers, pin=session.device.type == "cuda")
        resident = config.data.device == "auto" and self.store.fits(session.device)
        self.images = self.store.images.to(session.device) if resident else None
        capture, self.capture_line = session.capture(*obstacles)
        self.update = CapturedStep(self.one_step, session.device, capture=capture)
        self.circumstances = {
            "draws": "SplitMix64",
            "processes": session.processes,
            "images": self.store.fingerprint,
            "precision": session.precision,
        }
        self.images_per_step = config.training.batch_size * batches * session.processes

    def rows(self, draw: int) -> Tensor:  # -> (B,)
        """The indices of the images in the ``draw``-th batch of this process."""
        rank, world = self.session.rank, self.session.processes
        size, seed = self.config.training.batch_size, self.config.seed
        return batch_indices(len(self.store), size, draw, seed=seed, rank=rank, world_size=world)

    def batch(self, draw: int) -> Tensor:  # -> (B, C, H, W) in [-1, 1], on the CPU
        """The ``draw``-th batch of this process, if the images are in main memory."""
        return self.store.batch(self.rows(draw), augmentation=(self.config.seed, draw), **self.augment_options)

    def measures(self, step: int, coded: CodedSmoothing | None) -> bool:
        """Whether a step measures the coded penalty's share of the gradient.

        The last coded step before each line of the log does, and every ``share_every``-th one if a share is held.
        """
        if coded is None or not coded.due:
            return False
        every, lines = coded.every, self.config.training.log_every
        held = coded.held is not None and step // every % self.config.coded.share_every == 0
        return held or step % lines + every >= lines

    def useless_blocks(self, coded: CodedSmoothing | None, call: Callable[[], Any]) -> list[str]:
        """Lines about coded blocks that coding only shrinks or can't change, found on one batch."""
        if coded is None:
            return []
        found = coded.diagnose(call).findings
        return [f"note: block {each.block!r}: {each.message}" for each in found if each.signature in USELESS]

    def some_images(self, count: int) -> Tensor:  # -> (count, C, H, W) on the device
        """The first images of the store, as the network sees them."""
        rows = torch.arange(count) % len(self.store)
        return self.store.batch(rows).to(self.session.device)

    def remarks(self, values: Mapping[str, float]) -> list[str]:
        """What the first line of the log shows of the strength of coding."""
        found = []
        for name, share in values.items():
            if name.endswith("_share") and share < PLAIN_TRAINING:
                found.append(f"note: {name} is {share:.2g}: below 0.1 % of the gradient this is plain training.")
            elif name.endswith("_share") and share > OVERWHELMING:
                found.append(f"note: {name} is {share:.2g}: the coded penalty outweighs the loss it is added to.")
        return found

    @property
    @abstractmethod
    def result(self) -> nn.Module:
        """The network to use after training."""

    def save_snapshot(self, path: Path, done: int, scores: Mapping[str, float] | None) -> None:
        """Save the network with its recipe."""
        found, config = None if scores is None else dict(scores), as_plain(self.config)
        save_snapshot(path, self.result, kind=self.kind, model=self.model, config=config, step=done, scores=found)

    def draw(self) -> None:
        """Update table, curve and report of the run."""
        folder = self.session.folder
        if read_lines(folder.metrics):
            save_metrics_csv(folder.table, folder.metrics)
            save_curve(folder.curve, folder.metrics)
        save_report(folder.report, folder.path)

    def notes(self, code: CodeConfig, coded: CodedSmoothing | None) -> list[str]:
        """The last lines of a description: experimental settings, where the images are, whether steps are captured."""
        lines = [code.warning] if coded and code.warning else []
        if self.capture_line:
            lines.append(f"images {'in main memory' if self.images is None else 'on the GPU'}; {self.capture_line}")
        return lines

    def close(self) -> None:
        """End the threads that prepare batches."""
        self.batches.close()
