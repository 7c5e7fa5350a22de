"""Train a GAN: its networks and data, the step, samples and scores, in running order."""

from __future__ import annotations

import copy
import math
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan import CodedSmoothing
from cs_gan.data import augmented, positions
from cs_gan.gan import (
    Consistency,
    FeatureNorm,
    LeCam,
    LeCamTerm,
    Term,
    ZeroCentred,
    averaged,
    conditioned,
    critic_step,
    diff_augment,
    generator_step,
    mixed_images,
)
from cs_gan.metrics import to_uint8
from cs_gan.randomness import derive_seed, normal, stream, uniform
from cs_gan.report import save_grid
from cs_gan.training import Session, device_options, read_snapshot, set_learning_rate, without_dynamo
from models import ClassDrawing
from tasks.gan.critic_gap import GAP_IMAGES, CriticGap, gap_seed
from tasks.gan.data import GanData, class_shares, counts, in_classes
from tasks.gan.draws import GENERATOR_PURPOSES, PURPOSES, Draws, View
from tasks.gan.looks import Looks
from tasks.gan.networks import build_networks
from tasks.gan.recipe import GanConfig
from tasks.image_task import ImageTask
from tasks.loading import first_on_machine

SAMPLES = 64
CLASSES_SHOWN = 16  # at most: each is a column of a grid
CURVE_KID_SUBSETS = 10  # a tenth of the final score's, because KID is slow on a CPU


class GanTask(ImageTask[GanConfig]):
    """Generator and critic, their data and optimisers, and a training step.

    ``generator`` and ``critic`` may be wrapped for several processes; ``bare_*`` are the networks themselves.
    Everything is checked here, before the first step.
    """

    kind = "gan"

    def __init__(self, session: Session[GanConfig]) -> None:
        self.session, config, device = session, session.config, session.device
        data = GanData(config, partial(first_on_machine, session.accelerator), session.is_main and sys.stderr.isatty())
        self.augment_options = {"flip": config.data.flip, "dequantize": config.data.dequantize}
        self.store = data.training()
        networks = build_networks(config, self.store)
        self.bare_generator, self.bare_critic, self.model = networks.generator, networks.critic, networks.about
        self.latent_dim, self.labels, self.memory_format = networks.latent_dim, networks.labels, networks.memory_format
        for network in (self.bare_generator, self.bare_critic):
            network.to(device).to(memory_format=self.memory_format)
        self.modules = {"generator": self.bare_generator, "critic": self.bare_critic}
        self.learning_rates = {
            "generator": config.training.learning_rate,
            "critic": config.training.critic_learning_rate or config.training.learning_rate,
        }
        self.optimizers = {
            name: self._adam(network, self.learning_rates[name]) for name, network in self.modules.items()
        }
        self.generator, self.critic = map(session.prepared, (self.bare_generator, self.bare_critic))
        self.ema = averaged(self.bare_generator, config.training.ema_decay)
        self.modules["ema"] = self.ema
        self.views = {"real": View(), "fake": View()}
        self.terms = self._terms()
        self.share_every = config.coded.share_every
        critic_batch = config.training.batch_size
        self.batch_sizes = {"generator": config.training.generator_batch_size or critic_batch, "critic": critic_batch}
        self.coded = {part: self._coded(part) for part in ("generator", "critic")}
        scored = config.metrics.extractor != "none"
        self.reference = data.reference(self.store) if scored else None
        self.evaluator = data.evaluator(self.reference, device) if self.reference else None
        self.shares = (
            None if self.labels is None else class_shares(self.reference or self.store, self.store.class_names)
        )
        self.counts = counts(config.metrics, len(self.reference)) if self.reference else None
        self.critic_gap, self.gap_line = self._critic_gap(data)
        random_nodes = "random nodes are drawn in every step" if config.coded.nodes == "random" else ""
        by_class = self.labels is not None and any(self.coded.values())
        looked_up = "classes of coded samples are looked up on the host" if by_class else ""
        self.prepare_steps(random_nodes, looked_up, batches=config.training.n_critic)

    # -- parts -------------------------------------------------------------------------------------

    def _adam(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        training, device = self.config.training, self.session.device
        options = device_options(device, learning_rate)
        if device.type == "cuda":
            options["capturable"] = True
        return without_dynamo(torch.optim.Adam)(network.parameters(), betas=training.betas, **options)

    def _terms(self) -> Sequence[Term]:
        """The further terms of the critic's loss. What they remember between steps is in ``modules``."""
        config, device = self.config.critic, self.session.device
        terms: list[Term] = [
            ZeroCentred(gamma, on) for on, gamma in (("real", config.r1), ("fake", config.r2)) if gamma
        ]
        consistency = {"real": config.consistency.weight, "fake": config.consistency.fake_weight}
        terms += [Consistency(weight, self.views[on], on) for on, weight in consistency.items() if weight]
        if config.lecam.weight:
            lecam = LeCam(config.lecam.decay).to(device)
            self.modules["lecam"] = lecam
            terms.append(LeCamTerm(config.lecam.weight, lecam))
        norm = config.feature_norm
        if norm.weight or norm.share:
            weight = self.held_share("feature_norm", norm.share, norm.weight) if norm.share else norm.weight
            terms.append(FeatureNorm(weight, norm.block))
            terms[-1].watching(self.bare_critic)  # raises an error now if the critic doesn't have the block
        return terms

    def _coded(self, part: str) -> CodedSmoothing | None:
        """The CodedSmoothing of one network, or None. Raises an error now for a code that can't be built."""
        code, choice, batch_size = self.config.coded, getattr(self.config.coded, part), self.batch_sizes[part]
        network, weight = self.modules[part], self.weight(choice, part)
        blocks, discrete = choice.active_blocks, "refuse" if self.labels is None else "nearest"
        return self.attach(code, network, blocks, purpose=part, batch_size=batch_size, weight=weight, discrete=discrete)

    def _critic_gap(self, data: GanData) -> tuple[CriticGap | None, str]:
        """The measurement of the critic's gap, or None and the reason (empty if the recipe has no scores)."""
        if self.config.metrics.extractor == "none":
            return None, ""
        held_out, reason = data.held_out(self.store, GAP_IMAGES, gap_seed(self.config.seed))
        if held_out and self.labels is not None:
            held_out, reason = in_classes(held_out, self.store.class_names)
        if held_out is None:
            return None, f"no critic_gap: {reason}"
        seed, conditional = self.config.seed, self.labels is not None
        return CriticGap(self.store, held_out, seed, self.session.device, self.memory_format, conditional), ""

    def data_circumstances(self) -> dict[str, str]:
        """The images to score against."""
        return {"scored_images": self.reference.fingerprint} if self.reference else {}

    # -- one step ----------------------------------------------------------------------------------

    def step(self, step: int) -> dict[str, Tensor]:
        """``n_critic`` updates of the critic and one of the generator. All draws follow from (seed, step, rank).

        Here the host sets schedules, chooses images and derives random keys. The rest is :meth:`one_step`, a
        function of tensors.
        """
        training, session = self.config.training, self.session
        torch.manual_seed(derive_seed(self.config.seed, "step", step, session.rank))  # for dropout and similar layers
        factor = 1 - step / training.horizon if training.decay == "linear" else 1.0
        for name, optimizer in self.optimizers.items():
            set_learning_rate(optimizer, self.learning_rates[name] * factor)
        codes = []
        for part, coded in self.coded.items():
            if coded:
                coded.set_step(step, training.horizon, hold_end=True)
                codes.append(coded.code(self.batch_sizes[part]) if coded.due else None)
        self.measured = {part: self.measures(step, coded) for part, coded in self.coded.items()}
        if "feature_norm_share" in self.modules:
            self.measured["critic"] |= step % self.share_every == 0 or self.logs_within(step, 1)
        variant = (*(code and code.N for code in codes), *self.measured.values())
        return self.update(variant, self._inputs(step), [code.placed(session.device) for code in codes if code])

    def _inputs(self, step: int) -> dict[str, Tensor]:
        """The tensors that :meth:`one_step` takes."""
        seed, rank, n_critic = self.config.seed, self.session.rank, self.config.training.n_critic
        updates = range(step * n_critic, (step + 1) * n_critic)

        def key(purpose: str, number: int) -> int:
            if purpose == "augmentation":  # the same for any number of processes
                return derive_seed(seed, *PURPOSES[purpose], number)
            return derive_seed(seed, *PURPOSES[purpose], number, rank)

        keys = [[key(purpose, number) for purpose in Draws._fields] for number in updates]
        own = GENERATOR_PURPOSES
        keys.append([derive_seed(seed, *own[name], step, rank) if name in own else 0 for name in Draws._fields])
        inputs = {"keys": torch.tensor(keys)}
        if alpha := self.config.critic.mixup:
            seeds = [derive_seed(seed, "mixup", number, rank) for number in updates]
            inputs["shares"] = torch.tensor([random.Random(seed).betavariate(alpha, alpha) for seed in seeds])
        if self.labels is not None:
            inputs["labels"] = torch.stack([self.labels[self.rows(number)] for number in updates])
            inputs["generator_labels"] = self._generator_labels(step, inputs["labels"][-1])
        if self.images is None:
            return inputs | {f"real_{i}": self.batches[number] for i, number in enumerate(updates)}
        return inputs | {"where": torch.stack([positions(self.rows(number).tolist()) for number in updates])}

    def _generator_labels(self, step: int, paired: Tensor) -> Tensor:  # (B,) -> (B,) int64
        """The classes of the generator's update: of images drawn at random, or of the real ones it is paired with."""
        assert self.labels is not None
        if self.config.training.loss == "relativistic":
            return paired
        draws = stream(self.config.seed, "labels", step, self.session.rank)
        return self.labels[torch.randint(len(self.labels), (self.batch_sizes["generator"],), generator=draws)]

    def one_step(
        self,
        keys: Tensor,
        where: Tensor | None = None,
        shares: Tensor | None = None,
        labels: Tensor | None = None,
        generator_labels: Tensor | None = None,
        **streamed: Tensor,
    ) -> dict[str, Tensor]:
        """One step.

        Args:
            keys: (n_critic + 1, 7), the keys of :class:`Draws`; the last row is the generator's.
            where: (n_critic, B), the positions of the images, if they are on the device.
            shares: (n_critic,), the shares of mixup of real images, if it is used.
            labels: (n_critic, B), the classes of the real images, if the networks get classes. The fake images of an
                update have the same ones.
            generator_labels: (B,), those of the generator's update.
            streamed: ``real_0``, ``real_1``, ...: (B, C, H, W) batches from the CPU, if images are not on the device.
        """
        config, session = self.config, self.session
        policy, size = config.augmentation.policy, config.training.batch_size
        shared: dict[str, Any] = {
            "loss": config.training.loss,
            "autocast": session.autocast,
            "backward": session.accelerator.backward,
        }
        # One call for the draws of all updates, because each small kernel on a GPU costs a launch.
        together = Draws(*keys[:-1].unbind(1))
        latents = normal(together.latents, size, self.latent_dim)
        alphas = uniform(together.alpha, size)
        batches = self._real_batches(together, where, streamed)
        classes = [None] * len(batches) if labels is None else labels.unbind()

        for i, real in enumerate(batches):
            draws = Draws(*keys[i])
            if shares is not None:
                real = mixed_images(real, shares[i])
            real = diff_augment(real, draws.diffaugment_real, policy).to(memory_format=self.memory_format)
            with torch.no_grad(), session.autocast():
                fake = conditioned(self.bare_generator, classes[i])(latents[i])
            fake = diff_augment(fake.float(), draws.diffaugment_fake, policy).to(memory_format=self.memory_format)
            self.views["real"].key, self.views["fake"].key = draws.view_real, draws.view_fake
            losses = critic_step(
                self.critic,
                self.optimizers["critic"],
                real,
                fake,
                alphas[i],
                labels=classes[i],
                penalty_weight=config.training.gradient_penalty,
                terms=self.terms,
                coded=self.coded["critic"],
                coded_on=config.coded.critic.observe,
                measure_share=self.measured["critic"] and i == config.training.n_critic - 1,
                **shared,
            )

        draws = Draws(*keys[-1])
        losses |= generator_step(
            self.generator,
            self.bare_critic,
            self.optimizers["generator"],
            normal(draws.latents, self.batch_sizes["generator"], self.latent_dim),
            labels=generator_labels,
            real=real,
            augment=partial(diff_augment, key=draws.diffaugment_fake, policy=policy) if policy else None,
            coded=self.coded["generator"],
            measure_share=self.measured["generator"],
            **shared,
        )
        self.ema.update_parameters(self.bare_generator)
        return losses

    def _real_batches(
        self, draws: Draws, where: Tensor | None, streamed: dict[str, Tensor]
    ) -> Sequence[Tensor]:  # -> n_critic times (B, C, H, W)
        """The real images of each update, in order."""
        if where is None:
            return [streamed[f"real_{i}"] for i in range(self.config.training.n_critic)]
        assert self.images is not None
        keys = draws.augmentation[:, None].expand(where.shape).flatten()
        images = augmented(self.images, where.flatten(), keys, **self.augment_options)
        return list(images.split(where.shape[1]))

    # -- between steps -----------------------------------------------------------------------------

    def sample(self, done: int) -> None:
        """Save a grid of samples, the same latents at every step. With classes, each has a column, and rows share z."""
        device, columns, labels = self.session.device, math.isqrt(SAMPLES), None
        z = torch.randn(SAMPLES, self.latent_dim, generator=stream(self.config.seed, "grid"))
        if self.labels is not None:
            rows, columns = columns, min(self.store.num_classes, CLASSES_SHOWN)
            z = z[:rows].repeat_interleave(columns, dim=0)
            labels = torch.arange(columns).repeat(rows).to(device)
        with torch.no_grad():
            images = to_uint8(conditioned(self.ema.module, labels)(z.to(device)))
        folder = self.session.folder
        save_grid(folder.grid_at(done), images, columns, copies=[folder.grid])
        self.session.track_image("samples", folder.grid, done)
        looks = Looks(self.store, folder, self.config.seed, self.config.data.flip, SAMPLES)
        looks.save(self.ema.module, z, labels, self.session.device, done, last=done >= self.config.training.steps)

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
        assert self.counts
        count = self.counts.final_samples if full else self.counts.samples
        subsets = {} if full else {"kid_subsets": CURVE_KID_SUBSETS}
        about = about | {"network": "EMA", "trained_on": self._trained_on()}
        evaluation = self.evaluator(self._of_latents(network), self.config.seed, count, about, **subsets)
        scores, provenance = evaluation.values, evaluation.provenance
        if self.critic_gap and snapshot is None:  # a snapshot's critic is gone
            scores = scores | {"critic_gap": self.critic_gap(self.bare_critic)}
            provenance = provenance | {"critic_gap": self.critic_gap.about}
        return {"scores": scores, "primary": evaluation.primary, "better": "lower", "provenance": provenance}

    def _of_latents(self, generator: nn.Module) -> nn.Module:
        """The generator as a function of latents alone. It draws classes as often as the data has them."""
        return generator if self.shares is None else ClassDrawing(generator, self.shares, self.latent_dim)

    def _trained_on(self) -> dict[str, Any]:
        """The description of the training images, for provenance."""
        data, store = self.config.data, self.store
        limit_seed = None if data.limit is None else data.limit_seed
        about = {"split": store.split, "fingerprint": store.fingerprint, "count": len(store)}
        return about | {"limit_seed": limit_seed}

    def scoring_seconds(self, evaluations: int) -> float:
        """Measured on one batch of images. The final and the best generator are scored at the end."""
        if self.evaluator is None:
            return 0.0
        assert self.counts
        metrics, count = self.config.metrics, self.counts
        images = evaluations * count.samples + 2 * count.final_samples
        start = time.perf_counter()
        with torch.no_grad():
            z = torch.randn(metrics.batch_size, self.latent_dim, device=self.session.device)
            self.evaluator.features(to_uint8(self._of_latents(self.ema.module)(z)))
        return (time.perf_counter() - start) * images / metrics.batch_size / self.session.processes

    @property
    def result(self) -> nn.Module:
        """The averaged generator."""
        return self.ema.module

    def extras(self) -> dict[str, float]:
        """The current N/K, and weights that follow the gradient."""
        coded = self.coded["critic"] or self.coded["generator"]
        return self.held_weights() | ({"ratio": coded.ratio} if coded else {})

    def describe(self) -> list[str]:
        """Data, networks, coded blocks."""

        def count(network: nn.Module) -> str:
            return f"{sum(p.numel() for p in network.parameters()):,}"

        sizes = f"generator {count(self.bare_generator)}, critic {count(self.bare_critic)} parameters"
        lines = [self.store.description, f"{self.config.model.name}: {sizes}"]
        for part, coded in self.coded.items():
            if coded:
                lines.append(f"{part} {self.coded_line(coded)}, {getattr(self.config.coded, part).strength}")
        generator, critic = self.coded.values()
        lines += self.useless_blocks(generator, self._some_fakes)
        lines += self.useless_blocks(critic, self._some_scores)
        lines += [self.gap_line] if self.gap_line else []
        lines += [f"note: {self.counts.note}"] if self.counts and self.counts.note else []
        return lines + self.notes(self.config.coded, critic or generator)

    def _some_fakes(self) -> Tensor:
        size = self.batch_sizes["generator"]
        z = torch.randn(size, self.latent_dim, generator=stream(self.config.seed, "grid"))
        fakes: Tensor = conditioned(self.bare_generator, self._first_labels(size))(z.to(self.session.device))
        return fakes

    def _some_scores(self) -> Tensor:
        size = self.batch_sizes["critic"]
        scores: Tensor = conditioned(self.bare_critic, self._first_labels(size))(self.some_images(size))
        return scores

    def _first_labels(self, count: int) -> Tensor | None:  # -> (count,) on the device
        """The classes of the first images, as :meth:`some_images` has them."""
        if self.labels is None:
            return None
        return self.labels[torch.arange(count) % len(self.labels)].to(self.session.device)
