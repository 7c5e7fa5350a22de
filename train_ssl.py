#!/usr/bin/env python
"""Train an encoder without labels: ``accelerate launch train_ssl.py --config configs/ssl/<recipe>.yaml``.

Any key of the recipe can be given as ``--key=value``; ``--help-all`` lists them. A step is one update on one batch,
with two views of each image. Only the scores use labels.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from commands.features import feature_scores, labelled_bank, scored
from commands.one_network import OneNetworkTask
from cs_gan.data.augmentation import scaled
from cs_gan.randomness import derive_seed
from cs_gan.ssl import Views, barlow_twins, nt_xent, ssl_step
from cs_gan.training import Session, SslConfig, run_script
from models import Encoder, build_encoder

RECIPES = Path(__file__).parent / "configs" / "ssl"


class SslTask(OneNetworkTask):
    """An encoder with a projector, its data and optimiser, and a training step. Everything is checked here."""

    kind = "encoder"
    config: SslConfig
    bare: Encoder

    def __init__(self, config: SslConfig, session: Session) -> None:
        self.load(config, session)
        self.augment_options = {}  # a step draws views of the images
        self.bank = labelled_bank(config, self.store)
        channels, size, _ = self.store.image_shape
        self.model = config.model.arguments(channels=channels, image_size=size)
        self.bare = self.build(build_encoder)
        self.views, self.loss = Views(**asdict(config.views)), _loss(config)
        self.prepare(config.coded, config.coded.active_blocks, views=2, weight=config.coded.schedule)

    # -- one step ----------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Tensor]:
        """One update. All draws follow from (seed, step, rank).

        Here the host sets schedules, chooses images and derives the keys of the views. The rest is :meth:`one_step`, a
        function of tensors.
        """
        code, seed, rank = self.begin(step, 2 * self.config.training.batch_size), self.config.seed, self.session.rank
        keys = torch.tensor([derive_seed(seed, view, step, rank) for view in ("first view", "second view")])
        given = {"images": self.batches[step]} if self.images is None else {"rows": self.rows(step)}
        return self.update(
            (code and code.N, self.measured), {"keys": keys, **given}, code and code.placed(self.session.device)
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
            self.views(images, keys).to(memory_format=torch.channels_last),
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
        found = feature_scores(network.encoder, self.config, self.bank, self.test_store, session.device)
        seconds = time.perf_counter() - start
        return scored(self.config, self.bank, self.test_store, found, seconds, session.processes, about)

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
            blocks = ", ".join(name or "the whole network" for name in self.coded.blocks)
            lines.append(f"coded at {blocks}, weight {self.config.coded.weight}")
        size = 2 * self.config.training.batch_size
        lines += self.useless_blocks(self.coded, lambda: self.bare(self.some_images(size)))
        return lines + self.notes(self.config.coded, self.coded)


# -- parts -----------------------------------------------------------------------------------------


def _loss(config: SslConfig) -> Callable[[Tensor, Tensor], Tensor]:
    method = config.method
    if method.loss == "simclr":
        return partial(nt_xent, temperature=method.temperature)
    return partial(barlow_twins, off_diagonal=method.off_diagonal)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for an error the user can fix, 130 after Ctrl-C, 143 after SIGTERM."""
    return run_script(SslConfig, SslTask, arguments, "Train an encoder without labels, plainly or coded.", RECIPES)


if __name__ == "__main__":
    sys.exit(main())
