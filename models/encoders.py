"""Any classifier without its last layer, and a projector on top: what self-supervised losses train."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from models.classifiers import Classifier, build_classifier


class Encoder(nn.Module):
    """Images in, embeddings out: ``projector(encoder(x))``.

    ``encoder`` is a classifier whose last linear layer is taken out, so ``"encoder"``, ``"encoder.blocks.1"`` and
    ``"projector"`` name parts that can be wrapped. Its outputs are the features for later use.

    Shapes: x (K, channels, R, R) in [-1, 1] -> embeddings (K, projector_dim); ``encoder(x)`` (K, features).
    """

    def __init__(self, encoder: Classifier, projector: nn.Sequential) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector

    def forward(self, x: Tensor) -> Tensor:  # (K, C, R, R) -> (K, projector_dim)
        """Give each image its embedding."""
        embeddings: Tensor = self.projector(self.encoder(x))
        return embeddings


def build_encoder(
    name: str, *, projector_width: int = 512, projector_dim: int = 128, projector_layers: int = 2, **overrides: float
) -> Encoder:
    """Build an encoder with its projector, freshly initialised from torch's global generator.

    The projector has ``projector_layers`` linear layers, ``projector_width`` wide within, with batch norm and ReLU
    between. SimCLR has two of them, Barlow Twins three.

    Args:
        name, overrides: the trunk: as for `build_classifier`.
        projector_width, projector_dim, projector_layers: see above.

    Errors: ValueError as `build_classifier`, or for a projector of no size.
    """
    sizes = {"projector_width": projector_width, "projector_dim": projector_dim, "projector_layers": projector_layers}
    for key, value in sizes.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"build_encoder({name!r}, {key}={value!r}): {key} must be a positive integer")
    trunk = build_classifier(name, 2, **overrides)
    # As every net of models.classifiers ends.
    path, last = [(path, part) for path, part in trunk.named_modules() if isinstance(part, nn.Linear)][-1]
    parent, _, leaf = path.rpartition(".")
    setattr(trunk.get_submodule(parent), leaf, nn.Identity())
    trunk.num_classes = last.in_features
    widths = [last.in_features, *[projector_width] * (projector_layers - 1)]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        # A bias before batch norm does nothing.
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
    return Encoder(trunk, nn.Sequential(*layers, nn.Linear(widths[-1], projector_dim)))
