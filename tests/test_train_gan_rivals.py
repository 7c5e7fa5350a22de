"""train_gan.py with other losses, regularisers and augmentation: they train, resume, are captured, or are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import train_gan
from cs_gan.runs import read_lines
from cs_gan.training import read_checkpoint
from tasks.gan import networks
from tests.scripts import last, losses, plain, states_equal, words
from tests.test_train_gan import refused, run

pytestmark = pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")

NO_PENALTY = "--training.gradient_penalty=0"
RIVALS = {
    "hinge": ["--training.loss=hinge", NO_PENALTY, "--critic.spectral_norm=true"],
    "non-saturating": ["--training.loss=non-saturating", NO_PENALTY, "--critic.r1=1"],
    "relativistic": ["--training.loss=relativistic", NO_PENALTY, "--critic.r1=0.5", "--critic.r2=0.5"],
    "spectral norm": ["--critic.spectral_norm=true"],
    "R1, R2": ["--critic.r1=1", "--critic.r2=1"],
    "CR": ["--critic.consistency.weight=10"],
    "bCR": ["--critic.consistency.weight=1", "--critic.consistency.fake_weight=1"],
    "LeCam": ["--critic.lecam.weight=0.1"],
    "feature norm": ["--critic.feature_norm.weight=0.1"],
    "mixup": ["--critic.mixup=0.2"],
    "DiffAugment": ["--augmentation.policy=color,translation,cutout"],
}
EVERYTHING = [
    *("--training.loss=hinge", "--critic.r1=1", "--critic.r2=1", "--critic.spectral_norm=true", "--critic.mixup=0.2"),
    *("--critic.consistency.weight=10", "--critic.consistency.fake_weight=10", "--critic.lecam.weight=0.1"),
    *("--critic.feature_norm.weight=0.1", "--augmentation.policy=color,translation,cutout"),
    *("--coded.critic.blocks=blocks.1", "--coded.critic.observe=both", "--coded.generator.blocks=blocks.0"),
]


@pytest.mark.parametrize("name", RIVALS)
def test_each_trains_on_digits(name, tmp_path):
    """From noise to something: FD on digits features falls by a fifth, which a frozen generator's doesn't."""
    coded = "--coded.critic.blocks=blocks.1"
    given = {
        "model.width": 16,
        "training.steps": 30,
        "training.batch_size": 16,
        "training.n_critic": 1 if name == "relativistic" else 2,
        "training.learning_rate": 3e-3,
        "training.ema_decay": 0.9,
        "training.evaluate_every": 0,
        "training.log_every": 10,
        "metrics.num_samples": 200,
        "metrics.num_reference": 200,
        "tracking.trackers": "none",
    }
    assert train_gan.main(words(tmp_path / "run", given, coded, *RIVALS[name])) == 0
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    first, last = (row["scores"][row["primary"]] for row in (rows[0], rows[-1]))
    assert last < 0.8 * first
    log = read_lines(tmp_path / "run" / "log.jsonl")[-1]
    terms = {"R1, R2": {"r1", "r2"}, "relativistic": {"r1", "r2"}, "CR": {"consistency"}, "LeCam": {"lecam"}}
    terms |= {"bCR": {"consistency", "consistency_fake"}, "feature norm": {"feature_norm"}, "non-saturating": {"r1"}}
    assert terms.get(name, set()) <= log.keys()
    assert ("gradient_penalty" in log) == (NO_PENALTY not in RIVALS[name])


def test_everything_at_once_is_captured_and_resumed_to_the_bit(tmp_path, recorder, monkeypatch):
    given = [*EVERYTHING, "--training.steps=6", "--coded.ratio_end=1"]
    assert run(tmp_path / "captured", *given) == 0
    assert recorder.replays == 4
    halves = tmp_path / "halves"
    assert run(halves, *given, "--training.max_minutes=0.000001") == 0  # one step
    assert run(halves, *given) == 0
    plain(monkeypatch)
    assert run(tmp_path / "plain", *given) == 0
    ends = [last(tmp_path / name) for name in ("captured", "halves", "plain")]
    assert states_equal(ends[0], ends[1])
    assert states_equal(ends[0], ends[2])
    assert losses(tmp_path / "captured") == losses(halves) == losses(tmp_path / "plain")
    assert len({row["consistency"] for row in losses(tmp_path / "plain")}) == 6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--training.loss=relativistic", "--critic.lecam.weight=1"], "LeCam holds scores near averages"),
        (["--training.loss=relativistic", "--training.generator_batch_size=16"], "pairs each fake image with a real"),
        ([NO_PENALTY], "needs a critic whose slope is bounded"),
        (["--critic.r1=-1"], "critic.r1 = -1.0 must be 0 or more"),
        (["--critic.consistency.fake_weight=-1"], "critic.consistency.fake_weight"),
        (["--critic.lecam.decay=1"], "critic.lecam.decay"),
        (["--critic.feature_norm.weight=1", "--critic.feature_norm.block=blocks.7"], "no block 'blocks.7'. It has"),
        (["--augmentation.policy=color,rotation"], "rotation"),
        (["--training.loss=lsgan"], "lsgan"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_step(given, said, tmp_path, capsys):
    assert said in refused(capsys, tmp_path / "run", *given)


def test_a_penalty_on_slopes_with_batch_norm_in_the_critic_is_refused(tmp_path, capsys, monkeypatch):
    def with_batch_norm(**model):
        generator, critic = build(**model)
        critic.blocks.append(nn.BatchNorm2d(8))
        return generator, critic

    build = networks.build_gan
    monkeypatch.setattr(networks, "build_gan", with_batch_norm)
    said = "training.gradient_penalty = 10.0 with batch norm in the critic (blocks.2)"
    assert said in refused(capsys, tmp_path / "run")
    hinge = ["--training.loss=hinge", NO_PENALTY]
    assert "critic.r2 = 1.0 with batch norm" in refused(capsys, tmp_path / "run", *hinge, "--critic.r2=1")
    assert run(tmp_path / "run", *hinge) == 0


def test_plain_recipes_draw_what_they_drew_before_there_were_rivals(tmp_path):
    """Keys of what is off are made and not used: switching a term on leaves the other draws as they are."""
    assert run(tmp_path / "plain", "--training.steps=1") == 0
    assert run(tmp_path / "watched", "--training.steps=1", "--critic.feature_norm.weight=1e-30") == 0
    first, other = losses(tmp_path / "plain")[0], losses(tmp_path / "watched")[0]
    assert {key: other[key] for key in first} == first
    assert torch.isfinite(torch.tensor(other["feature_norm"]))


def test_feature_norm_is_held_at_its_share_of_the_gradient(tmp_path):
    """Every step measures. The weight jumps to the share at once and then follows it."""
    shares = [
        "--critic.feature_norm.share=0.1",
        "--coded.share_every=1",
        "--training.steps=8",
        "--training.log_every=1",
    ]
    assert run(tmp_path / "run", *shares) == 0
    rows = losses(tmp_path / "run")
    assert all(row["feature_norm_weight"] > 0 for row in rows)
    assert rows[-1]["feature_norm_share"] == pytest.approx(0.1, rel=0.5)
    tensors = read_checkpoint(last(tmp_path / "run"))[0]
    assert float(tensors["modules.feature_norm_share.weight"]) == pytest.approx(rows[-1]["feature_norm_weight"])
