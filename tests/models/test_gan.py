"""The named pairs: counts, shapes, initialisation, double backward, errors."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from models import GAN_NAMES, build_gan

PARAMETERS = {  # (default overrides): (generator, critic)
    "paper32": (1_204_483, 1_053_825),
    "paper64": (8_540_483, 7_491_841),
    "mimicry32": (4_276_739, 1_053_825),
    # DCGAN by hand at width w, size R: see test_dcgan_parameter_counts_follow_the_formula.
    "dcgan16": (396_675, 136_385),
    "dcgan32": (1_183_619, 662_977),
    "dcgan64": (3_806_083, 2_764_737),
    "resnet": (3_557_123, 1_814_273),  # at 32 pixels
}
BLOCK_SHAPES = {  # at generator_width 4, critic_width 2
    "paper32": ([(4, 8), (4, 16), (4, 32)], [(2, 16), (2, 8), (2, 8), (2, 8)]),
    "mimicry32": ([(4, 8), (4, 16), (4, 32)], [(2, 16), (2, 8), (2, 8), (2, 8)]),
    "paper64": ([(32, 8), (16, 16), (8, 32), (4, 64)], [(4, 32), (8, 16), (16, 8), (16, 4)]),
    "dcgan16": ([(4, 8)], [(2, 8), (4, 4)]),
    "dcgan32": ([(8, 8), (4, 16)], [(2, 16), (4, 8), (8, 4)]),
    "dcgan64": ([(16, 8), (8, 16), (4, 32)], [(2, 32), (4, 16), (8, 8), (16, 4)]),
    "resnet": ([(16, 8), (8, 16), (4, 32)], [(2, 16), (4, 8), (8, 4), (8, 4)]),
}
every_gan = pytest.mark.parametrize("name", GAN_NAMES)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def tiny(name: str, **overrides: int):
    return build_gan(name, **{"width": 2, "latent_dim": 5, **overrides})


@every_gan
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    generator, critic = build_gan(name)
    assert (count(generator), count(critic)) == PARAMETERS[name]


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("width", [3, 32])
def test_dcgan_parameter_counts_follow_the_formula(size: int, width: int) -> None:
    generator, critic = build_gan(f"dcgan{size}", width=width, channels=1, latent_dim=7)
    widths = [width * 2**level for level in range(int(math.log2(size)) - 2)]
    kernels = sum(16 * small * large for small, large in pairwise(widths))
    norms = 2 * sum(widths)
    assert count(generator) == 7 * 16 * widths[-1] + kernels + norms + 16 * width + 1
    assert count(critic) == 16 * width + kernels + sum(widths) + 16 * widths[-1] + 1


@every_gan
@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_scores_have_the_stated_shapes_and_range(name: str, channels: int) -> None:
    generator, critic = tiny(name, channels=channels)
    side = 32 if name == "resnet" else int(name[-2:])
    assert generator.latent_dim == 5
    assert generator.image_shape == critic.image_shape == (channels, side, side)
    images = generator(torch.randn(3, 5) * 10)
    assert images.shape == (3, channels, side, side)
    assert images.abs().max() <= 1
    assert critic(images).shape == (3,)
    assert critic(images[:1]).shape == (1,)


@every_gan
def test_blocks_have_the_documented_shapes_and_compose_to_the_net(name: str) -> None:
    generator, critic = build_gan(name, generator_width=4, critic_width=2, latent_dim=5)
    generator.eval()
    for net, x, expected in (
        (generator, torch.randn(2, 5), BLOCK_SHAPES[name][0]),
        (critic, torch.randn(2, *critic.image_shape), BLOCK_SHAPES[name][1]),
    ):
        h = net.stem(x)
        for index, (width, side) in enumerate(expected):
            h = net.get_submodule(f"blocks.{index}")(h)
            assert h.shape == (2, width, side, side)
        assert len(net.blocks) == len(expected)
        assert torch.equal(net.head(h).reshape(net(x).shape), net(x))


@every_gan
def test_every_block_is_nonlinear(name: str) -> None:
    for net, x in zip(tiny(name), (torch.randn(2, 5), torch.randn(2, *tiny(name)[1].image_shape)), strict=True):
        net.eval()
        h = net.stem(x)
        for block in net.blocks:
            zero = block(torch.zeros_like(h))
            assert not torch.allclose(block(h) + block(-h), 2 * zero, atol=1e-5)
            h = block(h)


def expected_std(net_name: str, key: str, layer: nn.Module) -> float:
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
    xavier = math.sqrt(2 / (fan_in + fan_out))
    if net_name.startswith("dcgan"):
        if isinstance(layer, nn.Conv2d):
            return math.sqrt(2 / (1 + 0.2**2) / fan_in)
        return xavier if layer.weight.shape[0] == 1 else 0.02
    residual = key.startswith("blocks") and "shortcut" not in key
    last_of_paper64 = net_name in ("paper64", "resnet") and key.startswith("head") and isinstance(layer, nn.Conv2d)
    return xavier * (math.sqrt(2) if residual or last_of_paper64 else 1)


@every_gan
def test_initial_weights_have_the_stated_deviation_and_biases_are_zero(name: str) -> None:
    for net in build_gan(name, width=32):
        for key, layer in net.named_modules():
            if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                continue
            assert layer.bias is None or not layer.bias.any()
            # The sample deviation of n values is off by sqrt(1 / 2n) relative for normal values, less for
            # uniform ones: allow five of those.
            tolerance = 5 / math.sqrt(2 * layer.weight.numel())
            ratio = layer.weight.std(correction=0).item() / expected_std(name, key, layer)
            assert ratio == pytest.approx(1, abs=tolerance), key


@pytest.mark.parametrize("name", ["paper32", "paper64", "mimicry32"])
def test_residual_nets_draw_uniform_weights(name: str) -> None:
    for net in build_gan(name, width=16):
        for key, layer in net.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert layer.weight.abs().max() <= math.sqrt(3) * expected_std(name, key, layer) * 1.0001, key


@every_gan
def test_double_backward_through_the_critic_matches_finite_differences(name: str) -> None:
    critic = tiny(name, channels=1)[1].double()
    x = torch.randn(2, *critic.image_shape, dtype=torch.float64, requires_grad=True)
    # Squared: without it, second derivatives of a piecewise linear critic are zero.
    assert torch.autograd.gradgradcheck(lambda x: critic(x).square(), x, fast_mode=True)


@every_gan
def test_channels_last_computes_the_same(name: str) -> None:
    for net in tiny(name):
        net.eval()
        shape = (3, 5) if hasattr(net, "latent_dim") else (3, *net.image_shape)
        x = torch.randn(shape)
        expected = net(x)
        net.to(memory_format=torch.channels_last)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-4)


@every_gan
def test_only_the_generator_depends_on_its_batch_and_only_in_training(name: str) -> None:
    generator, critic = tiny(name)
    z, x = torch.randn(4, 5), torch.randn(4, *critic.image_shape)
    torch.testing.assert_close(critic(x)[:1], critic(x[:1]))
    assert not torch.allclose(generator(z)[:1], generator(z[:1]), atol=1e-4)
    generator.eval()
    torch.testing.assert_close(generator(z)[:1], generator(z[:1]))


def test_widths_can_be_set_for_each_net() -> None:
    assert count(build_gan("mimicry32", width=128)[0]) == count(build_gan("mimicry32", generator_width=128)[0])
    generator, critic = build_gan("paper32", width=8, critic_width=4)
    assert count(generator) == count(build_gan("paper32", width=8)[0])
    assert count(critic) == count(build_gan("paper32", width=4)[1])


def test_images_of_another_size_or_channel_count_are_refused() -> None:
    critic = tiny("paper32")[1]
    for shape in ((2, 3, 64, 64), (2, 1, 32, 32), (3, 32, 32)):
        with pytest.raises(ValueError, match=r"ResNetCritic32 expects images of shape \(B, 3, 32, 32\), got"):
            critic(torch.zeros(shape))


def test_latent_codes_of_another_shape_are_refused() -> None:
    generator = tiny("dcgan16")[0]
    for shape in ((2, 6), (5,), (2, 5, 1, 1)):
        with pytest.raises(ValueError, match=r"DCGANGenerator expects latent codes of shape \(B, 5\), got"):
            generator(torch.zeros(shape))


def test_unknown_names_and_overrides_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'papr32'.*did you mean 'paper32'.*Valid: paper32, paper64"):
        build_gan("papr32")
    with pytest.raises(ValueError, match=r"wdith = 8 .*did you mean 'width'.*Valid: channels, latent_dim"):
        build_gan("paper32", wdith=8)
    with pytest.raises(ValueError, match="is unknown; Valid: paper32"):
        build_gan("zzz")


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True, None])
def test_overrides_that_are_not_positive_integers_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"width = .+ must be a positive integer"):
        build_gan("paper32", width=value)
