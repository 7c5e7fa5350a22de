"""Classifiers by name, and the smallest classifiers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from models.base import StemBlocksHead, named_shape
from models.gan import _nearest
from models.residual_classifiers import (
    check_size,
    conv_he,
    last_linear,
    mean_linear,
    preact_resnet18,
    resnet20,
    wrn28_10,
)
from models.vit import vit32

Shape = tuple[int, ...]
Parts = tuple[nn.Module, nn.Sequential, nn.Module]  # stem, blocks, head


class Classifier(StemBlocksHead):
    """From samples to logits.

    Shapes: x (K, *input_shape), which are images (K, channels, R, R) in [-1, 1] or rows (K, features) -> logits
    (K, num_classes).
    Errors: ValueError if x is not (K, *input_shape).
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: nn.Sequential,
        head: nn.Module,
        *,
        name: str,
        num_classes: int,
        input_shape: Shape,
    ) -> None:
        super().__init__(stem, blocks, head)
        self.name = name
        self.num_classes = num_classes
        self.input_shape = input_shape

    def forward(self, x: Tensor) -> Tensor:  # (K, *input_shape) -> (K, num_classes)
        """The logits of each sample."""
        # A network that ends in a global mean would accept images of any size, and classify them wrongly.
        if tuple(x.shape[1:]) != self.input_shape:
            if len(self.input_shape) == 1:
                expected, remedy = "rows", "pass one row of features per sample, or set `features`"
            else:
                expected, remedy = "images", "resize the images, or set `channels` and `image_size`"
            raise ValueError(
                f"{self.name} expects {expected} of shape {named_shape('K', self.input_shape)}, got {tuple(x.shape)}; "
                f"{remedy} when it is built"
            )
        return super().forward(x)


def cnn_small(input_shape: Shape, num_classes: int, *, width: int = 32) -> Parts:
    """Three stages of 3x3 convolution, batch norm, ReLU and 2x2 max-pool: fast on a CPU.

    Parts, for width w (32), channels c and size R:
        stem      nothing                            (K, c, R, R)
        blocks    one stage each                     (K, w, R/2, R/2), (K, 2w, R/4, R/4), (K, 6w, R/8, R/8)
        head      mean over the image, Linear        -> (K, num_classes)

    Parameters: 132,394 for 10 classes of colour images. The last stage is widened more than twice because channels
    are cheapest there. Odd sizes are rounded down.
    Weights: He normal by fan out; the last layer has torch's default weights and zero bias.
    Errors: ValueError for images under 8 pixels.
    """
    channels, size, _ = input_shape
    check_size("cnn_small", size, 8)
    stages = [_stage(channels, width), _stage(width, 2 * width), _stage(2 * width, 6 * width)]
    return nn.Identity(), nn.Sequential(*stages), mean_linear(6 * width, num_classes)


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:  # (K, in, H, W) -> (K, out, H // 2, W // 2)
    conv = conv_he(in_channels, out_channels)
    # ReLU and maximum can be exchanged. Pooling first gives the same result with a quarter of the ReLUs.
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.MaxPool2d(2), nn.ReLU())


def cnn_plain(input_shape: Shape, num_classes: int, *, width: int = 16) -> Parts:
    """Two stages of 3x3 convolution, ReLU and 2x2 max-pool without norm, and a linear layer.

    Parts, for width w (16), channels c and size R:
        stem      nothing                            (K, c, R, R)
        blocks    one stage each                     (K, w, R/2, R/2), (K, 2w, R/4, R/4)
        head      flatten, Linear                    -> (K, num_classes)

    Parameters: 25,578 for 10 classes of colour images of 32 pixels. Odd sizes are rounded down.
    Weights: He normal by fan out, zero biases; the last layer has torch's default weights.
    Errors: ValueError for images under 4 pixels.
    """
    channels, size, _ = input_shape
    check_size("cnn_plain", size, 4)
    pairs = ((channels, width), (width, 2 * width))
    stages = [nn.Sequential(conv_he(a, b, bias=True), nn.MaxPool2d(2), nn.ReLU()) for a, b in pairs]
    last = last_linear(2 * width * (size // 4) ** 2, num_classes)
    return nn.Identity(), nn.Sequential(*stages), nn.Sequential(nn.Flatten(), last)


def mlp(input_shape: Shape, num_classes: int, *, width: int = 64, depth: int = 3) -> Parts:
    """A plain perceptron without norm, for rows of features or flattened images.

    Parts, for width w (64) and depth d (3) hidden layers:
        stem      flatten                            (K, *input_shape) -> (K, features)
        blocks    d times Linear, ReLU               (K, w)
        head      Linear                             -> (K, num_classes)

    Weights: He normal, zero biases; the last layer has torch's default weights.
    """
    features = math.prod(input_shape)
    hidden: list[nn.Module] = []
    for inputs in [features] + [width] * (depth - 1):
        linear = nn.Linear(inputs, width)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        hidden.append(nn.Sequential(linear, nn.ReLU()))
    return nn.Flatten(), nn.Sequential(*hidden), last_linear(width, num_classes)


# Each takes the shape of one sample, num_classes and the given overrides.
_NETS: dict[str, Callable[..., Parts]] = {
    "cnn_small": cnn_small,
    "cnn_plain": cnn_plain,
    "mlp": mlp,
    "resnet20": resnet20,
    "preact_resnet18": preact_resnet18,
    "wrn28_10": wrn28_10,
    "vit32": vit32,
}
_EVERY = ("channels", "image_size", "width")
_OWN = {"mlp": ("depth", "features"), "wrn28_10": ("dropout",), "vit32": ("dropout",)}

CLASSIFIER_NAMES: tuple[str, ...] = tuple(_NETS)


def build_classifier(name: str, num_classes: int, **overrides: float) -> Classifier:
    """Build the classifier called `name`, with new weights drawn from torch's global generator.

    Overrides and their defaults:
        all            `channels` of the images (3), `image_size` in pixels (32), and `width`, the base channel count:
                       cnn_small 32, cnn_plain 16, mlp 64, resnet20 16, preact_resnet18 64, vit32 192, wrn28_10 16 (its
                       stages have 10, 20 and 40 times as many)
        wrn28_10, vit32   `dropout`, a probability (0)
        mlp            `depth` (3); `features`, for rows of this many features instead of images

    vit32 needs torchvision, the others only torch.

    Shapes: x (K, channels, image_size, image_size) in [-1, 1], or (K, features) -> logits (K, num_classes).
    Errors: ValueError for an unknown name or override (with similar names), an invalid value, or an image size that
    the network can't take.
    """
    if name not in _NETS:
        raise ValueError(f"build_classifier({name!r}): unknown name{_nearest(name, CLASSIFIER_NAMES)}")
    if type(num_classes) is not int or num_classes < 2:
        raise ValueError(f"build_classifier({name!r}, {num_classes!r}): num_classes must be an integer of at least 2")
    valid = _EVERY + _OWN.get(name, ())
    for key, value in overrides.items():
        _check_override(f"build_classifier({name!r}, {num_classes}", key, value, valid)
    if "features" in overrides and {"channels", "image_size"} & overrides.keys():
        raise ValueError(
            f"build_classifier({name!r}, {num_classes}, ...): features says that the input is rows, channels and "
            f"image_size that it is images; give one or the other"
        )
    options: dict[str, Any] = dict(overrides)
    channels, size = options.pop("channels", 3), options.pop("image_size", 32)
    input_shape = (options.pop("features"),) if "features" in options else (channels, size, size)
    parts = _NETS[name](input_shape, num_classes, **options)
    return Classifier(*parts, name=name, num_classes=num_classes, input_shape=input_shape)


def _check_override(call: str, key: str, value: float, valid: tuple[str, ...]) -> None:
    if key not in valid:
        raise ValueError(f"{call}, {key}=...): unknown override{_nearest(key, valid)}")
    if key == "dropout":
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise ValueError(f"{call}, {key}={value!r}): {key} must be a probability, at least 0 and under 1")
    elif type(value) is not int or value < 1:
        raise ValueError(f"{call}, {key}={value!r}): {key} must be a positive integer")
