import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cs_gan import RandomizedCodedInference
from cs_gan.errors import MetricError
from cs_gan.supervised import accuracy
from tests.core.helpers import Function


def data(count=20, classes=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 6, generator=generator), torch.randint(classes, (count,), generator=generator)


def network(classes=4):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(6, classes)


def groups(images, labels, size=8):
    return [(number, *pair) for number, pair in enumerate(zip(images.split(size), labels.split(size), strict=True))]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_it_is_the_share_of_the_largest_logit_with_labels_of_any_integer_dtype(dtype):
    (images, labels), model = data(), network()
    rows = model(images).tolist()
    right = sum(row.index(max(row)) == label for row, label in zip(rows, labels.tolist(), strict=True))
    loss = sum(
        math.log(sum(map(math.exp, row))) - row[label] for row, label in zip(rows, labels.tolist(), strict=True)
    ) / len(rows)
    found = accuracy(model, groups(images, labels.to(dtype)))
    assert found[0] == 100 * right / len(rows)
    assert 0 < found[0] < 100
    assert found[1] == pytest.approx(loss, rel=1e-6)  # float32 logits


def test_a_diverged_network_is_right_on_nothing():
    images, _ = data()
    labels = torch.zeros(20, dtype=torch.int64)  # argmax of NaN is class 0
    for value in (math.nan, math.inf):
        right, loss, _ = accuracy(
            Function(lambda x, value=value: torch.full((len(x), 4), value)), groups(images, labels)
        )
        assert right == 0
        assert math.isnan(loss)


def test_images_with_nan_are_wrong_and_the_others_count():
    (images, labels), model = data(), network()
    kept = model(images).argmax(1) == labels
    images[kept.nonzero()[0, 0]] = math.nan
    right, loss, _ = accuracy(model, groups(images, labels))
    assert right == 100 * (int(kept.sum()) - 1) / 20
    assert math.isnan(loss)


def test_under_rci_a_nan_reaches_its_whole_group():
    images, _ = data()
    images[0] = math.nan
    served = RandomizedCodedInference(network())
    right, *_ = accuracy(served, groups(images[:8], torch.zeros(8, dtype=torch.int64)))
    assert right == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_scored_in_float32_or_better(dtype):
    images, labels = data()
    images, model = images.to(dtype), network().to(dtype)
    logits = model(images).double()
    loss = F.cross_entropy(logits, labels).item()
    # float64 all the way; for bfloat16 the logits are as rounded, and the loss is in float32 with 6e-8 relative.
    assert accuracy(model, groups(images, labels))[1] == pytest.approx(
        loss, rel=1e-13 if dtype is torch.float64 else 1e-6
    )


def test_autocast_around_it_changes_nothing():
    (images, labels), model = data(), network()
    plain = accuracy(model, groups(images, labels))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert accuracy(model, groups(images, labels)) == plain


@pytest.mark.parametrize(
    ("label", "message"), [(-100, "label -100"), (-1, "label -1"), (4, "classes 0 to 3"), (255, "label 255")]
)
def test_labels_that_are_no_class_are_refused(label, message):
    images, labels = data()
    labels[3] = label  # -100 is what torch's cross-entropy leaves out in silence
    with pytest.raises(MetricError, match=message):
        accuracy(network(), groups(images, labels))


@pytest.mark.parametrize("labels", [torch.zeros(8), torch.zeros(8, dtype=torch.bool), torch.zeros(8, 4).long()])
def test_labels_that_are_no_class_numbers_are_refused(labels):
    with pytest.raises(MetricError, match="labels"):
        accuracy(network(), [(0, torch.randn(8, 6), labels)])


@pytest.mark.parametrize("output", [lambda x: (x, x), lambda x: {"logits": x}, lambda x: x[:, 0], lambda x: x[1:]])
def test_outputs_that_are_no_logits_are_refused(output):
    with pytest.raises(MetricError, match=r"logits \(K, classes\)"):
        accuracy(Function(output), groups(*data()))


def test_every_module_has_its_mode_afterwards():
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 4)).train()
    model[0].eval()
    accuracy(model, groups(*data()))
    assert [module.training for module in model.modules()] == [True, False, True, True]


def test_no_images_at_all_are_refused():
    with pytest.raises(MetricError, match="no images"):
        accuracy(network(), [])


def test_the_calibration_error_is_that_of_a_loop_over_bins():
    logits, labels = 2 * torch.randn(200, 5), torch.randint(5, (200,))
    found = accuracy(Function(lambda x: x), groups(logits, labels))
    confidence, predicted = logits.softmax(1).max(1)
    expected = 0.0
    for low in range(15):
        inside = (confidence * 15 >= low) & ((confidence * 15 < low + 1) | (low == 14))
        if inside.any():
            right = (predicted == labels)[inside].double().mean()
            expected += inside.double().mean() * (right - confidence[inside].double().mean()).abs()
    assert found.calibration_error == pytest.approx(100 * float(expected), rel=1e-6)  # confidences are float32


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not():
    logits = 1000 * torch.eye(4)
    labels = torch.arange(4)
    assert accuracy(Function(lambda x: x), groups(logits, labels)).calibration_error == 0
    assert accuracy(Function(lambda x: x), groups(logits, labels.flip(0))).calibration_error == 100
