"""Encoders for self-supervised losses: a classifier without its last layer, with a projector on top."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from models.classifiers import Classifier, build_classifier


class Encoder(nn.Module):
    """From images to embeddings: ``projector(encoder(x))``.

    ``encoder`` is a classifier without its last linear layer. Its outputs are the features for later use.
    ``"encoder"``, ``"encoder.blocks.1"`` and ``"projector"`` are names of blocks that can be coded.

    Shapes: x (K, channels, R, R) in [-1, 1] -> embeddings (K, projector_dim); ``encoder(x)`` (K, features).
    """

    def __init__(self, encoder: Classifier, projector: nn.Sequential) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector

    def forward(self, x: Tensor) -> Tensor:  # (K, C, R, R) -> (K, projector_dim)
        """The embedding of each image."""
        embeddings: Tensor = self.projector(self.encoder(x))
        return embeddings


def build_encoder(
    name: str, *, projector_width: int = 512, projector_dim: int = 128, projector_layers: int = 2, **overrides: float
) -> Encoder:
    """Build an encoder with its projector, with new weights drawn from torch's global generator.

    Args:
        name, overrides: the classifier, as for `build_classifier`.
        projector_width: of the hidden layers, which have batch norm and ReLU.
        projector_dim: of the embedding.
        projector_layers: number of linear layers. SimCLR has two, Barlow Twins three.

    Errors: ValueError as for `build_classifier`, or for a size that isn't a positive integer.
    """
    sizes = {"projector_width": projector_width, "projector_dim": projector_dim, "projector_layers": projector_layers}
    for key, value in sizes.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"build_encoder({name!r}, {key}={value!r}): {key} must be a positive integer")
    trunk = build_classifier(name, 2, **overrides)
    # The last linear layer in named_modules() is the last layer of every network in models.classifiers.
    path, last = [(path, part) for path, part in trunk.named_modules() if isinstance(part, nn.Linear)][-1]
    parent, _, leaf = path.rpartition(".")
    setattr(trunk.get_submodule(parent), leaf, nn.Identity())
    trunk.num_classes = last.in_features
    widths = [last.in_features, *[projector_width] * (projector_layers - 1)]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        # A bias before batch norm has no effect.
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
    return Encoder(trunk, nn.Sequential(*layers, nn.Linear(widths[-1], projector_dim)))
