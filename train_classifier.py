"""Train a classifier: ``accelerate launch train_classifier.py --config configs/classifier/<recipe>.yaml``.

Any key of the recipe can be given as ``--key=value``; ``--help`` lists them. A step is one update on one batch.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from commands.accuracy import accuracies, check_shifted, scored, stores_to_score
from cs_gan import CodedSmoothing, Linear
from cs_gan.data import BatchStream, ImageStore, batch_indices, train_and_test
from cs_gan.errors import ConfigError
from cs_gan.randomness import derive_seed, stream
from cs_gan.report import save_curve, save_metrics_csv, save_report
from cs_gan.supervised import CutMix, ManifoldMixUp, Mix, MixUp, classifier_step
from cs_gan.training import ClassifierConfig, Session, Task, as_plain, read_snapshot, run_script, save_snapshot
from models import Classifier, build_classifier


class ClassifierTask(Task):
    """A network, everything it is trained with, and a step of it; all is checked while it is built.

    ``network`` may be wrapped for several processes; ``bare`` is the network itself.
    """

    def __init__(self, config: ClassifierConfig, session: Session) -> None:
        self.config, self.session = config, session
        self.train_store, self.test_store = _images(config, session)
        check_shifted(config, self.test_store)
        training, size = config.training, len(self.train_store)
        if training.epochs is not None:
            training.steps = math.ceil(training.epochs * size / (training.batch_size * session.processes))
        self.model = {
            "name": config.model.name,
            "num_classes": self.train_store.num_classes,
            "channels": self.train_store.image_shape[0],
            "image_size": self.train_store.image_shape[-1],
            **config.model.overrides(),
        }
        self.bare = _network(config, self.model, session.device)
        self.modules, self.optimizers = {"network": self.bare}, {"network": _optimizer(config, self.bare)}
        self.network = session.accelerator.prepare(self.bare)
        self.mix = _mix(config)
        self.coded = _coded(config, self.bare)
        self.batches = BatchStream(self._batch, config.data.workers, pin=session.device.type == "cuda")
        self.circumstances = {
            "processes": session.processes,
            "images": self.train_store.fingerprint,
            "precision": session.precision,
        }
        self.images_per_step = training.batch_size * session.processes

    # -- one step ----------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Tensor]:
        """One update, drawn from (seed, step, rank)."""
        config, session = self.config, self.session
        torch.manual_seed(derive_seed(config.seed, "step", step, session.rank))  # for networks that draw, as dropout
        for group in self.optimizers["network"].param_groups:
            group["lr"] = config.training.learning_rate * _learning_rate_factor(config, step)
        if self.coded:
            self.coded.set_step(step, config.training.steps)
        images = self.batches[step].to(session.device, memory_format=torch.channels_last, non_blocking=True)
        method = config.method
        return classifier_step(
            self.network,
            self.optimizers["network"],
            images,
            self.train_store.labels[self._indices(step)],
            generator=stream(config.seed, "method", step, session.rank),
            num_classes=self.train_store.num_classes,
            mix=self.mix,
            label_smoothing=method.label_smoothing,
            logit_norm=method.logit_norm,
            jacobian=method.jacobian,
            coded=self.coded,
            mu=method.coded.mu if self.coded else 0.0,
            autocast=session.autocast,
            backward=session.accelerator.backward,
        )

    def _indices(self, draw: int) -> Tensor:  # -> (B,)
        rank, world = self.session.rank, self.session.processes
        size, seed = self.config.training.batch_size, self.config.seed
        return batch_indices(len(self.train_store), size, draw, seed=seed, rank=rank, world_size=world)

    def _batch(self, draw: int) -> Tensor:  # -> (B, C, H, W) in [-1, 1], on the CPU
        data = self.config.data
        key = (self.config.seed, draw)
        return self.train_store.batch(self._indices(draw), augmentation=key, flip=data.flip, crop=data.crop)

    # -- between steps -----------------------------------------------------------------------------

    def sample(self, done: int) -> None:
        """There are no pictures of a classifier's state."""

    def evaluate(
        self, about: dict[str, Any], *, full: bool = False, snapshot: Path | None = None
    ) -> dict[str, Any] | None:
        """Accuracy, plain and under Randomized Coded Inference; at the end on shifted images too."""
        start = time.perf_counter()
        network = copy.deepcopy(self.bare)  # not attached to the coding of training, and free to be another's
        if snapshot is not None:
            network.load_state_dict(read_snapshot(snapshot).tensors)
        self.session.align_buffers(network)
        session = self.session
        parts = {"rank": session.rank, "processes": session.processes, "device": session.device}
        stores = stores_to_score(self.config, self.test_store, full=full)
        found = accuracies(network, self.config, self.train_store, stores, full=full, **parts)
        return scored(self.config, self.test_store, found, time.perf_counter() - start, session.processes, about)

    @property
    def rescores(self) -> bool:
        """Attacked, corrupted and shifted images are left to the end."""
        metrics = self.config.metrics
        return bool(metrics.fgsm or metrics.corruptions or metrics.shifted)

    def draw(self) -> None:
        """Table, curve and report of the run."""
        folder = self.session.folder
        save_metrics_csv(folder.table, folder.metrics)
        save_curve(folder.curve, folder.metrics)
        save_report(folder.report, folder.path)

    def save_snapshot(self, path: Path, done: int, scores: Mapping[str, float] | None) -> None:
        """The network with its recipe."""
        found = None if scores is None else dict(scores)
        config = as_plain(self.config)
        save_snapshot(path, self.bare, kind="classifier", model=self.model, config=config, step=done, scores=found)

    def extras(self) -> dict[str, float]:
        """Where the schedules stand."""
        rate = {"learning_rate": self.optimizers["network"].param_groups[0]["lr"]}
        return rate | ({"ratio": self.coded.ratio} if self.coded else {})

    def describe(self) -> list[str]:
        """Data, network, method."""
        parameters = sum(p.numel() for p in self.bare.parameters())
        lines = [
            f"training on {self.train_store.description}",
            f"{self.config.data.evaluate_on} on {self.test_store.description}",
            f"{self.config.model.name}: {parameters:,} parameters; {self.config.training.steps:,} steps",
        ]
        if self.coded:
            blocks = ", ".join(name or "the whole network" for name in self.coded.blocks)
            lines.append(f"coded at {blocks}, mu {self.config.method.coded.mu}")
        return lines

    def close(self) -> None:
        """End the threads that prepare batches."""
        self.batches.close()


# -- parts -----------------------------------------------------------------------------------------


def _images(config: ClassifierConfig, session: Session) -> tuple[ImageStore, ImageStore]:
    """Images to train on and images to score on, which share none."""
    return train_and_test(
        **config.data.parts(config.seed),
        progress=session.is_main and sys.stderr.isatty(),
        loading=session.accelerator.local_main_process_first,
    )


def _network(config: ClassifierConfig, model: dict[str, Any], device: torch.device) -> Classifier:
    torch.manual_seed(derive_seed(config.seed, "weights"))
    try:
        network = build_classifier(**model)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return network.to(device, memory_format=torch.channels_last)


def _optimizer(config: ClassifierConfig, network: Classifier) -> torch.optim.Optimizer:
    training = config.training
    common = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    if training.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), **common)
    return torch.optim.SGD(network.parameters(), momentum=training.momentum, nesterov=training.nesterov, **common)


def _mix(config: ClassifierConfig) -> Mix | None:
    method = config.method
    for given, kind in ((method.mixup, MixUp), (method.cutmix, CutMix)):
        if given.alpha:
            return kind(given.alpha, probability=given.probability)
    manifold = method.manifold_mixup
    if manifold.alpha:
        return ManifoldMixUp(manifold.alpha, tuple(manifold.blocks), probability=manifold.probability)
    return None


def _coded(config: ClassifierConfig, network: Classifier) -> CodedSmoothing | None:
    coded, training = config.method.coded, config.training
    if not coded.blocks:
        return None
    ratio, seed = Linear(coded.ratio_start, coded.ratio_end, levels=coded.levels), derive_seed(config.seed, "coded")
    smoothing = CodedSmoothing(network, coded.blocks, ratio, seed=seed, **coded.options())
    for step in (0, training.steps):  # a code that can't be built is refused now, not hours from here
        smoothing.set_step(step, training.steps)
        smoothing.code(training.batch_size)
    return smoothing


def _learning_rate_factor(config: ClassifierConfig, step: int) -> float:
    """Linear warm-up, then constant or half a cosine to 0."""
    training = config.training
    progress = step / training.steps
    if progress < training.warmup:
        return (step + 1) / (training.warmup * training.steps)
    if training.decay == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - training.warmup) / (1 - training.warmup)))


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for what the user can mend, 130 after Ctrl-C, 143 after SIGTERM."""
    return run_script(ClassifierConfig, ClassifierTask, arguments, "Train a classifier, plainly or coded.")


if __name__ == "__main__":
    sys.exit(main())
