"""Train a WGAN-GP with coded blocks: ``accelerate launch train_gan.py --config configs/gan/<recipe>.yaml``.

Any key of the recipe can be given as ``--key=value``; ``--help`` lists them. A step is one generator update.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan import CodedSmoothing, Linear
from cs_gan.data import BatchStream, ImageStore, batch_indices, load_images
from cs_gan.errors import ConfigError
from cs_gan.gan import averaged, critic_step, generator_step
from cs_gan.metrics import Evaluator, to_uint8
from cs_gan.randomness import derive_seed, stream
from cs_gan.report import save_curve, save_grid, save_metrics_csv, save_report
from cs_gan.training import GanConfig, Session, Task, as_plain, read_lines, read_snapshot, run_script, save_snapshot
from models import build_gan

SAMPLES = 64
CURVE_KID_SUBSETS = 10  # a tenth of what the end takes: KID's arithmetic is slow on a CPU


class GanTask(Task):
    """Generator and critic, everything they are trained with, and a step of it.

    ``generator`` and ``critic`` may be wrapped for several processes; ``bare_*`` are the networks themselves.
    All is checked while it is built, before the first step.
    """

    def __init__(self, config: GanConfig, session: Session) -> None:
        self.config, self.session = config, session
        self.store = _images(config, session)
        self.model = {"name": config.model.name, "channels": self.store.image_shape[0], **config.model.overrides()}
        self.bare_generator, self.bare_critic = _networks(config, self.model, self.store, session.device)
        adam = partial(torch.optim.Adam, lr=config.training.learning_rate, betas=config.training.betas)
        self.optimizers = {
            "generator": adam(self.bare_generator.parameters()),
            "critic": adam(self.bare_critic.parameters()),
        }
        self.generator, self.critic = session.accelerator.prepare(self.bare_generator, self.bare_critic)
        self.ema = averaged(self.bare_generator, config.training.ema_decay)
        self.modules = {"generator": self.bare_generator, "critic": self.bare_critic, "ema": self.ema}
        self.coded_generator = _coded(config, self.bare_generator, "generator")
        self.coded_critic = _coded(config, self.bare_critic, "critic")
        self.evaluator = _evaluator(config, self.store, session)
        self.batches = BatchStream(self._batch, config.data.workers, pin=session.device.type == "cuda")
        self.circumstances = {
            "processes": session.processes,
            "images": self.store.fingerprint,
            "precision": session.precision,
        }
        self.images_per_step = config.training.batch_size * config.training.n_critic * session.processes

    # -- one step ----------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Tensor]:
        """``n_critic`` updates of the critic and one of the generator, all drawn from (seed, step, rank)."""
        config, training, session = self.config, self.config.training, self.session
        shared: dict[str, Any] = {"autocast": session.autocast, "backward": session.accelerator.backward}
        torch.manual_seed(derive_seed(config.seed, "step", step, session.rank))  # for networks that draw, as dropout
        factor = 1 - step / training.steps if training.decay == "linear" else 1.0
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * factor
        for coded in (self.coded_generator, self.coded_critic):
            if coded:
                coded.set_step(step, training.steps)

        for draw in range(step * training.n_critic, (step + 1) * training.n_critic):
            real = self.batches[draw].to(session.device, memory_format=torch.channels_last, non_blocking=True)
            with torch.no_grad(), session.autocast():
                fake = self.bare_generator(self._latents(len(real), "critic", draw))
            alpha = torch.rand(len(real), generator=stream(config.seed, "alpha", draw, session.rank))
            losses = critic_step(
                self.critic,
                self.optimizers["critic"],
                real,
                fake.float(),
                alpha.to(session.device),
                penalty_weight=training.gradient_penalty,
                coded=self.coded_critic,
                coded_on=config.coded.critic.observe,
                **shared,
            )
        z = self._latents(training.generator_batch_size or training.batch_size, "generator", step)
        losses |= generator_step(
            self.generator, self.bare_critic, self.optimizers["generator"], z, coded=self.coded_generator, **shared
        )
        self.ema.update_parameters(self.bare_generator)
        return losses

    def _batch(self, draw: int) -> Tensor:  # -> (B, C, H, W) in [-1, 1], on the CPU
        """The ``draw``-th batch of this rank."""
        data, seed, size = self.config.data, self.config.seed, self.config.training.batch_size
        rank, world = self.session.rank, self.session.processes
        indices = batch_indices(len(self.store), size, draw, seed=seed, rank=rank, world_size=world)
        return self.store.batch(indices, augmentation=(seed, draw), flip=data.flip, dequantize=data.dequantize)

    def _latents(self, count: int, purpose: str, draw: int) -> Tensor:  # -> (count, latent_dim)
        """Standard normal latents of this rank."""
        generator = stream(self.config.seed, "latents", purpose, draw, self.session.rank)
        return torch.randn(count, self.bare_generator.latent_dim, generator=generator).to(self.session.device)

    # -- between steps -----------------------------------------------------------------------------

    def sample(self, done: int) -> None:
        """A grid from latents that are the same at every step."""
        z = torch.randn(SAMPLES, self.bare_generator.latent_dim, generator=stream(self.config.seed, "grid"))
        with torch.no_grad():
            images = to_uint8(self.ema.module(z.to(self.session.device)))
        folder = self.session.folder
        for path in (folder.grid_at(done), folder.grid):
            save_grid(path, images)
        self.session.track_image("samples", folder.grid, done)

    def evaluate(
        self, about: dict[str, Any], *, full: bool = False, snapshot: Path | None = None
    ) -> dict[str, Any] | None:
        """Score the averaged generator, or that of a snapshot."""
        if self.evaluator is None:
            return None
        network = self.ema.module
        self.session.align_buffers(network)
        if snapshot is not None:
            network = copy.deepcopy(network)
            network.load_state_dict(read_snapshot(snapshot).tensors)
        metrics = self.config.metrics
        count = metrics.final_samples if full and metrics.final_samples else metrics.num_samples
        subsets = {} if full else {"kid_subsets": CURVE_KID_SUBSETS}
        found = self.evaluator(network, self.config.seed, count, {**about, "network": "EMA"}, **subsets)
        return {
            "scores": found.values,
            "primary": found.primary,
            "better": "lower",
            "provenance": found.provenance,
        }

    def scoring_seconds(self, evaluations: int) -> float:
        """Timed on one batch of images; the final and the best generator are scored at the end."""
        if self.evaluator is None:
            return 0.0
        metrics = self.config.metrics
        images = evaluations * metrics.num_samples + 2 * (metrics.final_samples or metrics.num_samples)
        start = time.perf_counter()
        with torch.no_grad():
            z = self._latents(metrics.batch_size, "timing", 0)
            self.evaluator.features(to_uint8(self.ema.module(z)))
        return (time.perf_counter() - start) * images / metrics.batch_size / self.session.processes

    def draw(self) -> None:
        """Table, curve and report of the run."""
        folder = self.session.folder
        if read_lines(folder.metrics):
            save_metrics_csv(folder.table, folder.metrics)
            save_curve(folder.curve, folder.metrics)
        save_report(folder.report, folder.path)

    def save_snapshot(self, path: Path, done: int, scores: Mapping[str, float] | None) -> None:
        """The averaged generator with its recipe."""
        found = None if scores is None else dict(scores)
        config = as_plain(self.config)
        save_snapshot(path, self.ema.module, kind="gan", model=self.model, config=config, step=done, scores=found)

    def extras(self) -> dict[str, float]:
        """Where the schedule of N/K stands."""
        coded = self.coded_critic or self.coded_generator
        return {"ratio": coded.ratio} if coded else {}

    def describe(self) -> list[str]:
        """Data, networks, coded blocks."""

        def count(network: nn.Module) -> str:
            return f"{sum(p.numel() for p in network.parameters()):,}"

        lines = [self.store.description]
        lines.append(
            f"{self.config.model.name}: generator {count(self.bare_generator)}, critic {count(self.bare_critic)} "
            "parameters"
        )
        for part, coded in (("generator", self.coded_generator), ("critic", self.coded_critic)):
            if coded:
                weight = getattr(self.config.coded, part).weight
                lines.append(f"{part} coded at {', '.join(coded.blocks)}, weight {weight}")
        return lines

    def close(self) -> None:
        """End the threads that prepare batches."""
        self.batches.close()


# -- parts -----------------------------------------------------------------------------------------


def _images(config: GanConfig, session: Session) -> ImageStore:
    data = config.data
    with session.accelerator.local_main_process_first():  # one process downloads
        return load_images(
            data.name,
            data.root,
            image_size=data.image_size,
            channels=data.channels,
            limit=data.limit,
            progress=session.is_main and sys.stderr.isatty(),
        )


def _networks(
    config: GanConfig, model: dict[str, Any], store: ImageStore, device: torch.device
) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(derive_seed(config.seed, "weights"))
    try:
        generator, critic = build_gan(**model)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if generator.image_shape != store.image_shape:
        raise ConfigError(
            f"{config.model.name} makes images of {generator.image_shape}, and {store.description} holds "
            f"{store.image_shape}: set --data.image_size={generator.image_shape[-1]} or another --model.name."
        )
    # channels_last is worth 20 to 30 % of a step on CPU, and tensor cores want it too.
    generator.to(device, memory_format=torch.channels_last)
    critic.to(device, memory_format=torch.channels_last)
    return generator, critic


def _coded(config: GanConfig, network: nn.Module, part: str) -> CodedSmoothing | None:
    choice, coded = getattr(config.coded, part), config.coded
    if not choice.blocks or not (choice.weight or choice.weight_end):
        return None
    ratio = Linear(coded.ratio_start, coded.ratio_end, levels=coded.levels)
    seed = derive_seed(config.seed, part)
    weight = choice.weight if choice.weight_end is None else Linear(choice.weight, choice.weight_end)
    smoothing = CodedSmoothing(network, choice.blocks, ratio, weight=weight, seed=seed, **coded.options())
    training = config.training
    batch = (part == "generator" and training.generator_batch_size) or training.batch_size
    for step in (0, training.steps):  # a code that can't be built is refused now, not hours from here
        smoothing.set_step(step, training.steps)
        smoothing.code(batch)
    return smoothing


def _evaluator(config: GanConfig, store: ImageStore, session: Session) -> Evaluator | None:
    metrics = config.metrics
    if metrics.extractor == "none":
        return None
    about = {"data": store.name, "split": store.split, "preparation": store.preparation}
    return Evaluator(
        metrics.extractor,
        store.images,
        reference_about={**about, "fingerprint": store.fingerprint},
        num_samples=metrics.num_samples,
        num_reference=metrics.num_reference,
        batch_size=metrics.batch_size,
        device=session.device,
        weights=Path(metrics.weights) if metrics.weights else None,
        progress=session.is_main and sys.stderr.isatty(),
    )


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for what the user can mend, 130 after Ctrl-C, 143 after SIGTERM."""
    return run_script(GanConfig, GanTask, arguments, "Train a WGAN-GP with coded blocks.")


if __name__ == "__main__":
    sys.exit(main())
