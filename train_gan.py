#!/usr/bin/env python
"""Train a GAN with coded blocks: ``accelerate launch train_gan.py --config configs/gan/<recipe>.yaml``.

Any key of the recipe can be given as ``--key=value``; ``--help-all`` lists them. A step is one generator update.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from commands import gan_parts as parts
from commands.gan_data import GanData
from commands.image_task import ImageTask
from cs_gan.data import augmented, positions
from cs_gan.gan import averaged, critic_step, diff_augment, generator_step, mixed_images
from cs_gan.metrics import to_uint8
from cs_gan.randomness import derive_seed, normal, stream, uniform
from cs_gan.report import save_grid
from cs_gan.training import GanConfig, Session, read_snapshot, run_script, set_learning_rate

RECIPES = Path(__file__).parent / "configs" / "gan"
SAMPLES = 64
# The random draws of a critic step. Each has a key, in this order.
PER_CRITIC_STEP = (
    *(("latents", "critic"), ("alpha",), ("augmentation",)),
    *(("diffaugment", "real"), ("diffaugment", "fake"), ("view", "real"), ("view", "fake")),
)
CURVE_KID_SUBSETS = 10  # a tenth of the final score's, because KID is slow on a CPU


class GanTask(ImageTask):
    """Generator and critic, their data and optimisers, and a training step.

    ``generator`` and ``critic`` may be wrapped for several processes; ``bare_*`` are the networks themselves.
    Everything is checked here, before the first step.
    """

    kind = "gan"
    config: GanConfig

    def __init__(self, config: GanConfig, session: Session) -> None:
        self.config, self.session = config, session
        data = GanData(config, session.accelerator.local_main_process_first, session.is_main and sys.stderr.isatty())
        self.augment_options = {"flip": config.data.flip, "dequantize": config.data.dequantize}
        self.store = data.training()
        self.model = config.model.arguments(channels=self.store.image_shape[0])
        self.bare_generator, self.bare_critic = parts.networks(config, self.model, self.store, session.device)
        self.optimizers = {
            "generator": parts.adam(config, self.bare_generator, session.device),
            "critic": parts.adam(config, self.bare_critic, session.device),
        }
        self.generator_batch = config.training.generator_batch_size or config.training.batch_size
        self.generator, self.critic = session.accelerator.prepare(self.bare_generator, self.bare_critic)
        self.ema = averaged(self.bare_generator, config.training.ema_decay)
        self.modules = {"generator": self.bare_generator, "critic": self.bare_critic, "ema": self.ema}
        self.lecam = parts.anchors(config, session.device)
        if self.lecam:
            self.modules["lecam"] = self.lecam
        parts.terms(config, self.bare_critic, self.lecam, torch.zeros(2))  # raises errors now
        self.coded_generator = parts.coded(config, self.bare_generator, "generator")
        self.coded_critic = parts.coded(config, self.bare_critic, "critic")
        for part, coded in (("generator", self.coded_generator), ("critic", self.coded_critic)):
            if coded and coded.held:
                self.modules[f"{part}_share"] = coded.held
        scored = config.metrics.extractor != "none"
        self.evaluator = data.evaluator(data.reference(self.store), session.device) if scored else None
        self.critic_gap, self.gap_line = parts.critic_gap(config, data, self.store, session.device)
        obstacle = "random nodes are drawn in every step" if config.coded.nodes == "random" else ""
        self.prepare_steps(obstacle, batches=config.training.n_critic)

    # -- one step ----------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Tensor]:
        """``n_critic`` updates of the critic and one of the generator. All draws follow from (seed, step, rank).

        Here the host sets schedules, chooses images and derives random keys. The rest is :meth:`one_step`, a
        function of tensors.
        """
        config, training, session = self.config, self.config.training, self.session
        torch.manual_seed(derive_seed(config.seed, "step", step, session.rank))  # for dropout and similar layers
        factor = 1 - step / training.horizon if training.decay == "linear" else 1.0
        for optimizer in self.optimizers.values():
            set_learning_rate(optimizer, training.learning_rate * factor)
        codes = []
        for coded, batch in ((self.coded_generator, self.generator_batch), (self.coded_critic, training.batch_size)):
            if coded:
                coded.set_step(step, training.horizon, hold_end=True)
                codes.append(coded.code(batch) if coded.due else None)
        held = [code.placed(session.device) for code in codes if code]
        self.measured = (self.measures(step, self.coded_generator), self.measures(step, self.coded_critic))
        variant = (*(code and code.N for code in codes), *self.measured)
        return self.update(variant, self._inputs(step), held)

    def _inputs(self, step: int) -> dict[str, Tensor]:
        """The tensors that :meth:`one_step` takes."""
        seed, rank, n_critic = self.config.seed, self.session.rank, self.config.training.n_critic
        draws = range(step * n_critic, (step + 1) * n_critic)
        keys = [[derive_seed(seed, *what, draw, rank) for what in PER_CRITIC_STEP] for draw in draws]
        for row, draw in zip(keys, draws, strict=True):
            row[2] = derive_seed(seed, "augmentation", draw)  # the same for any number of processes
        own = {0: ("latents", "generator"), 4: ("diffaugment", "generator")}
        keys.append([derive_seed(seed, *own[i], step, rank) if i in own else 0 for i in range(len(PER_CRITIC_STEP))])
        inputs = {"keys": torch.tensor(keys)}
        if mixup := self.config.critic.mixup:
            drawn = [random.Random(derive_seed(seed, "mixup", draw, rank)).betavariate(mixup, mixup) for draw in draws]
            inputs["shares"] = torch.tensor(drawn)
        if self.images is None:
            return inputs | {f"real_{i}": self.batches[draw] for i, draw in enumerate(draws)}
        return inputs | {"where": torch.stack([positions(self.rows(draw).tolist()) for draw in draws])}

    def one_step(
        self, keys: Tensor, where: Tensor | None = None, shares: Tensor | None = None, **streamed: Tensor
    ) -> dict[str, Tensor]:
        """One step.

        Args:
            keys: (n_critic + 1, 7), the keys of ``PER_CRITIC_STEP``; the last row is the generator's.
            where: (n_critic, B), the positions of the images, if they are on the device.
            shares: (n_critic,), the shares of mixup of real images, if it is used.
            streamed: ``real_0``, ``real_1``, ...: (B, C, H, W) batches from the CPU, if images are not on the device.
        """
        config, session = self.config, self.session
        policy, loss = config.augmentation.policy, config.training.loss
        shared: dict[str, Any] = {"autocast": session.autocast, "backward": session.accelerator.backward, "loss": loss}
        size, latent_dim = config.training.batch_size, self.bare_generator.latent_dim
        # One call for all draws, because each small kernel on a GPU costs a launch.
        latents, alphas = normal(keys[:-1, 0], size, latent_dim), uniform(keys[:-1, 1], size)
        if where is not None:
            each = keys[:-1, 2:3].expand(-1, size).flatten()
            made = augmented(self.images, where.flatten(), each, **self.augment_options)
            streamed = {f"real_{i}": real for i, real in enumerate(made.split(size))}

        for i in range(config.training.n_critic):
            real = streamed[f"real_{i}"]
            if shares is not None:
                real = mixed_images(real, shares[i])
            real = diff_augment(real, keys[i, 3], policy).to(memory_format=torch.channels_last)
            with torch.no_grad(), session.autocast():
                fake = self.bare_generator(latents[i])
            fake = diff_augment(fake.float(), keys[i, 4], policy).to(memory_format=torch.channels_last)
            losses = critic_step(
                self.critic,
                self.optimizers["critic"],
                real,
                fake,
                alphas[i],
                penalty_weight=config.training.gradient_penalty,
                terms=parts.terms(config, self.bare_critic, self.lecam, keys[i, 5:7]),
                coded=self.coded_critic,
                coded_on=config.coded.critic.observe,
                measure_share=self.measured[1] and i == config.training.n_critic - 1,
                **shared,
            )
        losses |= generator_step(
            self.generator,
            self.bare_critic,
            self.optimizers["generator"],
            normal(keys[-1, 0], self.generator_batch, latent_dim),
            real=real,
            augment=partial(diff_augment, key=keys[-1, 4], policy=policy) if policy else None,
            coded=self.coded_generator,
            measure_share=self.measured[0],
            **shared,
        )
        self.ema.update_parameters(self.bare_generator)
        return losses

    # -- between steps -----------------------------------------------------------------------------

    def sample(self, done: int) -> None:
        """Save a grid of samples. The latents are the same at every step."""
        z = torch.randn(SAMPLES, self.bare_generator.latent_dim, generator=stream(self.config.seed, "grid"))
        with torch.no_grad():
            images = to_uint8(self.ema.module(z.to(self.session.device)))
        folder = self.session.folder
        save_grid(folder.grid_at(done), images, copies=[folder.grid])
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
        about = about | {"network": "EMA", "trained_on": parts.trained_on(self.config, self.store)}
        found = self.evaluator(network, self.config.seed, count, about, **subsets)
        scores, provenance = found.values, found.provenance
        if self.critic_gap and snapshot is None:  # a snapshot's critic is gone
            scores = scores | {"critic_gap": self.critic_gap(self.bare_critic)}
            provenance = provenance | {"critic_gap": self.critic_gap.about}
        return {"scores": scores, "primary": found.primary, "better": "lower", "provenance": provenance}

    def scoring_seconds(self, evaluations: int) -> float:
        """Measured on one batch of images. The final and the best generator are scored at the end."""
        if self.evaluator is None:
            return 0.0
        metrics = self.config.metrics
        images = evaluations * metrics.num_samples + 2 * (metrics.final_samples or metrics.num_samples)
        start = time.perf_counter()
        with torch.no_grad():
            z = torch.randn(metrics.batch_size, self.bare_generator.latent_dim, device=self.session.device)
            self.evaluator.features(to_uint8(self.ema.module(z)))
        return (time.perf_counter() - start) * images / metrics.batch_size / self.session.processes

    @property
    def result(self) -> nn.Module:
        """The averaged generator."""
        return self.ema.module

    def extras(self) -> dict[str, float]:
        """The current N/K, and weights that follow the gradient."""
        coded = {"generator": self.coded_generator, "critic": self.coded_critic}
        found = {f"{part}_weight": each.weight for part, each in coded.items() if each and each.held}
        one = self.coded_critic or self.coded_generator
        return found | ({"ratio": one.ratio} if one else {})

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
                choice = getattr(self.config.coded, part)
                how = f"weight {choice.weight}" if choice.share is None else f"held at {choice.share} of the gradient"
                lines.append(f"{part} coded at {', '.join(coded.blocks)}, {how}")
        size, latent_dim = self.config.training.batch_size, self.bare_generator.latent_dim
        latents = torch.randn(self.generator_batch, latent_dim, generator=stream(self.config.seed, "grid"))
        lines += self.useless_blocks(self.coded_generator, lambda: self.bare_generator(latents.to(self.session.device)))
        lines += self.useless_blocks(self.coded_critic, lambda: self.bare_critic(self.some_images(size)))
        lines += [self.gap_line] if self.gap_line else []
        return lines + self.notes(self.config.coded, self.coded_critic or self.coded_generator)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for an error the user can fix, 130 after Ctrl-C, 143 after SIGTERM."""
    return run_script(GanConfig, GanTask, arguments, "Train a WGAN-GP with coded blocks.", RECIPES)


if __name__ == "__main__":
    sys.exit(main())
