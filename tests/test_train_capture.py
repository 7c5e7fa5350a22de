"""A captured step of each script is the plain one, to the bit; on a CPU, by a recorder in the place of CUDA graphs."""

from __future__ import annotations

import pytest

from cs_gan.data import ImageStore
from cs_gan.training.capture import WARM_UP
from tests import test_train_classifier as classifier
from tests import test_train_ssl as ssl
from tests.scripts import last, losses, plain, states_equal
from tests.test_train_gan import run

pytestmark = pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")

SCHEDULES = [
    "--training.steps=14",
    "--training.checkpoint_every=7",
    "--training.decay=linear",
    "--data.flip=true",
    "--coded.critic.blocks=blocks.1",
    "--coded.critic.weight=0.1",
    "--coded.critic.weight_end=2",
    "--coded.generator.blocks=blocks.0",
    "--coded.ratio_start=1",
    "--coded.ratio_end=1.25",  # N = 8, 9, 10
]


def test_captured_and_plain_runs_end_in_the_same_bits(tmp_path, recorder, monkeypatch):
    assert run(tmp_path / "captured", *SCHEDULES) == 0
    assert recorder.captures == 3  # one for each N
    assert recorder.replays == 14 - 3 * WARM_UP
    plain(monkeypatch)
    assert run(tmp_path / "plain", *SCHEDULES) == 0
    assert states_equal(last(tmp_path / "captured"), last(tmp_path / "plain"))
    assert losses(tmp_path / "captured") == losses(tmp_path / "plain")
    assert len({row["critic_loss"] for row in losses(tmp_path / "plain")}) == 14


def test_steps_that_observe_and_steps_that_do_not_are_two_graphs(tmp_path, recorder, monkeypatch):
    lazy = [*SCHEDULES, "--coded.ratio_end=1", "--coded.every=3"]
    assert run(tmp_path / "captured", *lazy) == 0
    assert recorder.captures == 2
    plain(monkeypatch)
    assert run(tmp_path / "plain", *lazy) == 0
    assert states_equal(last(tmp_path / "captured"), last(tmp_path / "plain"))


def test_a_held_share_is_measured_in_a_graph_of_its_own(tmp_path, recorder, monkeypatch):
    held = [
        "--training.steps=14",
        "--training.checkpoint_every=7",
        "--coded.critic.blocks=blocks.1",
        "--coded.ratio_end=1",
    ]
    held += ["--coded.critic.share=0.1", "--coded.share_every=3", "--training.log_every=7"]
    assert run(tmp_path / "captured", *held) == 0
    assert recorder.captures == 2
    plain(monkeypatch)
    assert run(tmp_path / "plain", *held) == 0
    assert states_equal(last(tmp_path / "captured"), last(tmp_path / "plain"))
    assert losses(tmp_path / "captured") == losses(tmp_path / "plain")


def test_images_on_the_device_and_batches_from_the_host_are_the_same_run(tmp_path, recorder, monkeypatch):
    assert run(tmp_path / "device", *SCHEDULES) == 0
    monkeypatch.setattr(ImageStore, "fits", lambda self, device: False)
    assert run(tmp_path / "host", *SCHEDULES) == 0
    assert recorder.replays == 2 * (14 - 3 * WARM_UP)
    assert states_equal(last(tmp_path / "device"), last(tmp_path / "host"))


# -- one network: arguments, and how many graphs they take -----------------------------------------

LONG = ["--training.steps=16", "--training.checkpoint_every=8", "--training.warmup=0.3"]
FLIPPED = ["--data.flip=true", "--metrics.rci_ratio=null"]
VIEWS = ["--views.turn=15", "--views.noise=0.1", "--data.channels=3"]
WHOLE = "--method.coded.blocks=['']"
CLASSIFIERS = {
    "erm": ([], 1),
    "adamw": (["--training.optimizer=adamw", "--training.learning_rate=0.002"], 1),
    "logit norm": (["--method.logit_norm=0.1", "--method.label_smoothing=0.1"], 1),
    "jacobian": (["--method.jacobian=0.01"], 1),
    "mixup": (["--method.mixup.alpha=1"], 1),
    "mixup, half of the batches": (["--method.mixup.alpha=1", "--method.mixup.probability=0.5"], 2),
    "cutmix": (["--method.cutmix.alpha=1"], 1),
    "manifold mixup": (["--method.manifold_mixup.alpha=1", "--method.manifold_mixup.blocks=['', blocks.1]"], 2),
    "coded": ([WHOLE, "--method.coded.ratio_end=1.25"], 3),
    "coded, at times": ([WHOLE, "--method.coded.ratio_end=1", "--method.coded.every=3"], 2),
}
ENCODERS = {
    "simclr": ([], 1),
    "simclr, colours": (VIEWS, 1),
    "barlow twins": ([*ssl.BARLOW, "--training.optimizer=adamw", "--training.learning_rate=0.002"], 1),
    "coded encoder, growing weight": ([*ssl.ENCODER, "--coded.ratio_end=1.125", "--coded.weight_end=1"], 3),
    "coded projector, at times": ([*ssl.PROJECTOR, "--coded.ratio_end=1", "--coded.every=3"], 2),
}
CASES = [
    *(pytest.param(classifier, [*FLIPPED, *more], graphs, id=name) for name, (more, graphs) in CLASSIFIERS.items()),
    *(pytest.param(ssl, more, graphs, id=name) for name, (more, graphs) in ENCODERS.items()),
]


@pytest.mark.parametrize(("script", "method", "graphs"), CASES)
def test_captured_and_plain_runs_of_one_network_end_in_the_same_bits(
    tmp_path, recorder, monkeypatch, script, method, graphs
):
    assert script.run(tmp_path / "captured", *LONG, *method) == 0
    assert recorder.captures == graphs
    assert recorder.replays == 16 - graphs * WARM_UP
    plain(monkeypatch)
    monkeypatch.setattr(ImageStore, "fits", lambda self, device: False)
    assert script.run(tmp_path / "plain", *LONG, *method) == 0
    assert states_equal(last(tmp_path / "captured"), last(tmp_path / "plain"))
    assert losses(tmp_path / "captured") == losses(tmp_path / "plain")
    assert len({row["loss"] for row in losses(tmp_path / "plain")}) == 16
