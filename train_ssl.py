#!/usr/bin/env python
"""Train an encoder without labels: ``accelerate launch train_ssl.py --config configs/ssl/<recipe>.yaml``.

Any key of the recipe can be given as ``--key=value``; ``--help-all`` lists them. A step is one update on one batch, and
the network sees two views of each of its images. Labels are used by the scores alone.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from commands.features import feature_scores, labelled_bank, scored
from cs_gan import CodedSmoothing
from cs_gan.data import BatchStream, batch_indices, train_and_test
from cs_gan.data.augmentation import scaled
from cs_gan.errors import ConfigError
from cs_gan.randomness import derive_seed
from cs_gan.report import save_curve, save_metrics_csv, save_report
from cs_gan.ssl import Views, barlow_twins, nt_xent, ssl_step
from cs_gan.training import (
    CapturedStep,
    Session,
    SslConfig,
    Task,
    as_plain,
    read_snapshot,
    run_script,
    save_snapshot,
    set_learning_rate,
    sgd_or_adamw,
    warmed_up,
)
from models import Encoder, build_encoder

RECIPES = Path(__file__).parent / "configs" / "ssl"


class SslTask(Task):
    """An encoder with its projector, everything it is trained with, and a step of it; all is checked while it is built.

    ``network`` may be wrapped for several processes; ``bare`` is the network itself.
    """

    def __init__(self, config: SslConfig, session: Session) -> None:
        self.config, self.session = config, session
        self.train_store, self.test_store = train_and_test(
            **config.data.parts(config.seed),
            progress=session.is_main and sys.stderr.isatty(),
            loading=session.accelerator.local_main_process_first,
        )
        self.bank = labelled_bank(config, self.train_store)
        training, size = config.training, len(self.train_store)
        if training.epochs is not None:
            training.steps = math.ceil(training.epochs * size / (training.batch_size * session.processes))
        self.model = {
            "channels": self.train_store.image_shape[0],
            "image_size": self.train_store.image_shape[-1],
            **asdict(config.model),
        }
        self.model = {key: value for key, value in self.model.items() if value is not None}
        self.bare = _network(config, self.model, session.device)
        self.modules = {"network": self.bare}
        self.optimizers = {"network": sgd_or_adamw(training, self.bare, session.device)}
        self.network = session.accelerator.prepare(self.bare)
        self.views, self.loss = Views(**asdict(config.views)), _loss(config)
        self.coded = _coded(config, self.bare)
        self.batches = BatchStream(self._batch, config.data.workers, pin=session.device.type == "cuda")
        resident = config.data.device == "auto" and self.train_store.fits(session.device)
        self.images = self.train_store.images.to(session.device) if resident else None
        capture, self.capture_line = session.capture(
            "random nodes are drawn in every step" if config.coded.nodes == "random" else "",
            "share_dropout puts random states back" if config.coded.share_dropout else "",
        )
        self.update = CapturedStep(self._update, session.device, capture=capture)
        self.circumstances = {
            "draws": "SplitMix64",
            "processes": session.processes,
            "images": self.train_store.fingerprint,
            "precision": session.precision,
        }
        self.images_per_step = training.batch_size * session.processes

    # -- one step ----------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Tensor]:
        """One update, drawn from (seed, step, rank).

        What the host decides is decided here: schedules, which images, the keys of the views. The rest is
        :meth:`_update`, a function of tensors.
        """
        seed, rank, training = self.config.seed, self.session.rank, self.config.training
        torch.manual_seed(derive_seed(seed, "step", step, rank))  # for networks that draw, as dropout
        factor = warmed_up(step / training.horizon, training.warmup, 1 / training.horizon, training.decay)
        set_learning_rate(self.optimizers["network"], training.learning_rate * factor)
        code = None
        if self.coded:
            self.coded.set_step(step, training.horizon)
            code = self.coded.code(2 * training.batch_size) if self.coded.due else None
        keys = torch.tensor([derive_seed(seed, view, step, rank) for view in ("first view", "second view")])
        given = {"images": self.batches[step]} if self.images is None else {"rows": self._indices(step)}
        return self.update(code and code.N, {"keys": keys, **given}, code and code.placed(self.session.device))

    def _update(self, keys: Tensor, images: Tensor | None = None, rows: Tensor | None = None) -> dict[str, Tensor]:
        """One step.

        Args:
            keys: (2,), of the views.
            images: (B, C, H, W), a batch made on the CPU; or, of images that lie on the device,
            rows: (B,), which of them.
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
            autocast=self.session.autocast,
            backward=self.session.accelerator.backward,
        )

    def _indices(self, draw: int) -> Tensor:  # -> (B,)
        rank, world = self.session.rank, self.session.processes
        size, seed = self.config.training.batch_size, self.config.seed
        return batch_indices(len(self.train_store), size, draw, seed=seed, rank=rank, world_size=world)

    def _batch(self, draw: int) -> Tensor:  # -> (B, C, H, W) in [-1, 1], on the CPU
        return self.train_store.batch(self._indices(draw))

    # -- between steps -----------------------------------------------------------------------------

    def sample(self, done: int) -> None:
        """There are no pictures of an encoder's state."""

    def evaluate(
        self, about: dict[str, Any], *, full: bool = False, snapshot: Path | None = None
    ) -> dict[str, Any] | None:
        """A linear probe and nearest neighbours on frozen features of held-out images; the same in all processes."""
        start, session = time.perf_counter(), self.session
        network = copy.deepcopy(self.bare)  # not attached to the coding of training
        if snapshot is not None:
            network.load_state_dict(read_snapshot(snapshot).tensors)
        session.align_buffers(network)
        found = feature_scores(network.encoder, self.config, self.bank, self.test_store, session.device)
        seconds = time.perf_counter() - start
        return scored(self.config, self.bank, self.test_store, found, seconds, session.processes, about)

    @property
    def rescores(self) -> bool:
        """The end is scored as the curve is."""
        return False

    def draw(self) -> None:
        """Table, curve and report of the run."""
        folder = self.session.folder
        save_metrics_csv(folder.table, folder.metrics)
        save_curve(folder.curve, folder.metrics)
        save_report(folder.report, folder.path)

    def save_snapshot(self, path: Path, done: int, scores: Mapping[str, float] | None) -> None:
        """Encoder and projector with their recipe, for ``models.build_encoder(**snapshot.model)``."""
        found = None if scores is None else dict(scores)
        config = as_plain(self.config)
        save_snapshot(path, self.bare, kind="encoder", model=self.model, config=config, step=done, scores=found)

    def extras(self) -> dict[str, float]:
        """Where the schedules stand."""
        rate = {"learning_rate": float(self.optimizers["network"].param_groups[0]["lr"])}
        return rate | ({"ratio": self.coded.ratio} if self.coded else {})

    def describe(self) -> list[str]:
        """Data, network, method."""
        parameters = sum(p.numel() for p in self.bare.parameters())
        lines = [
            f"training without labels on {self.train_store.description}",
            f"scored on {self.test_store.description}, with {len(self.bank):,} labels",
            f"{self.config.model.name} with a projector: {parameters:,} parameters; {self.config.method.loss}, "
            f"{self.config.training.steps:,} steps",
        ]
        if self.coded:
            blocks = ", ".join(name or "the whole network" for name in self.coded.blocks)
            lines.append(f"coded at {blocks}, weight {self.config.coded.weight}")
        if self.capture_line:
            lines.append(f"images {'in main memory' if self.images is None else 'on the GPU'}; {self.capture_line}")
        return lines

    def close(self) -> None:
        """End the threads that prepare batches."""
        self.batches.close()


# -- parts -----------------------------------------------------------------------------------------


def _network(config: SslConfig, model: dict[str, Any], device: torch.device) -> Encoder:
    torch.manual_seed(derive_seed(config.seed, "weights"))
    try:
        network = build_encoder(**model)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return network.to(device, memory_format=torch.channels_last)


def _loss(config: SslConfig) -> Callable[[Tensor, Tensor], Tensor]:
    method = config.method
    if method.loss == "simclr":
        return partial(nt_xent, temperature=method.temperature)
    return partial(barlow_twins, off_diagonal=method.off_diagonal)


def _coded(config: SslConfig, network: Encoder) -> CodedSmoothing | None:
    coded, training = config.coded, config.training
    if not coded.active:
        return None
    seed, both = derive_seed(config.seed, "coded"), 2 * training.batch_size  # views
    return coded.attach(
        network, coded.blocks, weight=coded.schedule, seed=seed, steps=training.horizon, batch_size=both
    )


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for an error the user can fix, 130 after Ctrl-C, 143 after SIGTERM."""
    return run_script(SslConfig, SslTask, arguments, "Train an encoder without labels, plainly or coded.", RECIPES)


if __name__ == "__main__":
    sys.exit(main())
