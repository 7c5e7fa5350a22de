"""Gradient accumulation: every step, by Accelerate and by hand, has the gradient of the mean of its micro-batches."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch.nn import functional as F

from cs_gan import CodedSmoothing
from cs_gan.errors import ConfigError
from cs_gan.gan import critic_step, generator_step
from cs_gan.randomness import stream
from cs_gan.ssl import nt_xent, ssl_step
from cs_gan.supervised import classifier_step
from tests.accumulated import MICRO, SIZE, WORLD, critic, micro_batch
from tests.gan.networks import TinyCritic, TinyGenerator, batches, naive_coded_penalty, naive_gradient_penalty
from tests.processes import run_in_processes
from tests.supervised.networks import CLASSES, batch, mlp

N, RATIO, WEIGHT, LR = 3, 1.5, 0.7, 0.1
# float32 keeps 6e-8 relative. Gradients are sums of some hundred terms of order 1; twice this for two updates.
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


class OfCritic:
    """Wasserstein loss, gradient penalty and coded penalty on micro-batches of four."""

    block = "body"

    def __init__(self):
        self.network = TinyCritic()

    def step(self, network, optimizer, coded, at, **options):
        return critic_step(network, optimizer, *batches(4, at), coded=coded, **options)

    def loss(self, network, at):
        real, fake, alpha = batches(4, at)
        loss = network(fake).mean() - network(real).mean() + 10 * naive_gradient_penalty(network, real, fake, alpha)
        return loss + WEIGHT * naive_coded_penalty(network.body, real, RATIO)


class OfGenerator:
    """Against a fixed critic."""

    block = "body"

    def __init__(self):
        self.network, self.critic = TinyGenerator(), TinyCritic()

    def step(self, network, optimizer, coded, at, **options):
        return generator_step(network, self.critic, optimizer, self.latents(at), coded=coded, **options)

    def loss(self, network, at):
        penalty = naive_coded_penalty(network.body, self.latents(at), RATIO)
        return -self.critic(network(self.latents(at))).mean() + WEIGHT * penalty

    def latents(self, at):
        return torch.randn(4, 5, generator=torch.Generator().manual_seed(at))


class OfClassifier:
    """(1 - mu) cross-entropy + mu coded penalty."""

    block = "3"

    def __init__(self):
        self.network = mlp(torch.float32)

    def step(self, network, optimizer, coded, at, **options):
        images, labels = batch(4, torch.float32, at)
        how = {"generator": stream(at), "num_classes": CLASSES, "coded": coded, "mu": 0.3 if coded else 0.0}
        return classifier_step(network, optimizer, images, labels, **how, **options)

    def loss(self, network, at):
        images, labels = batch(4, torch.float32, at)
        penalty = naive_coded_penalty(network[3], network[:3](images), RATIO)
        return 0.7 * F.cross_entropy(network(images), labels) + 0.3 * WEIGHT * penalty


class OfEncoder:
    """NT-Xent of two images in two views."""

    block = "3"

    def __init__(self):
        self.network = mlp(torch.float32)

    def step(self, network, optimizer, coded, at, **options):
        return ssl_step(network, optimizer, batch(4, torch.float32, at)[0], nt_xent, coded=coded, **options)

    def loss(self, network, at):
        views = batch(4, torch.float32, at)[0]
        penalty = naive_coded_penalty(network[3], network[:3](views), RATIO)
        return nt_xent(*network(views).chunk(2)) + WEIGHT * penalty


STEPS = {"critic": OfCritic, "generator": OfGenerator, "classifier": OfClassifier, "encoder": OfEncoder}


def sgd(network):
    return torch.optim.SGD(network.parameters(), LR, momentum=0.9)


def by_hand(case, updates):
    """A copy of the network after each update: micro-batch ``u N + i`` is the i-th of update u."""
    network = copy.deepcopy(case.network)
    optimizer, after = sgd(network), []
    for update in range(updates):
        optimizer.zero_grad()
        torch.stack([case.loss(network, update * N + i) for i in range(N)]).mean().backward()
        optimizer.step()
        after.append(copy.deepcopy(network))
    return after


def assert_weights(network, expected):
    for mine, other in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)


@pytest.fixture
def accelerator():
    """Of one process, that accumulates over N micro-batches; its states are shared by all in this process."""
    yield Accelerator(cpu=True, gradient_accumulation_steps=N)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.mark.parametrize("name", STEPS)
def test_accelerate_accumulates_over_all_micro_batches(name, accelerator):
    case = STEPS[name]()
    expected, before = by_hand(case, updates=2), copy.deepcopy(case.network)
    coded = CodedSmoothing(case.network, [case.block], RATIO, weight=WEIGHT)
    network, optimizer = accelerator.prepare(case.network, sgd(case.network))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)  # of something else; it must not count
    for at in range(2 * N):
        with accelerator.accumulate(network):
            case.step(network, optimizer, coded, at, backward=accelerator.backward)
        updates = (at + 1) // N
        assert_weights(network, [before, *expected][updates])


@pytest.mark.parametrize("name", STEPS)
def test_micro_batches_of_a_torch_optimiser_are_averaged(name):
    case = STEPS[name]()
    expected, before = by_hand(case, updates=2), copy.deepcopy(case.network)
    coded, optimizer = CodedSmoothing(case.network, [case.block], RATIO, weight=WEIGHT), sgd(case.network)
    for parameter in case.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    for at in range(2 * N):
        case.step(case.network, optimizer, coded, at, micro_batch=(at % N + 1, N))
        assert_weights(case.network, [before, *expected][(at + 1) // N])


@pytest.mark.parametrize("name", STEPS)
def test_with_an_accelerator_that_does_not_accumulate_a_step_is_a_plain_one(name):
    plain, prepared = (STEPS[name]() for _ in "ab")
    prepared.network.load_state_dict(plain.network.state_dict())
    if name == "generator":
        prepared.critic = plain.critic
    try:
        accelerator = Accelerator(cpu=True)
        network, optimizer = accelerator.prepare(prepared.network, sgd(prepared.network))
        own = sgd(plain.network)
        for at in range(3):
            plain.step(plain.network, own, None, at)
            prepared.step(network, optimizer, None, at, backward=accelerator.backward)
        for mine, other in zip(network.parameters(), plain.network.parameters(), strict=True):
            assert torch.equal(mine, other)
            assert torch.equal(mine.grad, other.grad)  # they can be looked at after the step
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def test_a_window_that_ends_early_is_updated_and_the_next_starts_anew(accelerator):
    """Accelerate synchronises at the end of a data loader, here after two of three micro-batches."""
    case = OfCritic()
    expected = copy.deepcopy(case.network)
    own = sgd(expected)
    network, optimizer = accelerator.prepare(case.network, sgd(case.network))
    for window in ((0, 1), (2, 3)):
        own.zero_grad()
        for at in window:
            real, fake, alpha = batches(4, at)
            loss = expected(fake).mean() - expected(real).mean()
            ((loss + 10 * naive_gradient_penalty(expected, real, fake, alpha)) / N).backward()
        own.step()
        for at in window:
            accelerator.gradient_state._set_sync_gradients(at == window[-1])
            case.step(network, optimizer, None, at, backward=accelerator.backward)
        assert_weights(network, expected)


def test_accumulation_that_is_asked_for_twice_is_refused(accelerator):
    case = OfCritic()
    network, optimizer = accelerator.prepare(case.network, sgd(case.network))
    with pytest.raises(ConfigError, match=r"critic_step\(micro_batch=\(1, 2\)\).*over 3.*divided twice"):
        case.step(network, optimizer, None, 0, micro_batch=(1, 2))


@pytest.mark.parametrize("micro_batch", [(0, 2), (3, 2), (1, 0), (-1, -1)])
@pytest.mark.parametrize("name", STEPS)
def test_an_impossible_micro_batch_is_refused_before_anything_changes(name, micro_batch):
    case = STEPS[name]()
    case.network.register_forward_pre_hook(lambda *_: pytest.fail("ran"))
    with pytest.raises(ConfigError, match=r"_step\(micro_batch=.*give \(i, n\)"):
        case.step(case.network, sgd(case.network), None, 0, micro_batch=micro_batch)


def test_two_processes_accumulate_the_mean_over_both(tmp_path):
    run_in_processes("tests.accumulated", WORLD, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    expected = critic()
    optimizer, losses = torch.optim.SGD(expected.parameters(), LR), []
    for real, fake, alpha in (micro_batch(rank, at) for rank in range(WORLD) for at in range(MICRO)):
        loss = expected(fake).sum() / SIZE - expected(real).sum() / SIZE
        losses.append(loss + 10 * naive_gradient_penalty(expected, real, fake, alpha))
    torch.stack(losses).mean().backward()
    optimizer.step()
    for mine, theirs, other in zip(*found, expected.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
        torch.testing.assert_close(mine, other, **CLOSE)
