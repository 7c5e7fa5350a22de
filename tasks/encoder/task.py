"""Train an encoder without labels: its network, the step and scores, in running order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cs_gan import HeldShare
from cs_gan.core.schedule import Schedule
from cs_gan.data.augmentation import scaled
from cs_gan.randomness import derive_seed
from cs_gan.ssl import Views, barlow_twins, nt_xent, ssl_step
from cs_gan.training import Session
from models import Encoder, build_encoder
from tasks.encoder.recipe import SslCodedConfig, SslConfig
from tasks.encoder.scores import feature_scores, labelled_bank, scored
from tasks.one_network import OneNetworkTask


class EncoderTask(OneNetworkTask[SslConfig]):
    """An encoder with a projector, its data and optimiser, and a training step. Everything is checked here."""

    kind = "encoder"
    builder = staticmethod(build_encoder)
    bare: Encoder
    views = 2

    def __init__(self, session: Session[SslConfig]) -> None:
        self.augment_options = {}  # a step draws views of the images
        self.share_every = session.config.coded.share_every
        super().__init__(session)
        self.bank = labelled_bank(self.config, self.store)
        self.two_views, self.loss = Views(**asdict(self.config.views)), _loss(self.config)

    def arguments(self) -> dict[str, Any]:
        """The network's, for the images of the data."""
        channels, size, _ = self.store.image_shape
        return self.config.model.arguments(channels=channels, image_size=size)

    @property
    def code(self) -> SslCodedConfig:
        """How blocks are coded."""
        return self.config.coded

    def coded_blocks(self) -> tuple[Sequence[str], Schedule | HeldShare]:
        """The blocks and their weight."""
        return self.code.active_blocks, self.weight(self.code, "coded")

    # -- one step ----------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Tensor]:
        """One update. All draws follow from (seed, step, rank).

        Here the host sets schedules, chooses images and derives the keys of the views. The rest is :meth:`one_step`, a
        function of tensors.
        """
        code, seed, rank = self.begin(step), self.config.seed, self.session.rank
        keys = torch.tensor([derive_seed(seed, view, step, rank) for view in ("first view", "second view")])
        source = {"images": self.batches[step]} if self.images is None else {"rows": self.rows(step)}
        return self.update(
            (code and code.N, self.measured), {"keys": keys, **source}, code and code.placed(self.session.device)
        )

    def one_step(self, keys: Tensor, images: Tensor | None = None, rows: Tensor | None = None) -> dict[str, Tensor]:
        """One step.

        Args:
            keys: (2,), random keys of the views.
            images: (B, C, H, W), a batch from the CPU; None if images are on the device.
            rows: (B,), the indices of images on the device.
        """
        if images is None:
            assert self.images is not None
            images = scaled(self.images[rows])
        return ssl_step(
            self.network,
            self.optimizers["network"],
            self.two_views(images, keys).to(memory_format=torch.channels_last),
            self.loss,
            coded=self.coded,
            measure_share=self.measured,
            autocast=self.session.autocast,
            backward=self.session.accelerator.backward,
        )

    # -- between steps -----------------------------------------------------------------------------

    def evaluate(
        self, about: dict[str, Any], *, full: bool = False, snapshot: Path | None = None
    ) -> dict[str, Any] | None:
        """A linear probe and nearest neighbours on frozen features of held-out images; the same in all processes."""
        start, session = time.perf_counter(), self.session
        network = self.to_score(snapshot)
        scores = feature_scores(network.encoder, self.config, self.bank, self.test_store, session.device)
        seconds = time.perf_counter() - start
        return scored(self.config, self.bank, self.test_store, scores, seconds, session.processes, about)

    @property
    def rescores(self) -> bool:
        """The final score is that of the curve."""
        return False

    def describe(self) -> list[str]:
        """Data, network, method."""
        parameters = sum(p.numel() for p in self.bare.parameters())
        lines = [
            f"training without labels on {self.store.description}",
            f"scored on {self.test_store.description}, with {len(self.bank):,} labels",
            f"{self.config.model.name} with a projector: {parameters:,} parameters; {self.config.method.loss}, "
            f"{self.config.training.steps:,} steps",
        ]
        if self.coded:
            lines.append(f"{self.coded_line(self.coded)}, {self.code.strength}")
        lines += self.useless_blocks(self.coded, lambda: self.bare(self.some_images(self.samples)))
        return lines + self.notes(self.code, self.coded)


def _loss(config: SslConfig) -> Callable[[Tensor, Tensor], Tensor]:
    method = config.method
    if method.loss == "simclr":
        return partial(nt_xent, temperature=method.temperature)
    return partial(barlow_twins, off_diagonal=method.off_diagonal)
