import pytest
import torch
from torch import nn

from cs_gan.gan import averaged
from tests.gan.networks import TinyGenerator


class Weight(nn.Module):
    """One weight, one buffer and one counter."""

    def __init__(self, value=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("statistic", torch.tensor([10 * value]))
        self.register_buffer("count", torch.tensor(0))

    def set(self, value, count):
        with torch.no_grad():
            self.weight.fill_(value)
            self.statistic.fill_(10 * value)
            self.count.fill_(count)


def expected_averages(values, decay):
    """The first update copies; after t updates the decay is min(decay, (1 + t) / (10 + t))."""
    average, averages = values[0], [values[0]]
    for t, value in enumerate(values[1:], start=1):
        d = min(decay, (1 + t) / (10 + t))
        average = d * average + (1 - d) * value
        averages.append(average)
    return averages


class TestAveraged:
    def test_second_update_by_hand(self):
        # t = 1: decay 2/11, so 2/11 * 11 + 9/11 * 22 = 20.
        model = Weight()
        ema = averaged(model)
        for value in (11.0, 22.0):
            model.set(value, 1)
            ema.update_parameters(model)
        assert ema.module.weight.item() == pytest.approx(20.0, rel=1e-6)

    # 0.2 is passed by the warm-up at t = 2 (3/12), 0.5 at t = 9 (10/19); 0.999 not within these steps.
    @pytest.mark.parametrize("decay", [0.0, 0.2, 0.5, 0.999])
    def test_warms_up_to_the_decay(self, decay):
        values = [float(torch.randn(())) for _ in range(12)]
        model = Weight()
        ema = averaged(model, decay)
        for count, (value, expected) in enumerate(zip(values, expected_averages(values, decay), strict=True), start=1):
            model.set(value, count)
            ema.update_parameters(model)
            # a dozen float32 roundings of numbers of about 1, and about 10 in the buffer
            assert ema.module.weight.item() == pytest.approx(expected, abs=2e-6)
            assert ema.module.statistic.item() == pytest.approx(10 * expected, abs=2e-5)
            assert ema.module.count.item() == count

    def test_decay_0_follows_the_weights_to_the_bit(self):
        model = Weight()
        ema = averaged(model, 0.0)
        for value in (0.1, 0.7, -3.3):
            model.set(value, 1)
            ema.update_parameters(model)
            assert torch.equal(ema.module.weight, model.weight)

    def test_averages_batch_norms_statistics_and_copies_its_counter(self):
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        ema = averaged(model)
        means = []
        for _ in range(5):
            model(torch.randn(8, 3))
            ema.update_parameters(model)
            means.append(model[1].running_mean.double())
        expected = expected_averages(means, 0.999)[-1]
        torch.testing.assert_close(ema.module[1].running_mean.double(), expected, rtol=1e-5, atol=1e-6)
        assert ema.module[1].num_batches_tracked == 5

    def test_is_apart_from_the_generator_frozen_and_in_eval_mode(self):
        generator = TinyGenerator().train()
        ema = averaged(generator)
        assert not ema.training
        assert not ema.module.training
        assert not any(p.requires_grad for p in ema.parameters())
        assert generator.training
        assert all(p.requires_grad for p in generator.parameters())
        theirs = {p.data_ptr() for p in generator.parameters()}
        assert not theirs & {p.data_ptr() for p in ema.parameters()}

    def test_keeps_the_generators_attributes_within_reach(self):
        assert averaged(TinyGenerator()).module.latent_dim == 5

    def test_leaves_the_generator_as_it_is(self):
        generator = TinyGenerator()
        before = [p.detach().clone() for p in generator.parameters()]
        ema = averaged(generator)
        for _ in range(3):
            ema.update_parameters(generator)
        assert all(torch.equal(p, q) for p, q in zip(generator.parameters(), before, strict=True))

    def test_goes_on_from_its_state_dict(self):
        values = [0.3, -1.0, 2.0, 0.5]
        model, other = Weight(), Weight()
        ema, resumed = averaged(model), averaged(other)
        for value in values[:2]:
            model.set(value, 1)
            ema.update_parameters(model)
        resumed.load_state_dict(ema.state_dict())
        for value in values[2:]:
            model.set(value, 1)
            ema.update_parameters(model)
            resumed.update_parameters(model)
        assert torch.equal(ema.module.weight, resumed.module.weight)

    @pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
    def test_refuses_an_impossible_decay(self, decay):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
            averaged(TinyGenerator(), decay)
