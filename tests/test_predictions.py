import math

import pytest
import torch

from cs_gan.predictions import NO_CLASS, predicted_classes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_logits_predict_the_class_of_the_largest(dtype):
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = [max(range(7), key=row.__getitem__) for row in logits.tolist()]
    assert predicted_classes(logits).tolist() == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([math.nan] * 3, NO_CLASS),
        ([0.0, 5.0, math.nan], NO_CLASS),
        ([math.inf, 0.0, 0.0], NO_CLASS),  # its softmax is inf / inf
        ([-math.inf] * 3, NO_CLASS),
        ([-math.inf, 2.0, -math.inf], 1),  # masked classes have probability 0
    ],
)
def test_a_sample_without_a_softmax_has_no_class(row, expected):
    logits = torch.tensor([row, [0.0, 0.0, 1.0]])
    assert predicted_classes(logits).tolist() == [expected, 2]
    assert bool(logits[0].softmax(0).isnan().any()) == (expected == NO_CLASS)


def test_an_empty_batch():
    assert predicted_classes(torch.zeros(0, 3)).shape == (0,)
