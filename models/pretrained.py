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


class PretrainedGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="cs-gan",
    paper_url="https://arxiv.org/abs/2510.00253",
    license="mit",
    pipeline_tag="unconditional-image-generation",
    tags=["gan", "wgan-gp", "coded-smoothing"],
):
    """The generator of a pair in `GAN_NAMES`, in evaluation mode, with its latents.

        images = PretrainedGenerator.from_snapshot("samples/quickstart/snapshot.safetensors").sample(64, seed=0)

    `save_pretrained`, `from_pretrained` and `push_to_hub` are huggingface_hub's. They write the arguments to
    config.json, a model card to README.md and images from seed 0 to samples.png. The card has recipe and scores if the
    generator comes from a snapshot in its run folder. Pickles are never read, as in the rest of the project.

    Args: those of `build_gan`.
    Shapes: z (B, latent_dim) -> images (B, channels, R, R) in [-1, 1].
    Errors: ValueError as for `build_gan`.
    """

    def __init__(self, name: str, **overrides: int) -> None:
        super().__init__()
        self.generator, _ = build_gan(name, **overrides)
        self.latent_dim = self.generator.latent_dim
        self.image_shape = self.generator.image_shape
        self.origin = Origin()
        self.eval()

    def forward(self, z: Tensor) -> Tensor:  # (B, latent_dim) -> (B, *image_shape)
        """One image for each latent code."""
        images: Tensor = self.generator(z)
        return images

    def latents(self, count: int, seed: int = 0) -> Tensor:  # -> (count, latent_dim), on the CPU
        """Standard normal latent codes, the same on every device."""
        return torch.randn(count, self.latent_dim, generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def sample(self, count: int = 64, seed: int = 0, batch_size: int = 64) -> Tensor:  # -> (count, *image_shape)
        """Images in [-1, 1] on the generator's device, generated in batches of `batch_size`."""
        device = next(self.parameters()).device
        return torch.cat([self(z.to(device)) for z in self.latents(count, seed).split(batch_size)])

    @classmethod
    def from_snapshot(cls, path: str | Path, device: torch.device | str = "cpu") -> PretrainedGenerator:
        """Load the generator from a file that train_gan.py wrote.

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
            require_fit(lambda **options: build_gan(**options)[0], arguments, tensors)
            pretrained = cls(**arguments)
            pretrained.generator.load_state_dict(tensors)
            pretrained.origin = read_origin(Path(path), metadata)
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
