import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from cs_gan.gan import averaged, critic_step, generator_step
from tests.gan.networks import TinyCritic, TinyGenerator, batches


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


class Buffers(nn.Module):
    """A tensor of every kind."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.wave = nn.Parameter(torch.randn(3, dtype=torch.complex64))
        self.register_buffer("codebook", torch.randn(3))
        self.register_buffer("phases", torch.randn(3, dtype=torch.complex64))
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
        self.register_buffer("table", torch.randn(3), persistent=False)
        self.register_buffer("kept", torch.tensor([True, False]))
        self.register_buffer("random_state", torch.arange(5, dtype=torch.uint8))
        self.register_buffer("count", torch.tensor(0))
        self.fixed = nn.Parameter(torch.tensor([0.0, -torch.inf]), requires_grad=False)

    @torch.no_grad()
    def move(self):
        for tensor in (self.weight, self.wave, self.codebook, self.phases):
            tensor.add_(torch.randn_like(tensor))
        self.kept.logical_not_()
        self.random_state.add_(3)
        self.count.add_(1)


class TestRules:
    AVERAGED, COPIED = ("weight", "wave", "codebook", "phases"), ("mask", "fixed", "kept", "random_state", "count")

    def test_each_kind_of_tensor_is_averaged_or_copied(self):
        model = Buffers()
        ema, seen = averaged(model, 0.5), {name: [] for name in self.AVERAGED}
        for _ in range(12):
            model.move()
            ema.update_parameters(model)
            for name in self.AVERAGED:
                seen[name].append(getattr(model, name).detach().clone())
        for name, values in seen.items():
            expected = expected_averages(values, 0.5)[-1]
            # a dozen float32 roundings of numbers of order 1
            torch.testing.assert_close(getattr(ema.module, name).detach(), expected, rtol=0, atol=2e-6)
        for name in (*self.COPIED, "table"):
            assert torch.equal(getattr(ema.module, name), getattr(model, name)), name

    def test_a_table_outside_the_state_dict_is_no_average(self):
        """A resume has it as it was made, so a run that was not interrupted must have it so too."""
        model = Buffers()
        ema = averaged(model)
        for _ in range(50):
            ema.update_parameters(model)
        assert torch.equal(ema.module.table, model.table)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_network_of_16_bits_is_averaged_in_float32(self, dtype):
        model = TinyGenerator().to(dtype)
        ema, decay = averaged(model), 0.999
        before = [p.detach().clone() for p in ema.module.parameters()]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)  # a change that one update of 16 bits would round away
        ema.n_averaged.fill_(100_000)  # after the warm-up
        for _ in range(2000):
            ema.update_parameters(model)
        for parameter, old in zip(ema.module.parameters(), before, strict=True):
            expected = old.double() + (parameter.double() * 0 + 1) * (1 - decay**2000)
            # 2,000 float32 roundings of numbers of order 1, and one to 16 bits (2^-8 of them)
            torch.testing.assert_close(parameter.double(), expected, rtol=2**-7, atol=2**-7)
            assert parameter.dtype == dtype
        assert ema.module(torch.randn(2, 5, dtype=dtype)).dtype == dtype  # it runs as the generator does

    def test_a_float32_network_keeps_the_names_of_its_state(self):
        model = TinyGenerator()
        names = [f"module.{name}" for name in model.state_dict()]
        assert list(averaged(model).state_dict()) == ["n_averaged", *names]


def weights(network):
    """The three effective weights, as in use."""
    network(torch.randn(2, 4))
    return [layer.weight.detach() for layer in (network.first, network.second, network.third)]


def norms(network):
    return [float(torch.linalg.svdvals(weight.flatten(1))[0]) for weight in weights(network)]


class Normalised(nn.Module):
    """(B, 4) -> (B, 3, 2, 2) by three layers of spectral norm 1."""

    def __init__(self, normalised):
        super().__init__()
        self.first, self.third = normalised(nn.Linear(4, 32)), normalised(nn.Linear(32, 12))
        self.second = (
            normalised(nn.Conv2d(1, 1, 3, padding=1)) if normalised is on_top else normalised(nn.Linear(32, 32))
        )

    def forward(self, z):
        y = self.first(z).relu()
        y = self.second(y.view(-1, 1, 4, 8)).flatten(1) if isinstance(self.second, nn.Conv2d) else self.second(y)
        return 5 * self.third(y.relu()).view(-1, 3, 2, 2)


def on_top(layer):
    """Spectral norm of a weight that is itself parametrized."""
    return parametrizations.spectral_norm(parametrizations.weight_norm(layer))


@pytest.mark.parametrize("normalised", [parametrizations.spectral_norm, nn.utils.spectral_norm, on_top])
class TestSpectralNorm:
    def test_the_averages_layers_have_norm_1_as_the_live_ones(self, normalised):
        generator, critic = Normalised(normalised), TinyCritic()
        ema = averaged(generator, 0.99)
        optimizers = [torch.optim.Adam(part.parameters(), 2e-3, betas=(0.0, 0.9)) for part in (generator, critic)]
        for step in range(300):
            real, _, alpha = batches(16, step)
            with torch.no_grad():
                fake = generator(torch.randn(16, 4))
            critic_step(critic, optimizers[1], real, fake, alpha)
            generator_step(generator, critic, optimizers[0], torch.randn(16, 4))
            ema.update_parameters(generator)
        moved = torch.cat([(a - b).flatten() for a, b in zip(weights(ema.module), weights(generator), strict=True)])
        assert moved.abs().max() > 0.01  # else the average would be the live network
        # One power iteration per step lags behind the weight: the live network's by up to a tenth, and less that of the
        # average, which moves slowly. Averaged vectors gave norms of 1.2 to 9.
        assert norms(generator.eval()) == pytest.approx([1, 1, 1], abs=0.15)
        assert norms(ema.module) == pytest.approx([1, 1, 1], abs=0.05)
        assert not any(module.training for module in ema.modules())

    def test_the_first_update_copies_and_every_other_is_one_power_iteration_on_the_average(self, normalised):
        generator = Normalised(normalised)
        ema = averaged(generator)
        for _ in range(200):  # far from where the average was made
            with torch.no_grad():
                generator.first.bias.add_(1)
                for parameter in generator.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.3)
                generator(torch.randn(2, 4))
        ema.update_parameters(generator)
        expected = copy.deepcopy(generator).train()
        with torch.no_grad():
            expected(torch.randn(2, 4))  # one iteration in training mode
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(ema.module.state_dict()[name], value)
        assert norms(ema.module) == pytest.approx(norms(expected.eval()), rel=1e-5)

    def test_goes_on_from_its_state_dict_to_the_bit(self, normalised):
        generator = Normalised(normalised)
        ema, resumed = averaged(generator), averaged(Normalised(normalised))
        for step in range(6):
            if step == 3:
                resumed.load_state_dict(ema.state_dict())
            with torch.no_grad():
                for parameter in generator.parameters():
                    parameter.add_(torch.randn_like(parameter))
            ema.update_parameters(generator)
            if step >= 3:
                resumed.update_parameters(generator)
        for name, value in ema.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name
