"""The named classifiers: counts, shapes, blocks that can be coded, initialisation, what they compute, errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cs_gan import CodedSmoothing
from models import CLASSIFIER_NAMES, Classifier, build_classifier

PARAMETERS = {  # 10 classes of 32x32 colour images, default width
    # kernels 9 * (3 * 32 + 32 * 64 + 64 * 192), norms 2 * (32 + 64 + 192), last layer 193 * 10
    "cnn_small": 132_394,
    "cnn_plain": 28 * 16 + (9 * 16 + 1) * 32 + (32 * 64 + 1) * 10,
    "mlp": 3073 * 64 + 2 * 65 * 64 + 65 * 10,
    "resnet20": 269_722,
    "preact_resnet18": 11_172_170,
    "wrn28_10": 36_479_194,
    # patches, class token and positions; six layers of attention, MLP and two norms; norm and last layer
    "vit32": 49 * 192 + 66 * 192 + 6 * (4 * 193 * 192 + 193 * 384 + 385 * 192 + 2 * 2 * 192) + 2 * 192 + 193 * 10,
}
WIDTHS = {"cnn_small": 2, "cnn_plain": 2, "mlp": 8, "resnet20": 2, "preact_resnet18": 2, "wrn28_10": 1, "vit32": 8}
BLOCK_SHAPES = {  # at those widths, of images of 16 pixels
    "cnn_small": [(2, 8, 8), (4, 4, 4), (12, 2, 2)],
    "cnn_plain": [(2, 8, 8), (4, 4, 4)],
    "mlp": [(8,)] * 3,
    "resnet20": [(2, 16, 16)] * 3 + [(4, 8, 8)] * 3 + [(8, 4, 4)] * 3,
    "preact_resnet18": [(2, 16, 16)] * 2 + [(4, 8, 8)] * 2 + [(8, 4, 4)] * 2 + [(16, 2, 2)] * 2,
    "wrn28_10": [(10, 16, 16)] * 4 + [(20, 8, 8)] * 4 + [(40, 4, 4)] * 4,
    "vit32": [(17, 8)] * 6,
}
every_classifier = pytest.mark.parametrize("name", CLASSIFIER_NAMES)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def tiny(name: str, num_classes: int = 5, **overrides: int) -> Classifier:
    torch.manual_seed(0)
    net = build_classifier(name, num_classes, **({"width": WIDTHS[name], "image_size": 16} | overrides))
    if name == "vit32":  # its last layer starts at zero, and logits of zero would show nothing
        nn.init.normal_(net.head.linear.head.weight)
    return net


def batch(net: Classifier, size: int = 8) -> torch.Tensor:
    return torch.rand(size, *net.input_shape) * 2 - 1


@every_classifier
def test_parameter_counts_are_the_stated_ones(name: str) -> None:
    with torch.device("meta"):  # shapes without storage: wrn28_10 is 146 MB
        net = build_classifier(name, 10)
    assert count(net) == PARAMETERS[name]
    assert net.input_shape == (3, 32, 32)
    assert net.num_classes == 10


def test_counts_stated_in_docstrings_are_the_tested_ones() -> None:
    import models.classifiers as module

    for name in CLASSIFIER_NAMES:
        if name != "mlp":
            assert f"{PARAMETERS[name]:,}" in getattr(module, name).__doc__


@every_classifier
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (2, 28), (1, 64)])
def test_logits_have_one_column_per_class_in_grey_colour_and_other_sizes(name: str, channels: int, size: int) -> None:
    net = tiny(name, channels=channels, image_size=size)
    assert net.input_shape == (channels, size, size)
    assert net(batch(net, 2)).shape == (2, 5)


@pytest.mark.parametrize("depth", [1, 4])
def test_mlp_takes_rows_of_features(depth: int) -> None:
    net = build_classifier("mlp", 2, features=2, depth=depth)
    assert net.input_shape == (2,)
    assert len(net.blocks) == depth
    assert count(net) == 3 * 64 + (depth - 1) * 65 * 64 + 65 * 2
    assert net(torch.randn(7, 2)).shape == (7, 2)


@every_classifier
def test_blocks_have_the_documented_shapes_and_compose_to_the_net(name: str) -> None:
    net = tiny(name).eval()
    x = batch(net, 3)
    h = net.stem(x)
    assert len(net.blocks) == len(BLOCK_SHAPES[name])
    for index, shape in enumerate(BLOCK_SHAPES[name]):
        h = net.get_submodule(f"blocks.{index}")(h)
        assert h.shape == (3, *shape)
    assert torch.equal(net.head(h), net(x))


@every_classifier
@pytest.mark.parametrize("block", ["blocks.1", "blocks.*", ""])
def test_blocks_and_the_whole_net_can_be_coded(name: str, block: str) -> None:
    net = tiny(name)
    x = batch(net)
    expected = net(x)
    coded = CodedSmoothing(net, [block])
    with coded.observe():
        logits = net(x)
    assert torch.equal(logits, expected)
    assert coded.penalty() > 0
    (F.cross_entropy(logits, torch.arange(8) % 5) + coded.penalty()).backward()
    assert coded.penalty().isfinite()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@every_classifier
def test_in_evaluation_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    net = tiny(name, **({"dropout": 0.5} if name in ("wrn28_10", "vit32") else {}))
    x = batch(net)
    net(x)  # running statistics that are not the initial ones
    net.eval()
    whole = net(x)
    for index in range(8):
        # Another batch size may take other kernels: float32 rounding through some 30 layers, far below 1e-4.
        torch.testing.assert_close(net(x[index : index + 1])[0], whole[index], atol=1e-4, rtol=1e-4)


@every_classifier
def test_channels_last_computes_the_same(name: str) -> None:
    net = tiny(name).eval()
    x = batch(net)
    expected = net(x)
    net.to(memory_format=torch.channels_last)
    actual = net(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)  # rounding, as above


@pytest.mark.parametrize("name", [name for name in CLASSIFIER_NAMES if name != "vit32"])  # test_vit.py has its own
def test_initial_weights_have_the_stated_deviation_and_biases_are_zero(name: str) -> None:
    net = build_classifier(name, 10, width={"wrn28_10": 4, "preact_resnet18": 16}.get(name, 32))
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
        if layer is layers[-1]:
            expected = math.sqrt(1 / 3 / fan_in)  # uniform up to 1 / sqrt(fan_in)
        else:
            expected = math.sqrt(2 / (fan_in if name == "mlp" else fan_out))
        # The sample deviation of n values is off by sqrt(1 / 2n) relative: allow five of those.
        tolerance = 5 / math.sqrt(2 * layer.weight.numel())
        assert layer.weight.std(correction=0).item() / expected == pytest.approx(1, abs=tolerance), layer
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("name", ["wrn28_10", "vit32"])
def test_dropout_acts_in_training_only(name: str) -> None:
    net = tiny(name, dropout=0.5)
    assert {module.p for module in net.blocks.modules() if isinstance(module, nn.Dropout)} == {0.5}
    x = batch(net)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
    plain = tiny(name)
    x = batch(plain)
    assert torch.equal(plain(x), plain(x))


def test_inputs_of_another_shape_are_refused() -> None:
    net = tiny("resnet20")
    for shape in ((2, 3, 32, 32), (2, 1, 16, 16), (3, 16, 16), (2, 16, 16, 3)):
        with pytest.raises(ValueError, match=r"resnet20 expects images of shape \(K, 3, 16, 16\), got .*`image_size`"):
            net(torch.zeros(shape))
    net = build_classifier("mlp", 2, features=4)
    with pytest.raises(ValueError, match=r"mlp expects rows of shape \(K, 4\), got \(2, 3\).*`features`"):
        net(torch.zeros(2, 3))


def test_unknown_names_and_overrides_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'resnet2'.*did you mean 'resnet20'.*Valid: cnn_small, cnn_plain, mlp"):
        build_classifier("resnet2", 10)
    with pytest.raises(ValueError, match=r"wdith.*did you mean 'width'.*Valid: channels, image_size, width$"):
        build_classifier("cnn_small", 10, wdith=8)
    with pytest.raises(ValueError, match=r"build_classifier\('resnet20', 10, dropout=...\): unknown override"):
        build_classifier("resnet20", 10, dropout=0.1)


@every_classifier
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True, None])
def test_values_that_are_not_positive_integers_are_refused(name: str, value: object) -> None:
    for key in ("width", "channels", "image_size"):
        with pytest.raises(ValueError, match=f"{key} must be a positive integer"):
            build_classifier(name, 10, **{key: value})
    with pytest.raises(ValueError, match="num_classes must be an integer of at least 2"):
        build_classifier(name, value)


@pytest.mark.parametrize("value", [-0.1, 1, 2.0, math.nan, True, "0.1"])
def test_a_dropout_that_is_no_probability_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="dropout must be a probability"):
        build_classifier("vit32", 10, dropout=value)


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("cnn_small", {"image_size": 7}, "image_size=7 .* use 8 or more"),
        ("cnn_plain", {"image_size": 3}, "image_size=3 .* use 4 or more"),
        ("resnet20", {"image_size": 3}, "image_size=3 .* use 4 or more"),
        ("preact_resnet18", {"image_size": 7}, "image_size=7 .* use 8 or more"),
        ("wrn28_10", {"image_size": 3}, "image_size=3 .* use 4 or more"),
        ("vit32", {"image_size": 30}, "image_size=30 .* a multiple of 4"),
        ("vit32", {"width": 30}, "width=30 .* a multiple of 4"),
        ("mlp", {"features": 2, "channels": 1}, "one or the other"),
        ("mlp", {"features": 0}, "features must be a positive integer"),
    ],
)
def test_what_a_net_cannot_take_is_refused(name: str, overrides: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_classifier(name, 10, **overrides)


def test_all_but_vit_need_torch_alone(after_torch: Callable[[str], str]) -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from models import CLASSIFIER_NAMES, build_classifier\n"
        "[build_classifier(name, 2, width=1) for name in CLASSIFIER_NAMES if name != 'vit32']; print('built')"
    )
    assert after_torch(code).strip() == "built"
