"""Train a classifier: its network, the random draws of a step, the step and scores, in running order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cs_gan.data import augmented, positions
from cs_gan.randomness import derive_seed, stream
from cs_gan.supervised import CutMix, ManifoldMixUp, Mix, MixDraw, MixUp, StepDraw, classifier_step, draw_step
from cs_gan.training import Session
from models import Classifier, build_classifier
from tasks.classifier.recipe import ClassifierConfig, CodedClassifierConfig
from tasks.classifier.scores import accuracies, check_shifted, scored, stores_to_score
from tasks.one_network import OneNetworkTask


class ClassifierTask(OneNetworkTask[ClassifierConfig]):
    """A classifier, its data and optimiser, and a training step. Everything is checked here, before the first step."""

    kind = "classifier"
    builder = staticmethod(build_classifier)
    bare: Classifier

    def __init__(self, session: Session[ClassifierConfig]) -> None:
        data = session.config.data
        self.augment_options = {"flip": data.flip, "crop": data.crop}
        super().__init__(session)
        check_shifted(self.config, self.test_store)
        self.mix = _mix(self.config)

    def arguments(self) -> dict[str, Any]:
        """The network's, for the images and classes of the data."""
        channels, size, _ = self.store.image_shape
        return self.config.model.arguments(num_classes=self.store.num_classes, channels=channels, image_size=size)

    @property
    def code(self) -> CodedClassifierConfig:
        """How blocks are coded."""
        return self.config.method.coded

    def coded_blocks(self) -> tuple[Sequence[str], float]:
        """The blocks. The step weighs their penalty by mu."""
        return self.code.blocks, 1.0

    # -- one step ----------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Tensor]:
        """One update. All draws follow from (seed, step, rank).

        Here the host sets schedules, chooses images and how they are mixed. The rest is :meth:`one_step`, a function of
        tensors.
        """
        code = self.begin(step)
        inputs, mixed = self._inputs(step)
        return self.update((code and code.N, self.measured, *mixed), inputs, code and code.placed(self.session.device))

    def _inputs(self, step: int) -> tuple[dict[str, Tensor], tuple[bool, str | None]]:
        """The tensors for :meth:`one_step`; whether the batch is mixed, and at which block."""
        config, rows, labels = self.config, self.rows(step), self.store.labels
        assert labels is not None
        inputs = {"labels": labels[rows]}
        if self.images is None:
            inputs["images"] = self.batches[step]
        else:
            key = derive_seed(config.seed, "augmentation", step)
            inputs |= {"key": torch.tensor(key), "where": positions(rows.tolist())}
        generator = stream(config.seed, "method", step, self.session.rank)
        shape = (len(rows), *self.store.image_shape)
        classes = self.store.num_classes
        drawn = draw_step(generator, self.bare, shape, classes, self.mix, config.method.jacobian)
        self._block = drawn.mix.block if drawn.mix else None  # not a tensor, so each block is a variant of the step
        tensors = {"projections": drawn.projections}
        if drawn.mix:
            tensors |= {"share": drawn.mix.share, "box": drawn.mix.box}
        return inputs | {k: v for k, v in tensors.items() if v is not None}, (drawn.mix is not None, self._block)

    def one_step(
        self,
        labels: Tensor,
        images: Tensor | None = None,
        key: Tensor | None = None,
        where: Tensor | None = None,
        share: Tensor | None = None,
        box: Tensor | None = None,
        projections: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One step.

        Args:
            labels: (B,).
            images: (B, C, H, W), a batch from the CPU; None if images are on the device.
            key, where: () and (B,): random key and positions of images on the device.
            share, box: the mix, if the batch is mixed (for manifold mixup, at ``self._block``).
            projections: (B, classes), random directions for the Jacobian.
        """
        method, session = self.config.method, self.session
        if images is None:
            assert self.images is not None
            assert where is not None
            assert key is not None
            images = augmented(self.images, where, key, **self.augment_options)
        mixed = None if share is None else MixDraw(share, box, self._block)
        return classifier_step(
            self.network,
            self.optimizers["network"],
            images.to(memory_format=torch.channels_last),
            labels,
            generator=StepDraw(mixed, projections),
            num_classes=self.store.num_classes,
            mix=self.mix,
            label_smoothing=method.label_smoothing,
            logit_norm=method.logit_norm,
            jacobian=method.jacobian,
            coded=self.coded,
            measure_share=self.measured,
            mu=method.coded.mu if self.coded else 0.0,
            against=method.coded.against,
            autocast=session.autocast,
            backward=session.accelerator.backward,
        )

    # -- between steps -----------------------------------------------------------------------------

    def evaluate(
        self, about: dict[str, Any], *, full: bool = False, snapshot: Path | None = None
    ) -> dict[str, Any] | None:
        """Accuracy, plain and under Randomized Coded Inference. At the end also on shifted images."""
        start = time.perf_counter()
        network, session = self.to_score(snapshot), self.session
        parts: dict[str, Any] = {"rank": session.rank, "processes": session.processes, "device": session.device}
        stores = stores_to_score(self.config, self.test_store, full=full)
        scores = accuracies(network, self.config, self.store, stores, full=full, **parts)
        return scored(self.config, self.test_store, scores, time.perf_counter() - start, session.processes, about)

    @property
    def rescores(self) -> bool:
        """Only the end scores attacked, corrupted and shifted images."""
        metrics = self.config.metrics
        return bool(metrics.fgsm or metrics.pgd or metrics.corruptions or metrics.shifted)

    def describe(self) -> list[str]:
        """Data, network, method."""
        parameters = sum(p.numel() for p in self.bare.parameters())
        lines = [
            f"training on {self.store.description}",
            f"{self.config.data.evaluate_on} on {self.test_store.description}",
            f"{self.config.model.name}: {parameters:,} parameters; {self.config.training.steps:,} steps",
        ]
        if self.coded:
            lines.append(f"{self.coded_line(self.coded)} against {self.code.against}, mu {self.code.mu}")
        lines += self.useless_blocks(self.coded, lambda: self.bare(self.some_images(self.samples)))
        return lines + self.notes(self.code, self.coded)


def _mix(config: ClassifierConfig) -> Mix | None:
    method = config.method
    for section, kind in ((method.mixup, MixUp), (method.cutmix, CutMix)):
        if section.alpha:
            return kind(section.alpha, probability=section.probability)
    manifold = method.manifold_mixup
    if manifold.alpha:
        return ManifoldMixUp(manifold.alpha, tuple(manifold.blocks), probability=manifold.probability)
    return None
