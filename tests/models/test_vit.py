"""The vision transformer against torchvision's, whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from models import build_classifier

NAMES = {  # torchvision's: ours
    "conv_proj": "stem.patches",
    "class_token": "stem.class_token",
    "encoder.pos_embedding": "stem.positions",
    "encoder.layers.encoder_layer_": "blocks.",
    "encoder.ln": "head.norm",
    "heads": "head.linear",
}


def renamed(key: str) -> str:
    start = next(start for start in NAMES if key.startswith(start))
    return NAMES[start] + key.removeprefix(start)


def test_initial_weights_are_torchvisions() -> None:
    net = build_classifier("vit32", 10)
    torch.manual_seed(0)
    whole = VisionTransformer(32, 4, 6, 4, 192, 384, num_classes=10)
    state = net.state_dict()
    assert {renamed(key) for key in whole.state_dict()} == state.keys()
    for key, value in whole.state_dict().items():
        assert torch.equal(state[renamed(key)], value), key


def test_grey_patches_are_embedded_with_the_same_variance() -> None:
    patches = build_classifier("vit32", 10, channels=1).stem.patches
    assert not patches.bias.any()
    # 1 / sqrt(fan_in) for 3072 normal values: off by sqrt(1 / 6144) relative, of which we allow five
    assert patches.weight.std().item() == pytest.approx(1 / 4, rel=5 / 6144**0.5)


@pytest.mark.parametrize("channels", [1, 3])
def test_computes_what_torchvisions_does(channels: int) -> None:
    net = build_classifier("vit32", 5, width=8, image_size=16, channels=channels).eval()
    nn.init.normal_(net.head.linear.head.weight)  # which starts at zero
    whole = VisionTransformer(16, 4, 6, 4, 8, 16, num_classes=5)
    whole.conv_proj = nn.Conv2d(channels, 8, 4, stride=4)
    state = net.state_dict()
    whole.load_state_dict({key: state[renamed(key)] for key in whole.state_dict()})
    x = torch.rand(3, *net.input_shape)
    torch.testing.assert_close(net(x), whole.eval()(x), atol=1e-5, rtol=1e-5)
