"""The shortcuts of the residual classifiers, seen where the residual branch is zero."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import build_classifier
from models.residual_classifiers import PreActBlock, ResidualBlock


def test_option_a_shortcut_takes_every_other_pixel_and_adds_zero_channels() -> None:
    block = ResidualBlock(3, 5, stride=2)
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(4, 3, 7, 7)
    out = block(x)
    assert torch.equal(out[:, :3], x[:, :, [0, 2, 4, 6]][..., [0, 2, 4, 6]].relu())
    assert out.shape == (4, 5, 4, 4)
    assert not out[:, 3:].any()


@pytest.mark.parametrize("first", [False, True])
def test_a_preactivated_identity_shortcut_is_activated_only_in_the_first_block(first: bool) -> None:
    x = torch.randn(4, 3, 8, 8)
    block = PreActBlock(3, 3, 1, first=first)
    nn.init.zeros_(block.conv2.weight)
    activated = F.relu(F.batch_norm(x, None, None, training=True))
    torch.testing.assert_close(block(x), activated if first else x)


def test_a_preactivated_projection_shortcut_takes_every_other_activated_pixel() -> None:
    x = torch.randn(4, 3, 8, 8)
    block = PreActBlock(3, 6, 2)
    nn.init.zeros_(block.conv2.weight)
    sampled = F.relu(F.batch_norm(x, None, None, training=True))[:, :, ::2, ::2]
    expected = torch.einsum("oi,kihw->kohw", block.shortcut.weight[:, :, 0, 0], sampled)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "activated"), [("preact_resnet18", [0, 2, 4, 6]), ("wrn28_10", [0, 4, 8])])
def test_only_the_first_block_of_a_stage_activates_its_shortcut(name: str, activated: list[int]) -> None:
    blocks = build_classifier(name, 10, width=1).blocks
    assert [index for index, block in enumerate(blocks) if block.activates_shortcut] == activated
