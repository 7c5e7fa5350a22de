import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from cs_gan.errors import BatchError, BlockError, ConfigError
from cs_gan.randomness import stream
from cs_gan.supervised import CutMix, ManifoldMixUp, MixUp
from tests.core.helpers import Function
from tests.supervised.networks import CLASSES, batch, mlp

MIXES = [MixUp(0.7), CutMix(0.7), ManifoldMixUp(0.7, ["input", "1", "3"])]
# torchvision makes targets in float32, so a share read off them has its rounding.
FLOAT32 = {"rtol": 1e-6, "atol": 1e-7}


def name_of(mix):
    return type(mix).__name__


def mixed(mix, images, labels, seed=0, model=None):
    """(logits' inputs, targets, what the model computes inside the context)."""
    model = model or mlp()
    draw = mix.draw(model, images.shape, stream(seed))
    with mix.mixing(model, images, labels, CLASSES, draw) as (inputs, targets):
        return inputs, targets, model(inputs)


def share_of(targets, labels):
    return targets[0, labels[0]].double()


@pytest.mark.parametrize("shape", [(8, 3, 2, 2), (8, 5), (8, 3, 7)])
def test_mixup_is_one_convex_combination_with_the_sample_before(shape):
    images, labels = torch.randn(shape, dtype=torch.float64), batch(8)[1]
    shares = []
    for seed in range(20):
        inputs, targets, _ = mixed(MixUp(1.0), images, labels, seed, model=nn.Identity())
        share = share_of(targets, labels)
        torch.testing.assert_close(inputs, share * images + (1 - share) * images.roll(1, 0), **FLOAT32)
        hot = F.one_hot(labels, CLASSES).double()
        torch.testing.assert_close(targets.double(), share * hot + (1 - share) * hot.roll(1, 0), **FLOAT32)
        shares.append(float(share))
    assert min(shares) < 0.3
    assert max(shares) > 0.7


@pytest.mark.parametrize("kind", ["MixUp", "CutMix"])
def test_draws_and_results_are_torchvisions(kind):
    ours, theirs = {"MixUp": MixUp, "CutMix": CutMix}[kind], getattr(v2, kind)
    images, labels = torch.randn(8, 3, 9, 6), batch(8)[1]
    for seed in range(20):
        inputs, targets, _ = mixed(ours(0.7), images, labels, seed, model=nn.Identity())
        torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=stream(seed))))
        expected = theirs(alpha=0.7, num_classes=CLASSES)(images, labels)
        torch.testing.assert_close(inputs, expected[0], **FLOAT32)
        torch.testing.assert_close(targets, expected[1], **FLOAT32)


@pytest.mark.parametrize("name", ["input", ""])
def test_manifold_mixup_of_the_input_is_mixup(name):
    images, labels = batch(8)
    ours, theirs = mixed(ManifoldMixUp(0.7, [name]), images, labels), mixed(MixUp(0.7), images, labels)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


def test_manifold_mixup_mixes_keywords_and_nested_tensors_of_the_batch_alone():
    model = Function(lambda x: model.block([x, 2 * x], scale=x, mask=x > 0, table=torch.arange(3.0)))
    model.block = Function(lambda pair, *, scale, mask, table: (pair, scale, mask, table))
    x, labels = torch.randn(8, 5, dtype=torch.float64), batch(8)[1]
    _, targets, (pair, scale, mask, table) = mixed(ManifoldMixUp(0.7, ["block"]), x, labels, model=model)
    share = share_of(targets, labels)
    expected = share * x + (1 - share) * x.roll(1, 0)
    torch.testing.assert_close(pair[0], expected, **FLOAT32)
    torch.testing.assert_close(pair[1], 2 * expected, **FLOAT32)
    torch.testing.assert_close(scale, expected, **FLOAT32)
    assert torch.equal(mask, x > 0)
    assert torch.equal(table, torch.arange(3.0))


def test_manifold_mixup_chooses_every_block_of_a_pattern():
    model, (images, labels) = mlp(), batch(8)
    chosen = set()
    for seed in range(20):
        _, targets, logits = mixed(ManifoldMixUp(0.7, ["input", "[13]"]), images, labels, seed, model)
        share = share_of(targets, labels)
        for split in (0, 1, 3):  # the logits had the block after `split` layers got the mixed batch
            hidden = model[:split](images)
            by_hand = model[split:](share * hidden + (1 - share) * hidden.roll(1, 0))
            if torch.allclose(logits, by_hand, **FLOAT32):
                chosen.add(split)
    assert chosen == {0, 1, 3}


@pytest.mark.parametrize("mix", MIXES, ids=name_of)
class TestEveryMix:
    def test_depends_on_the_generators_seed_alone_and_leaves_torchs_global_one(self, mix):
        images, labels = batch(8)
        model, before = mlp(), torch.get_rng_state()
        first = mixed(mix, images, labels, 5, model)
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(7)
        again = mixed(mix, images, labels, 5, model)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        others = [mixed(mix, images, labels, seed, model)[2] for seed in range(6, 10)]
        assert any(not torch.equal(first[2], other) for other in others)  # CutMix has few boxes of 4x4

    def test_leaves_the_batch_alone(self, mix):
        images, labels = batch(8)
        before = images.clone(), labels.clone()
        mixed(mix, images, labels)
        assert torch.equal(images, before[0])
        assert torch.equal(labels, before[1])

    def test_a_batch_of_one_is_mixed_with_itself(self, mix):
        images, labels = batch(1)
        model = mlp()
        _, targets, logits = mixed(mix, images, labels, model=model)
        torch.testing.assert_close(logits, model(images), **FLOAT32)
        torch.testing.assert_close(targets, F.one_hot(labels, CLASSES).float(), **FLOAT32)

    def test_refuses_integer_images(self, mix):
        images, labels = batch(8)
        mix = ManifoldMixUp(0.7, ["input"]) if isinstance(mix, ManifoldMixUp) else mix
        with pytest.raises(BatchError, match=r"uint8.*\.float\(\)"):
            mixed(mix, images.to(torch.uint8), labels)


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("build", [MixUp, CutMix, lambda alpha: ManifoldMixUp(alpha, ["1"])])
def test_alpha_must_be_above_0(build, alpha):
    with pytest.raises(ConfigError, match=rf"alpha={alpha}.*mix=None"):
        build(alpha)


@pytest.mark.parametrize("probability", [0, -0.5, 1.5, float("nan")])
def test_probability_must_be_above_0_and_no_more_than_1(probability):
    with pytest.raises(ConfigError, match=rf"probability={probability}.*mix=None"):
        MixUp(1.0, probability=probability)


def test_a_probability_is_the_share_of_batches_that_are_mixed_and_1_draws_nothing():
    # 400 batches at 0.3: 120 with a standard deviation of 9.2, of which we allow four.
    assert abs(sum(MixUp(1.0, probability=0.3).applies(stream(seed)) for seed in range(400)) - 120) < 37
    generator = stream(0)
    state = generator.get_state()
    assert MixUp(1.0).applies(generator)
    assert torch.equal(generator.get_state(), state)


def test_cutmix_refuses_what_is_not_an_image():
    with pytest.raises(BatchError, match=r"\(8, 5\).*MixUp"):
        mixed(CutMix(1.0), torch.zeros(8, 5), batch(8)[1])


@pytest.mark.parametrize("blocks", [(), [], "layer1"])
def test_manifold_mixup_needs_a_list_of_blocks(blocks):
    with pytest.raises(ConfigError, match="give a list of block names"):
        ManifoldMixUp(1.0, blocks)


def test_a_block_that_does_not_run_or_takes_no_batch_is_refused():
    model, (images, labels) = mlp(), batch(8)
    model[3].add_module("unused", nn.Linear(2, 2))
    with pytest.raises(BlockError, match=r"'3\.unused', which the model's forward does not call"):
        mixed(ManifoldMixUp(1.0, ["3.unused"]), images, labels, model=model)
    embedding = nn.Sequential(nn.Embedding(5, 6), nn.Flatten(), nn.Linear(12, CLASSES))
    tokens = torch.randint(5, (8, 2))
    with pytest.raises(BatchError, match="at '0': none of its inputs is a floating-point"):
        mixed(ManifoldMixUp(1.0, ["0"]), tokens, labels, model=embedding)
    assert not embedding[0]._forward_pre_hooks
    mixed(ManifoldMixUp(1.0, ["2"]), tokens, labels, model=embedding)


@pytest.mark.parametrize("mix", [MixUp(), CutMix(), ManifoldMixUp(blocks=["input"])])
class TestLabels:
    def mixed(self, mix, labels, num_classes=5):
        images, model = torch.rand(4, 3, 8, 8), nn.Identity()
        draw = mix.draw(model, images.shape, torch.Generator().manual_seed(0))
        with mix.mixing(model, images, labels, num_classes, draw) as (_, targets):
            return targets

    @pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
    def test_of_any_integer_dtype_give_the_same_targets(self, mix, dtype):
        labels = torch.tensor([0, 4, 2, 2])
        assert torch.equal(self.mixed(mix, labels.to(dtype)), self.mixed(mix, labels))

    @pytest.mark.parametrize("label", [-100, -1, 5])
    def test_that_are_no_class_are_refused(self, mix, label):
        with pytest.raises(BatchError, match=f"label {label} is not a class"):
            self.mixed(mix, torch.tensor([0, 1, label, 2]))

    @pytest.mark.parametrize("labels", [torch.zeros(4), torch.zeros(4, 5).long(), torch.zeros(4, dtype=torch.bool)])
    def test_of_another_kind_are_refused(self, mix, labels):
        with pytest.raises(BatchError, match=r"class numbers \(K,\)"):
            self.mixed(mix, labels)
