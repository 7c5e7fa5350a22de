"""Each speed-up against the plain formulation, and the blocks against their description."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from models.blocks import ConvMeanPool, CriticBlock, CriticStemBlock, GeneratorBlock, LayerNorm, UpsampleConv

# float64 keeps 1e-16 relative; sums of a few hundred terms of order one stay well within 1e-12.
TOLERANCE = 1e-10


def plain_conv_pool(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.avg_pool2d(F.conv2d(x, conv.weight, conv.bias, padding=1), 2)


def plain_upsample_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return F.conv2d(doubled, conv.weight, conv.bias, padding=1)


def plain_bilinear_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    doubled = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return F.conv2d(doubled, conv.weight, conv.bias, padding=1)


def plain_generator_block(block: GeneratorBlock, x: Tensor) -> Tensor:
    doubled = lambda t: F.interpolate(t, scale_factor=2, mode=block.upsampling)
    h = F.conv2d(doubled(F.relu(block.norm1(x))), block.conv1.weight, block.conv1.bias, padding=1)
    return block.conv2(F.relu(block.norm2(h))) + block.shortcut(doubled(x))


def plain_stem_block(block: CriticStemBlock, x: Tensor) -> Tensor:
    return plain_conv_pool(block.conv2, F.relu(block.conv1(x))) + F.avg_pool2d(block.shortcut(x), 2)


def plain_critic_block(block: CriticBlock, x: Tensor) -> Tensor:
    h = F.relu(block.norm2(block.conv1(F.relu(block.norm1(x)))))
    return plain_conv_pool(block.conv2, h) + F.avg_pool2d(block.shortcut(x), 2)


CASES = {
    "conv_mean_pool": (lambda: ConvMeanPool(3, 5), plain_conv_pool),
    "upsample_conv": (lambda: UpsampleConv(3, 5), plain_upsample_conv),
    "upsample_conv_without_bias": (lambda: UpsampleConv(3, 5, bias=False), plain_upsample_conv),
    "bilinear_upsample_conv": (lambda: UpsampleConv(3, 5, upsampling="bilinear"), plain_bilinear_conv),
    "generator_block": (lambda: GeneratorBlock(3, 5), plain_generator_block),
    "generator_block_bilinear": (lambda: GeneratorBlock(3, 5, upsampling="bilinear"), plain_generator_block),
    "critic_stem_block": (lambda: CriticStemBlock(3, 5), plain_stem_block),
    "critic_block": (lambda: CriticBlock(3, 5, downsample=True), plain_critic_block),
    "critic_block_layer_norm": (
        lambda: CriticBlock(3, 5, downsample=True, layer_norm=True, first_bias=False),
        plain_critic_block,
    ),
}


def randomised(module: nn.Module) -> nn.Module:
    """Give biases and norm parameters values that matter."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def derivatives(function: Callable[[Tensor], Tensor], x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """The output, its gradients, and the gradients of a gradient penalty (second derivatives)."""
    out = function(x)
    # A smooth nonlinear loss, so that second derivatives don't vanish.
    loss = (out.tanh() * torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).cos()).sum()
    first = torch.autograd.grad(loss, [x, *parameters], create_graph=True)
    penalty = sum((gradient**2).sum() for gradient in first)
    second = torch.autograd.grad(penalty, [x, *parameters], allow_unused=True, materialize_grads=True)
    return [out, *first, *second]


@pytest.mark.parametrize("size", [(6, 8), (4, 2), (2, 2)])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_plain_formulation_to_the_second_derivative(case: str, size: tuple[int, int]) -> None:
    make, plain = CASES[case]
    module = randomised(make().double())
    x = torch.randn(3, 3, *size, dtype=torch.float64, requires_grad=True)
    parameters = list(module.parameters())
    fast = derivatives(module, x, parameters)
    slow = derivatives(lambda t: plain(module, t), x, parameters)
    for one, other in zip(fast, slow, strict=True):
        # Relative to the largest entry: penalties through batch norm on 2x2 images reach thousands.
        scale = max(1.0, other.abs().max().item())
        assert one.shape == other.shape
        assert (one - other).abs().max().item() <= TOLERANCE * scale


@pytest.mark.parametrize("size", [(5, 7), (6, 5), (2, 3)])
def test_folded_pool_drops_an_odd_last_row_and_column_as_pooling_does(size: tuple[int, int]) -> None:
    conv = randomised(ConvMeanPool(3, 5).double())
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(conv(x), plain_conv_pool(conv, x), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("make", [ConvMeanPool, UpsampleConv])
def test_a_folded_convolution_has_the_state_dict_of_a_3x3_convolution(make: Callable[..., nn.Conv2d]) -> None:
    plain = nn.Conv2d(3, 5, 3, padding=1)
    make(3, 5).load_state_dict(plain.state_dict())
    plain.load_state_dict(make(3, 5).state_dict())


def test_a_block_without_resampling_has_the_identity_as_shortcut() -> None:
    block = CriticBlock(4, 4, downsample=False)
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), x)


def test_a_block_leaves_its_input_as_it_was() -> None:
    for block in (GeneratorBlock(3, 4), CriticStemBlock(3, 4), CriticBlock(3, 4, downsample=True)):
        x = torch.randn(2, 3, 4, 4)
        before = x.clone()
        block(x)
        assert torch.equal(x, before)


def test_an_identity_shortcut_between_different_widths_is_refused() -> None:
    with pytest.raises(ValueError, match=r"CriticBlock\(4, 8, downsample=False\).*equal"):
        CriticBlock(4, 8, downsample=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_layer_norm_on_cuda_gives_its_inputs_dtype_and_float32_under_autocast(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeTensorMode():  # dtypes of CUDA tensors without a GPU
        norm = LayerNorm(4)
        norm.weight, norm.bias = (nn.Parameter(torch.empty(4, dtype=dtype, device="cuda")) for _ in range(2))
        x = torch.empty(2, 4, 3, 3, dtype=dtype, device="cuda")
        assert norm(x).dtype == dtype
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: True)
        assert norm(x).dtype == torch.float32
