import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing
from cs_gan.errors import BatchError, BlockError, ConfigError
from cs_gan.randomness import stream
from cs_gan.supervised import CutMix, ManifoldMixUp, MixUp, classifier_step, draw_step
from tests.gan.networks import assert_same
from tests.supervised.networks import CLASSES, batch, mlp, sgd, step


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 4], r"label 4 is not a class: with num_classes=4 classes are 0 to 3"),
        ([0, -1, 2, 3], r"label -1 is not a class"),
        ([0, 1, 2], r"images \(4, 3, 4, 4\) and labels \(3,\)"),
        ([[0], [1], [2], [3]], r"labels \(4, 1\).*argmax"),
        ([0.0, 1.0, 2.0, 3.0], r"float32.*labels\.long\(\)"),
    ],
)
def test_labels_that_can_not_be_used_are_refused(labels, message):
    with pytest.raises(BatchError, match=message):
        step(mlp(), batch(4)[0], torch.tensor(labels))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.float64])
@pytest.mark.parametrize("drawn", [False, True])
def test_labels_of_another_type_are_refused_by_name(dtype, drawn):
    """Also with a draw, where labels aren't read."""
    model, (images, labels) = mlp(), batch(4)
    generator = draw_step(stream(0), model, images.shape, CLASSES) if drawn else stream(0)
    with pytest.raises(BatchError, match=rf"classifier_step got labels of {dtype}: .*labels\.long\(\)"):
        classifier_step(model, sgd(model), images, labels.to(dtype), generator=generator, num_classes=CLASSES)


def test_an_empty_batch_is_refused():
    with pytest.raises(BatchError, match="at least one image"):
        step(mlp(), torch.zeros(0, 3, 2, 2), torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), r"\(8, 5\)"),
        (nn.Identity(), r"\(8, 3, 4, 4\)"),
        (nn.LSTM(4, 4), "a tuple"),
    ],
)
def test_a_model_without_such_logits_is_refused(model, given):
    images, labels = batch(8, torch.float32)
    images = images[:, 0] if isinstance(model, nn.LSTM) else images
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    with pytest.raises(ConfigError, match=rf"gave {given} for 8 images.*logits of shape \(8, 4\)"):
        classifier_step(model, optimizer, images, labels, generator=stream(0), num_classes=CLASSES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": 1.0}, r"mu=1\.0.*\[0, 1\)"),
        ({"mu": -0.1}, r"mu=-0\.1"),
        ({"mu": 0.5}, "without coded"),
        ({"mix": [MixUp(1.0), CutMix(1.0)]}, "two mixes would mix the labels twice"),
        ({"mix": "mixup"}, r"mix='mixup'.*MixUp\(alpha\)"),
        ({"logit_norm": -1.0}, r"logit_norm=-1\.0"),
        ({"jacobian": float("nan")}, "jacobian=nan"),
        ({"label_smoothing": 1.0}, r"label_smoothing=1\.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        step(mlp(), *batch(8), **options)


def test_fewer_than_two_classes_are_refused():
    model = mlp()
    with pytest.raises(ConfigError, match="num_classes=1"):
        classifier_step(model, sgd(model), *batch(8), generator=stream(0), num_classes=1)


def test_blocks_that_can_not_be_mixed_leave_the_model_as_it_was():
    model = mlp()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(BlockError, match="no block 'body'"):
        step(model, *batch(8), mix=ManifoldMixUp(1.0, ["body"]))
    coded = CodedSmoothing(model, [""])
    with pytest.raises(BlockError, match="inside the coded block"):
        step(model, *batch(8), mix=ManifoldMixUp(1.0, ["1"]), coded=coded, mu=0.3)
    assert_same(model.parameters(), before)
    step(model, *batch(8), mix=MixUp(1.0), coded=coded, mu=0.3)
