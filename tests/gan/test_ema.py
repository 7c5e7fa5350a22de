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
            assert model.weight.item() == pytest.approx(value)  # the model's own stays
            assert decay or torch.equal(ema.module.weight, model.weight)  # 0 follows the weights to the bit

    def test_is_apart_from_the_generator_frozen_and_in_eval_mode(self):
        generator = TinyGenerator().train()
        ema = averaged(generator)
        assert not ema.training
        assert not ema.module.training
        assert not any(p.requires_grad for p in ema.parameters())
        assert ema.module.latent_dim == generator.latent_dim
        assert generator.training
        assert all(p.requires_grad for p in generator.parameters())
        theirs = {p.data_ptr() for p in generator.parameters()}
        assert not theirs & {p.data_ptr() for p in ema.parameters()}

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
