"""The class-conditional pair: what it computes, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from models import ClassDrawing, build_gan
from models.conditional import ConditionalBatchNorm, ProjectionHead

CLASSES = ["a", "b", "c"]


def pair():
    return build_gan("resnet", width=2, latent_dim=5, channels=1, image_size=16, class_names=CLASSES)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("classes", [[], CLASSES])
def test_the_pair_is_made_for_each_size_with_blocks_from_4_pixels_up(size, classes):
    generator, critic = build_gan("resnet", width=1, latent_dim=3, image_size=size, class_names=classes)
    labels = (torch.tensor([0, 2]),) if classes else ()
    images = generator(torch.randn(2, 3), *labels)
    assert images.shape == (2, 3, size, size) == (2, *generator.image_shape)
    assert critic(images, *labels).shape == (2,)
    assert len(generator.blocks) == size.bit_length() - 3
    assert len(critic.blocks) == size.bit_length() - 2


def test_conditional_batch_norm_is_batch_norm_with_the_scale_and_shift_of_the_class():
    norm, x, labels = ConditionalBatchNorm(4, 3), torch.randn(6, 4, 5, 5), torch.tensor([0, 1, 2, 2, 1, 0])
    torch.nn.init.normal_(norm.scale.weight)
    torch.nn.init.normal_(norm.shift.weight)
    found = norm(x, labels)
    mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    for i, label in enumerate(labels):
        plain = (x[i] - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        expected = plain * norm.scale.weight[label][:, None, None] + norm.shift.weight[label][:, None, None]
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-5)


def test_projection_adds_the_product_of_features_and_the_classs_vector():
    head, x, labels = ProjectionHead(4, 3), torch.randn(5, 4, 2, 2), torch.tensor([0, 1, 2, 1, 0])
    for i, label in enumerate(labels):
        features = x[i].relu().mean(dim=(1, 2))
        expected = features @ head.linear.weight[0] + head.linear.bias[0] + features @ head.classes.weight[label]
        torch.testing.assert_close(head(x, labels)[i, 0], expected)


def test_at_first_the_generator_makes_the_same_of_a_latent_in_every_class():
    generator, _ = pair()
    z = torch.randn(1, 5).expand(3, 5)
    images = generator.eval()(z, torch.arange(3))
    torch.testing.assert_close(images[1:], images[:1].expand(2, -1, -1, -1))


def test_second_derivatives_of_the_critic_match_finite_differences():
    critic, labels = pair()[1].double(), torch.tensor([2, 0])
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: critic(x, labels).square(), x, fast_mode=True)


@pytest.mark.parametrize("labels", [None, torch.zeros(2), torch.zeros(3, dtype=torch.int64), torch.zeros(2, 1).long()])
def test_labels_that_are_not_one_class_for_each_sample_are_refused(labels):
    generator, critic = pair()
    with pytest.raises(ValueError, match=r"ConditionalGenerator takes latents and their classes, int64 \(2,\)"):
        generator(torch.randn(2, 5), labels)
    with pytest.raises(ValueError, match=r"ConditionalCritic takes images and their classes, int64 \(2,\)"):
        critic(torch.randn(2, 1, 16, 16), labels)


def test_sizes_and_names_that_have_no_such_pair_are_refused():
    with pytest.raises(ValueError, match="image_size = 48: the resnet pair is for images of 16, 32, 64 or 128 pixels"):
        build_gan("resnet", image_size=48)
    with pytest.raises(ValueError, match="image_size = 32 is no setting of dcgan32"):
        build_gan("dcgan32", image_size=32)
    with pytest.raises(ValueError, match="'dcgan16' has no classes; take resnet"):
        build_gan("dcgan16", class_names=CLASSES)


def test_classes_are_drawn_in_their_shares_from_the_global_cpu_generator():
    class Label(torch.nn.Module):
        def forward(self, z, labels):
            return labels

    drawing = ClassDrawing(Label(), torch.tensor([3, 0, 1]), 5)
    found = drawing(torch.zeros(4000, 5))
    counts = found.bincount(minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] - 3000) < 140  # five standard deviations, sqrt(4000 * 3/4 * 1/4) = 27.4 each
    torch.manual_seed(1)
    first = drawing(torch.zeros(9, 5))
    torch.manual_seed(1)
    assert torch.equal(drawing(torch.zeros(9, 5)), first)
