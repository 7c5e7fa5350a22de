"""A trained generator in two lines, from a snapshot or from the Hugging Face Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torchvision.utils import save_image

from models.base import require_fit
from models.card import Origin, model_card, read_origin
from models.gan import build_gan
from models.own import ForeignCode, build_own


class PretrainedGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="cs-gan",
    paper_url="https://arxiv.org/abs/2510.00253",
    license="mit",
    pipeline_tag="unconditional-image-generation",
    tags=["gan", "wgan-gp", "coded-smoothing"],
):
    """A trained generator in evaluation mode, with its latents: of a pair in `GAN_NAMES`, or of someone's own class.

        images = PretrainedGenerator.from_snapshot("samples/quickstart/snapshot.safetensors").sample(64, seed=0)

    `save_pretrained`, `from_pretrained` and `push_to_hub` are huggingface_hub's. They write the arguments to
    config.json, a model card to README.md and images from seed 0 to samples.png. The card has recipe and scores if the
    generator comes from a snapshot in its run folder. Pickles are never read, as in the rest of the project.

    Args: those of `build_gan`. For someone's own class `name` is package.module:Class, which is not imported, because a
    file must not decide what code runs: `own` is the class. `options`, `latent_dim` and `image_shape` come with it.
    Shapes: z (B, latent_dim) -> images (B, channels, R, R) in [-1, 1]. A class-conditional one, which has
    `class_names`, also takes labels, int64 (B,).
    Errors: ValueError as for `build_gan`, and for someone's own class that isn't given.
    """

    def __init__(self, name: str, *, own: type[nn.Module] | None = None, **about: Any) -> None:
        super().__init__()
        arguments: Any = self._hub_mixin_config  # what is written to config.json
        arguments.pop("own", None)
        self.class_names = tuple(about.get("class_names", ()))
        self.generator: nn.Module
        if ":" in name:
            if own is None:
                raise ForeignCode(
                    f"the generator is of the class {name}, and a file must not decide what is imported. If you trust "
                    f"that code, give the class: --model.generator={name}, or in Python own={name.partition(':')[2]}"
                )
            self.generator = build_own(own, about["options"], "generator")
            self.latent_dim, self.image_shape = int(about["latent_dim"]), tuple(about["image_shape"])
        elif own is not None:
            raise ValueError(f"it holds the network {name}, so no class of your own is needed: leave it out")
        else:
            generator, _ = build_gan(name, **about)
            self.generator, self.latent_dim, self.image_shape = generator, generator.latent_dim, generator.image_shape
        self.origin = Origin()
        self.eval()

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:  # (B, latent_dim) -> (B, *image_shape)
        """One image for each latent code."""
        images: Tensor = self.generator(z) if labels is None else self.generator(z, labels)
        return images

    def latents(self, count: int, seed: int = 0) -> Tensor:  # -> (count, latent_dim), on the CPU
        """Standard normal latent codes, the same on every device."""
        return torch.randn(count, self.latent_dim, generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def sample(
        self, count: int = 64, seed: int = 0, batch_size: int = 64, labels: Tensor | None = None
    ) -> Tensor:  # -> (count, *image_shape)
        """Images in [-1, 1] on the generator's device, generated in batches of `batch_size`.

        A class-conditional generator takes `labels`, int64 (count,). By default the classes come in turn.
        """
        device, latents = next(self.parameters()).device, self.latents(count, seed)
        if labels is None and self.class_names:
            labels = torch.arange(count) % len(self.class_names)
        if labels is None:
            return torch.cat([self(z.to(device)) for z in latents.split(batch_size)])
        pairs = zip(latents.split(batch_size), labels.split(batch_size), strict=True)
        return torch.cat([self(z.to(device), part.to(device)) for z, part in pairs])

    @classmethod
    def from_snapshot(
        cls, path: str | Path, device: torch.device | str = "cpu", own: type[nn.Module] | None = None
    ) -> PretrainedGenerator:
        """Load the generator from a file that train_gan.py wrote.

        If that was trained with --model.generator, `own` is its class. The name in the file is never imported.

        Errors: FileNotFoundError, and ValueError for a file that is no snapshot of a generator.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} doesn't exist; give the snapshot.safetensors of a run")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            if json.loads(metadata["kind"]) != "gan":
                raise ValueError(f"it holds a network of kind {metadata['kind']}")
            arguments = json.loads(metadata["model"])
            if own is None:
                require_fit(lambda **options: cls(**options).generator, arguments, tensors)
            pretrained = cls(**arguments, own=own)
            pretrained.generator.load_state_dict(tensors)
            pretrained.origin = read_origin(Path(path), metadata)
        except ForeignCode as error:
            raise ForeignCode(f"{path}: {error}") from error
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
            raise ValueError(f"{path} is no snapshot of a generator: {' '.join(str(error).split())}") from error
        return pretrained.to(device)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """As in huggingface_hub. The card shows how to load the generator by this name."""
        card_options = options.pop("model_card_kwargs", None) or {}
        url: str = super().push_to_hub(repo_id, model_card_kwargs={"repo_id": repo_id, **card_options}, **options)
        return url

    def generate_model_card(self, repo_id: str | None = None) -> ModelCard:
        """The card that `save_pretrained` writes if there is no README.md yet; `repo_id` is the name on the Hub."""
        about: ModelCardData = self._hub_mixin_info.model_card_data
        arguments: Any = self._hub_mixin_config
        parameters = sum(p.numel() for p in self.parameters())
        return model_card(about, arguments, self.image_shape, parameters, self.origin, repo_id)

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        save_image(self.sample(64, seed=0), save_directory / "samples.png", normalize=True, value_range=(-1, 1))

    @classmethod
    def _load_as_safetensor(cls, model, model_file, map_location, strict):  # type: ignore[no-untyped-def]
        # By default the mixin gives random weights to tensors that the file lacks, without a warning.
        return super()._load_as_safetensor(model, model_file, map_location, strict=True)

    @classmethod
    def _load_as_pickle(cls, model, model_file, map_location, strict):  # type: ignore[no-untyped-def]
        raise ValueError(f"{model_file} is a pickle, which is never read; ask for a repository with model.safetensors")
