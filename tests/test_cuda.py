"""What only a GPU can show: real graphs, no waiting inside a step, the same bits with and without. Skipped elsewhere.

``benchmarks/gpu.sh`` runs them.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
import torch

import cs_gan.gan.penalties as penalties_module
from cs_gan import SplineCode
from cs_gan.data import ImageStore
from cs_gan.gan import fast_double_backward, gradient_penalty
from cs_gan.training import CapturedStep, CudaGraphs, Session, list_checkpoints, parse_config
from cs_gan.training.capture import WARM_UP
from models import build_gan
from tasks.classifier.recipe import ClassifierConfig
from tasks.classifier.task import ClassifierTask
from tasks.gan.recipe import GanConfig
from tasks.gan.task import GanTask
from tests import test_train_classifier as classifier
from tests.scripts import last, losses, states_equal
from tests.test_train_capture import SCHEDULES
from tests.test_train_gan import arguments, run

FIXTURES = pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")

ROOT = Path(__file__).parents[1]
pytestmark = [FIXTURES, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
# At most log_every steps are under way when the losses are read.
LONG = [*SCHEDULES, "--training.steps=60", "--training.checkpoint_every=30", "--training.log_every=10"]


def make(stack: ExitStack, folder, *more: str) -> GanTask:
    config = parse_config(GanConfig, arguments(folder, *SCHEDULES, *more))
    task = GanTask(Session(config, stack))
    stack.callback(task.close)
    return task


LARGE = ["--model.width=64", "--data.image_size=32", "--training.steps=25"]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--training.mixed_precision=bf16"],
        ["--model.name=paper32", *LARGE],
        ["--model.name=dcgan32", *LARGE],
    ],
    ids=["small", "bf16", "paper32", "dcgan32"],
)
def test_runs_with_graphs_and_without_end_in_the_same_bits(tmp_path, more):
    assert run(tmp_path / "graph", *LONG, *more) == 0
    assert run(tmp_path / "eager", *LONG, *more, "--training.cuda_graph=off") == 0
    assert states_equal(last(tmp_path / "graph"), last(tmp_path / "eager"))
    assert losses(tmp_path / "graph") == losses(tmp_path / "eager")


def test_a_fresh_process_ends_in_the_same_bits_as_one_with_a_history(tmp_path):
    # Autograd's threads count nodes, and sums of gradients follow the counts: the first run of a process showed it.
    shared = [*LONG, "--model.name=paper32", "--model.width=64", "--data.image_size=32", "--training.steps=6"]
    for name in ("one", "two"):
        command = [sys.executable, "train_gan.py", *arguments(tmp_path / name, *shared)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        assert run(tmp_path / "here", *shared, "--training.cuda_graph=off") == 0
        assert states_equal(last(tmp_path / name), last(tmp_path / "here"))
        shutil.rmtree(tmp_path / "here")


def test_a_resumed_run_with_graphs_ends_in_the_same_bits(tmp_path):
    assert run(tmp_path / "whole", *LONG) == 0
    assert run(tmp_path / "halves", *LONG, "--training.max_minutes=0.000001") == 0
    assert 0 < int(last(tmp_path / "halves").name[-8:]) < 60
    assert run(tmp_path / "halves", *LONG) == 0
    assert states_equal(last(tmp_path / "whole"), last(tmp_path / "halves"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")


@pytest.mark.parametrize("graph", ["auto", "off"])
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_step_never_waits_for_the_gpu(tmp_path, graph, device):
    with ExitStack() as stack:
        task = make(stack, tmp_path, f"--training.cuda_graph={graph}", f"--data.device={device}", "--coded.ratio_end=1")
        for step in range(4):  # matrices, optimiser states and graphs are made
            task.step(step)
        assert task.update.captures == (graph == "auto")
        stack.callback(torch.cuda.set_sync_debug_mode, "default")
        torch.cuda.set_sync_debug_mode("error")
        for step in range(4, 8):
            task.step(step)


def test_a_step_that_waits_runs_without_a_graph_and_says_why():
    weight, device = torch.zeros(3, device="cuda"), torch.device("cuda")

    def waits(by: torch.Tensor) -> dict[str, torch.Tensor]:
        grown = weight * 2 + by
        if bool(grown.sum() > 0):
            weight.copy_(grown)
        return {"sum": weight.sum()}

    stream = torch.cuda.current_stream()
    step = CapturedStep(waits, device, capture=CudaGraphs())
    for _ in range(WARM_UP):
        step("only", {"by": torch.ones(3)})
    with pytest.warns(UserWarning, match="can't be captured"):
        step("only", {"by": torch.ones(3)})
    assert not step.captures
    assert torch.cuda.current_stream() == stream
    expected = 2 ** (WARM_UP + 2) - 1
    assert step("only", {"by": torch.ones(3)})["sum"] == 3 * expected
    # The device is as good as before: another step is captured.
    other = CapturedStep(lambda by: {"sum": weight.add_(by).sum()}, device, capture=CudaGraphs())
    for _ in range(WARM_UP + 2):
        found = other("only", {"by": torch.ones(3)})
    assert other.captures
    assert found["sum"] == 3 * (expected + WARM_UP + 2)


def test_bilinear_upsampling_is_the_networks_without_exact_repetition(tmp_path):
    # torch has no deterministic kernel for its gradient; docs/performance.md says so. Whoever finds one changes both.
    shared = [*LONG, "--model.name=mimicry32", "--model.width=64", "--data.image_size=32"]
    shared += ["--training.steps=6", "--training.log_every=3"]
    assert run(tmp_path / "graph", *shared) == 0
    assert run(tmp_path / "eager", *shared, "--training.cuda_graph=off") == 0
    one, two = (losses(tmp_path / name)[-1] if losses(tmp_path / name) else {} for name in ("graph", "eager"))
    assert one == pytest.approx(two, rel=1e-2)


def test_a_graph_keeps_its_matrices_when_the_cache_has_forgotten_them(tmp_path):
    with ExitStack() as stack:
        task = make(stack, tmp_path / "one", "--coded.ratio_end=1")
        other = make(stack, tmp_path / "two", "--coded.ratio_end=1", "--training.cuda_graph=off")
        for step in range(12):
            if step == 6:
                for N in range(20, 120):  # more codes than a cache holds, and memory that is used again
                    SplineCode(16, N).encode(torch.randn(16, 50, device="cuda"))
            task.step(step)
            other.step(step)
        pairs = zip(task.bare_critic.parameters(), other.bare_critic.parameters(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)


def test_batches_are_the_same_on_every_device():
    store = ImageStore(torch.randint(256, (300, 3, 32, 32), dtype=torch.uint8), None, "x", "x")
    on_gpu = ImageStore(store.images.cuda(), None, "x", "x")
    rows = torch.randint(300, (128,))
    for how in ({}, {"flip": True}, {"crop": 4}, {"dequantize": True}, {"flip": True, "crop": 4, "dequantize": True}):
        batches = [each.batch(rows, augmentation=(3, 5), **how).cpu() for each in (store, on_gpu)]
        assert torch.equal(*batches)


@pytest.mark.parametrize("name", ["paper32", "mimicry32", "dcgan32", "paper64"])
def test_gradients_are_those_of_a_cpu(name):
    # In channels_last, where torch's own kernels can be wrong (PyTorch issue 188344).
    torch.manual_seed(0)
    here = [network.double() for network in build_gan(name, width=16)]
    there = [copy.deepcopy(net).cuda().to(memory_format=torch.channels_last) for net in here]
    z, alpha = torch.randn(4, 128, dtype=torch.float64), torch.full((4,), 0.3, dtype=torch.float64)
    real = torch.randn(4, *here[1].image_shape, dtype=torch.float64)
    for (generator, critic), device in ((here, "cpu"), (there, "cuda")):
        fake = generator(z.to(device))
        loss = critic(fake).mean() - critic(real.to(device)).mean()
        (loss + 10 * gradient_penalty(critic, real.to(device), fake, alpha.to(device))).backward()
    for one, other in zip(here, there, strict=True):
        for (name, parameter), twin in zip(one.named_parameters(), other.parameters(), strict=True):
            if parameter.grad is not None:
                # Biases before a norm have no gradient but rounding.
                scale = float(parameter.grad.abs().max()) + 1e-4
                torch.testing.assert_close(twin.grad.cpu(), parameter.grad, rtol=0, atol=1e-9 * scale, msg=name)


@pytest.mark.parametrize("name", ["paper32", "paper64", "dcgan32"])
def test_second_derivatives_are_torchs(name, monkeypatch):
    torch.manual_seed(0)
    critic = build_gan(name, width=32)[1].cuda().double().to(memory_format=torch.channels_last)
    real, fake = (torch.randn(4, *critic.image_shape, device="cuda", dtype=torch.float64) for _ in range(2))
    found = []
    for context in (fast_double_backward, nullcontext):
        monkeypatch.setattr(penalties_module, "fast_double_backward", context)
        critic.zero_grad()
        gradient_penalty(critic, real, fake, torch.full((4,), 0.3, device="cuda")).backward()
        found.append(torch.cat([p.grad.flatten() for p in critic.parameters() if p.grad is not None and p.dim() > 1]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)  # float64: rounding alone


def test_a_loss_that_is_not_finite_ends_the_run_before_a_checkpoint(tmp_path, capsys):
    assert run(tmp_path / "run", *LONG, "--training.learning_rate=1e30", "--training.log_every=1000") == 2
    assert "is not finite" in capsys.readouterr().err
    assert not list_checkpoints(tmp_path / "run" / "checkpoints")


CLASSIFIER = ["--training.steps=40", "--training.checkpoint_every=20", "--training.log_every=10", "--data.flip=true"]


@pytest.mark.parametrize(
    "method",
    [
        [],
        ["--training.optimizer=adamw", "--training.learning_rate=0.001"],
        ["--method.coded.blocks=['']", "--method.mixup.alpha=1", "--method.mixup.probability=0.5"],
        ["--method.cutmix.alpha=1", "--training.mixed_precision=bf16"],
        ["--model.name=wrn28_10", "--model.width=8", "--model.dropout=0.3"],
    ],
)
def test_classifiers_with_graphs_and_without_end_in_the_same_bits(tmp_path, method):
    assert classifier.run(tmp_path / "graph", *CLASSIFIER, *method) == 0
    assert classifier.run(tmp_path / "eager", *CLASSIFIER, *method, "--training.cuda_graph=off") == 0
    assert classifier.run(tmp_path / "host", *CLASSIFIER, *method, "--data.device=cpu") == 0
    ends = [classifier.final_tensors(tmp_path / end) for end in ("graph", "eager", "host")]
    for other in ends[1:]:
        assert all(torch.equal(ends[0][key], other[key]) for key in other)


def test_a_classifiers_step_never_waits_for_the_gpu(tmp_path):
    more = ["--method.coded.blocks=['']", "--method.coded.ratio_end=1", "--method.mixup.alpha=1"]
    config = parse_config(ClassifierConfig, classifier.arguments(tmp_path, *CLASSIFIER, *more))
    with ExitStack() as stack:
        task = ClassifierTask(Session(config, stack))
        stack.callback(task.close)
        for step in range(4):
            task.step(step)
        assert task.update.captures
        stack.callback(torch.cuda.set_sync_debug_mode, "default")
        torch.cuda.set_sync_debug_mode("error")
        for step in range(4, 8):
            task.step(step)
