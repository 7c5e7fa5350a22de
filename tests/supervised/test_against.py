"""Decoded logits against labels, and the experiment of a side without gradient, by hand."""

import copy

import pytest
import torch
from torch.nn import functional as F

from cs_gan import CodedSmoothing, SplineCode
from cs_gan.core.discrepancy import STOP_GRADIENT
from cs_gan.errors import ConfigError
from cs_gan.supervised import MixUp
from cs_gan.training import parse_config
from tasks.classifier.recipe import ClassifierConfig
from tests.gan.networks import assert_same
from tests.supervised.networks import batch, mlp, step

RATIO = 1.5
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def decoded(model, images):
    code = SplineCode(len(images), round(RATIO * len(images)))
    return code.decoder @ model((code.encoder @ images.flatten(1)).view(-1, *images.shape[1:]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_penalty_is_the_cross_entropy_of_decoded_logits(smoothing):
    model, (images, labels) = mlp(), batch()
    trained = copy.deepcopy(model)
    task = F.cross_entropy(model(images), labels, label_smoothing=smoothing)
    penalty = F.cross_entropy(decoded(model, images), labels, label_smoothing=smoothing)
    (0.7 * task + 0.3 * penalty).backward()
    coded = CodedSmoothing(trained, [""], RATIO)
    losses = step(trained, images, labels, coded=coded, mu=0.3, against="labels", label_smoothing=smoothing)
    torch.testing.assert_close(losses["coded"], penalty.detach(), **EXACT)
    assert_same([p.grad for p in trained.parameters()], [p.grad for p in model.parameters()], **EXACT)


def test_mixed_images_are_compared_with_their_mixed_targets():
    model, (images, labels) = mlp(), batch()
    seen = []
    model.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    losses = step(
        model, images, labels, mix=MixUp(1.0), coded=CodedSmoothing(model, [""], RATIO), mu=0.0, against="labels"
    )
    assert not torch.equal(seen[0], images)
    plain = F.cross_entropy(decoded(model, images), labels)
    assert losses["coded"].isfinite()
    assert losses["coded"] != plain


def test_other_blocks_than_the_whole_model_are_refused():
    model, (images, labels) = mlp(), batch()
    with pytest.raises(ConfigError, match=r"against='labels' with coded blocks \['0'\]"):
        step(model, images, labels, coded=CodedSmoothing(model, ["0"], RATIO), mu=0.3, against="labels")
    with pytest.raises(ConfigError, match="against='targets' is unknown"):
        step(model, images, labels, against="targets")


@pytest.mark.parametrize("more", ["--method.coded.blocks=blocks.1", "--method.coded.stop_gradient=outputs"])
def test_a_recipe_that_cannot_be_is_refused(more):
    given = ["--method.coded.against=labels", '--method.coded.blocks=[""]']
    assert parse_config(ClassifierConfig, given).method.coded.against == "labels"
    with pytest.raises(ConfigError, match="against=labels"):
        parse_config(ClassifierConfig, [*given, more])


@pytest.mark.parametrize("held", STOP_GRADIENT)
def test_the_held_side_has_no_gradient_and_the_value_stays(held):
    left, right = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    value = STOP_GRADIENT[held](left, right)
    torch.testing.assert_close(value, (left - right).square().mean(), **EXACT)
    value.backward()
    slope = 2 * (left - right).detach() / left.numel()
    for side, tensor, sign in (("decoded", left, 1), ("outputs", right, -1)):
        if side == held:
            assert tensor.grad is None
        else:
            torch.testing.assert_close(tensor.grad, sign * slope, **EXACT)


def test_the_experiment_says_that_it_is_one():
    given = ["--method.coded.blocks=conv1", "--method.coded.stop_gradient=outputs"]
    assert parse_config(ClassifierConfig, given).method.coded.warning.startswith("experiment: no gradient")
    assert parse_config(ClassifierConfig, given[:1]).method.coded.warning == ""
