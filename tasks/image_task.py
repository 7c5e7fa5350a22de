"""The common part of all training tasks: batches of one set of images, a step that can be captured, results."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cs_gan import CodedSmoothing, HeldShare
from cs_gan.core import Linear
from cs_gan.core.diagnosis.report import OVERWHELMING, PLAIN_TRAINING, USELESS
from cs_gan.core.discrepancy import STOP_GRADIENT
from cs_gan.core.schedule import Schedule
from cs_gan.data import BatchStream, ImageStore, batch_indices
from cs_gan.errors import ConfigError
from cs_gan.files import write_text
from cs_gan.randomness import derive_seed
from cs_gan.runs import read_lines
from cs_gan.training import CapturedStep, Task, as_plain, save_snapshot
from cs_gan.training.recipes.sections import CodeConfig, CodedBlocksConfig, RunConfig

Config = TypeVar("Config", bound=RunConfig)


class ImageTask(Task[Config]):
    """A task that trains on the images of one store.

    Attributes:
        kind: of the snapshot.
        store: the images to train on.
        model: the arguments that build the network or networks.
        images: the decoded images on the GPU, or None if batches are made in main memory.
        augment_options: how images are augmented: flip, crop and dequantize of :meth:`ImageStore.batch`.
        one_step: one update, a function of tensors.
        share_every: number of coded steps between two measurements of a share that is held.
    """

    kind: str
    store: ImageStore
    model: dict[str, Any]
    images: Tensor | None
    augment_options: dict[str, Any]
    one_step: Callable[..., dict[str, Tensor]]
    share_every = 1

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
            **self.data_circumstances(),
        }
        self.images_per_step = config.training.batch_size * batches * session.processes

    def attach(
        self,
        code: CodeConfig,
        network: nn.Module,
        blocks: Sequence[str],
        *,
        purpose: str,
        batch_size: int,
        weight: Schedule | HeldShare = 1.0,
        discrete: str = "refuse",
    ) -> CodedSmoothing | None:
        """Attach coded-smoothing to blocks of a network, with the recipe's code. None without blocks.

        Args:
            code: the section of the recipe.
            network: without a wrapper for several processes.
            blocks: names or patterns of blocks.
            purpose: what the seed of random nodes is derived from.
            batch_size: number of samples that are coded together, K.
            weight: the penalty's weight: a number, a schedule or a share of the gradient to hold.
            discrete: what coded samples get of labels: they are refused, or the ``nearest`` sample's.

        Raises:
            BlockError: if the network has no such block, or a block can't be coded.
            CodeError: if a code can't be built. This is checked now for the first and the last step.
        """
        if not blocks:
            return None
        if batch_size < 2:
            raise ConfigError(
                f"training.batch_size = {self.config.training.batch_size} with coded blocks, so K = {batch_size}: "
                "coding interpolates between the samples of a batch. Give 2 or more."
            )
        ratio, horizon = Linear(code.ratio_start, code.ratio_end, levels=code.levels), self.config.training.horizon
        names = ("multiple", "every", "nodes", "spline", "decoder_kind", "smoothing", "batch_norm", "share_dropout")
        options = {name: getattr(code, name) for name in names}
        held = code.stop_gradient != "none"
        options["discrepancy"] = STOP_GRADIENT[code.stop_gradient] if held else code.discrepancy
        seed = derive_seed(self.config.seed, purpose)
        coded = CodedSmoothing(network, blocks, ratio, weight=weight, discrete=discrete, seed=seed, **options)
        for step in (0, horizon):
            coded.set_step(step, horizon)
            coded.code(batch_size)
        return coded

    def weight(self, choice: CodedBlocksConfig, part: str) -> Schedule | HeldShare:
        """The weight of the coded penalty of one network: constant, changing, or following the gradient."""
        if choice.share is not None:
            return self.held_share(part, choice.share, start=0.1)
        weight = choice.weight or 0.0  # None without blocks
        return weight if choice.weight_end is None else Linear(weight, choice.weight_end)

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
        held = coded.held is not None and step // coded.every % self.share_every == 0
        return held or self.logs_within(step, coded.every)

    def logs_within(self, step: int, steps: int) -> bool:
        """Whether a line of the log is written within this number of steps from ``step`` on."""
        log_every = self.config.training.log_every
        return step % log_every + steps >= log_every

    def held_share(self, part: str, share: float, start: float) -> HeldShare:
        """A weight that holds a penalty at a share of the gradient. A checkpoint keeps it."""
        held = HeldShare(share, start=start or 1e-3).to(self.session.device)
        self.modules[f"{part}_share"] = held
        return held

    def held_weights(self) -> dict[str, float]:
        """The weights that follow the gradient, for the log."""
        held = {name: module for name, module in self.modules.items() if isinstance(module, HeldShare)}
        return {f"{name.removesuffix('_share')}_weight": module.weight.item() for name, module in held.items()}

    def useless_blocks(self, coded: CodedSmoothing | None, call: Callable[[], Any]) -> list[str]:
        """Lines about coded blocks that coding only shrinks or can't change, found on one batch."""
        if coded is None:
            return []
        findings = coded.diagnose(call).findings
        return [f"note: block {each.block!r}: {each.message}" for each in findings if each.signature in USELESS]

    def coded_line(self, coded: CodedSmoothing) -> str:
        """Which blocks are coded, for a description."""
        return f"coded at {', '.join(name or 'the whole network' for name in coded.blocks)}"

    def some_images(self, count: int) -> Tensor:  # -> (count, C, H, W) on the device
        """The first images of the store, as the network sees them."""
        rows = torch.arange(count) % len(self.store)
        return self.store.batch(rows).to(self.session.device)

    def remarks(self, values: Mapping[str, float]) -> list[str]:
        """What the first line of the log shows of the strength of coding."""
        remarks = []
        for name, share in values.items():
            if name.endswith("_share") and share < PLAIN_TRAINING:
                remarks.append(f"note: {name} is {share:.2g}: below 0.1 % of the gradient this is plain training.")
            elif name.endswith("_share") and share > OVERWHELMING:
                remarks.append(f"note: {name} is {share:.2g}: the coded penalty outweighs the loss it is added to.")
        return remarks

    @abstractmethod
    def data_circumstances(self) -> dict[str, str]:
        """Fingerprints of what a run depends on besides its training images: labels, and the images of the scores."""

    @property
    @abstractmethod
    def result(self) -> nn.Module:
        """The network to use after training."""

    def save_snapshot(self, path: Path, done: int, scores: Mapping[str, float] | None) -> None:
        """Save the network with its recipe."""
        about: dict[str, Any] = {"kind": self.kind, "model": self.model, "config": as_plain(self.config)}
        images = {"fingerprint": self.store.fingerprint, "classes": list(self.store.class_names)}
        scored = None if scores is None else dict(scores)
        save_snapshot(path, self.result, **about, step=done, scores=scored, images=images)

    def data_about(self) -> dict[str, Any]:
        """Where the training images are and how many, for a reader of the run folder."""
        root = self.config.data.root
        return {
            "name": self.store.name,
            "path": None if root is None else str(Path(root).resolve()),
            "split": self.store.split,
            "count": len(self.store),
            "classes": self.store.num_classes,
            "description": self.store.description,
        }

    def draw(self) -> None:
        """Update table, curve and report of the run."""
        from cs_gan.report import save_curve, save_metrics_csv, save_report  # with matplotlib, at the first picture

        folder = self.session.folder
        write_text(folder.data, json.dumps(self.data_about(), indent=2) + "\n")
        if read_lines(folder.metrics):
            save_metrics_csv(folder.table, folder.metrics)
            save_curve(folder.curve, folder.metrics)
        save_report(folder.report, folder.path)

    def notes(self, code: CodeConfig, coded: CodedSmoothing | None) -> list[str]:
        """The last lines of a description: experimental settings, where the images are, whether steps are captured."""
        lines = [code.warning] if coded and code.warning else []
        if coded is None and code != type(code)():
            lines.append("note: coding has settings but no blocks, so nothing is coded")
        size, count = self.config.training.batch_size, len(self.store)
        if size * self.session.processes > count:
            lines.append(
                f"note: training.batch_size = {size} is above the {count} images there are: a batch holds some twice"
            )
        if self.capture_line:
            lines.append(f"images {'in main memory' if self.images is None else 'on the GPU'}; {self.capture_line}")
        return lines

    def close(self) -> None:
        """End the threads that prepare batches."""
        self.batches.close()
