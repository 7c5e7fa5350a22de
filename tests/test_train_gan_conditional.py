"""Class-conditional runs of train_gan.py, and what evaluate.py does with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
from cs_gan.runs import read_lines
from cs_gan.training import read_snapshot
from models import PretrainedGenerator
from tasks.gan import task as gan_task
from tasks.gan.task import GanTask
from tests.scripts import assert_resumes, last, losses, plain, states_equal
from tests.test_train_gan import refused, run

pytestmark = pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")

CONDITIONAL = ["--model.name=resnet", "--model.width=2", "--model.conditional=true"]
CODED = ["--coded.critic.blocks=blocks.1,head", "--coded.generator.blocks=blocks.0"]
EVERYTHING = [
    *("--critic.r1=1", "--critic.r2=1", "--critic.consistency.weight=1", "--critic.consistency.fake_weight=1"),
    *("--critic.lecam.weight=0.1", "--critic.feature_norm.weight=0.1", "--augmentation.policy=color,translation"),
]
SCORED = ["--metrics.extractor=digits", "--metrics.num_samples=20"]


def test_a_resumed_run_equals_an_undisturbed_one_to_the_bit(tmp_path):
    assert_resumes(run, tmp_path, *CONDITIONAL, *CODED, *EVERYTHING)
    names = {"r1", "r2", "consistency", "consistency_fake", "lecam", "feature_norm", "gradient_penalty"}
    rows = losses(tmp_path / "whole")
    assert names | {"critic_coded", "generator_coded"} <= rows[0].keys()
    assert all(np.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_other_losses_train_too(loss, tmp_path):
    assert run(tmp_path / "run", *CONDITIONAL, f"--training.loss={loss}", "--training.steps=1") == 0


def test_a_captured_step_computes_the_same(recorder, tmp_path, monkeypatch):
    more = [*CONDITIONAL, "--training.steps=6"]
    assert run(tmp_path / "captured", *more) == 0
    plain(monkeypatch)
    assert run(tmp_path / "plain", *more) == 0
    assert states_equal(last(tmp_path / "captured"), last(tmp_path / "plain"))


def test_fake_images_have_the_classes_of_the_real_ones_and_the_generators_are_drawn_by_step(tmp_path, monkeypatch):
    seen = []

    def watched(task, **inputs):
        images = [task.store.labels[task.rows(number)] for number in range(2 * len(seen), 2 * len(seen) + 2)]
        assert torch.equal(inputs["labels"], torch.stack(images))
        seen.append(inputs["generator_labels"])
        return one_step(task, **inputs)

    one_step = GanTask.one_step
    monkeypatch.setattr(GanTask, "one_step", watched)
    assert run(tmp_path / "run", *CONDITIONAL) == 0
    assert len(seen) == 4
    assert not torch.equal(seen[0], seen[1])


def test_mixup_of_images_of_two_classes_is_refused(tmp_path, capsys):
    assert "has no class" in refused(capsys, tmp_path / "run", *CONDITIONAL, "--critic.mixup=0.2")


def test_images_without_classes_are_refused(tmp_path, capsys):
    Image.new("RGB", (16, 16)).save(tmp_path / "image.png")
    data = ["--data.name=folder", f"--data.root={tmp_path}"]
    error = refused(capsys, tmp_path / "run", *CONDITIONAL, *data)
    assert "model.conditional" in error
    assert "class folders" in error


def test_folders_of_classes_are_trained_on_scored_with_a_critic_gap_and_sampled_by_name(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, count in (("cat", 9), ("dog", 3)):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / f"{i}.png")
    data = ["--data.name=folder", f"--data.root={tmp_path / 'images'}", "--data.channels=1", "--data.limit=null"]
    assert run(tmp_path / "run", *CONDITIONAL, *data, *SCORED, "--metrics.num_reference=null") == 0
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert all(np.isfinite(row["scores"]["critic_gap"]) for row in rows)
    assert read_snapshot(tmp_path / "run" / "snapshot.safetensors").model["class_names"] == ["cat", "dog"]
    # The same score from the snapshot, classes drawn in the same shares.
    assert evaluate.main(["score", str(tmp_path / "run"), "--seed=0", f"--json={tmp_path / 'score.json'}"]) == 0
    scores = {key: value for key, value in rows[-1]["scores"].items() if key != "critic_gap" and "KID" not in key}
    again = json.loads((tmp_path / "score.json").read_text())["scores"]
    assert {key: again[key] for key in scores} == pytest.approx(scores, rel=1e-5)
    for asked in ("dog", "1"):
        words = ["sample", str(tmp_path / "run"), f"--class={asked}", "--count=3", f"--folder={tmp_path / asked}"]
        assert evaluate.main(words) == 0
    made = [[np.asarray(Image.open(path)) for path in sorted((tmp_path / asked).iterdir())] for asked in ("dog", "1")]
    assert np.array_equal(made[0], made[1])
    pretrained = PretrainedGenerator.from_snapshot(tmp_path / "run" / "snapshot.safetensors")
    expected = ((pretrained.sample(3, labels=torch.ones(3, dtype=torch.int64))[:, 0] + 1) * 127.5).round()
    assert torch.equal(torch.tensor(np.stack(made[0])).float(), expected)
    assert evaluate.main(["sample", str(tmp_path / "run"), "--class=cow"]) == 2
    assert "cat, dog" in capsys.readouterr().err
    for words in (["interpolate", "--steps=3"], ["nearest", "--count=2", "--neighbours=1"], ["sample", "--seeds=1,2"]):
        assert evaluate.main([words[0], str(tmp_path / "run"), *words[1:]]) == 0
    # a row a seed, a column a class
    assert Image.open(tmp_path / "run" / "samples.png").size == (2 * 67 - 3, 2 * 67 - 3)


def test_each_class_has_a_column_of_the_grid(tmp_path):
    assert run(tmp_path / "run", *CONDITIONAL, "--training.steps=1") == 0
    width, height = Image.open(tmp_path / "run" / "grid.png").size
    assert (width, height) == (10 * 67 - 3, 2 * 67 - 3)  # digits, and two rows of the four samples of a test


def test_a_class_of_a_generator_without_classes_is_refused(tmp_path, capsys):
    assert run(tmp_path / "run", "--training.steps=1") == 0
    assert evaluate.main(["sample", str(tmp_path / "run"), "--class=3"]) == 2
    assert "without classes" in capsys.readouterr().err


def test_ttur_trains_the_critic_at_its_own_rate(tmp_path, monkeypatch):
    one = "--training.steps=1"
    for name, more in (("same", []), ("null", ["--training.critic_learning_rate=null"])):
        assert run(tmp_path / name, one, *more) == 0
    assert states_equal(last(tmp_path / "same"), last(tmp_path / "null"))
    rates = []
    monkeypatch.setattr(gan_task, "set_learning_rate", lambda _, rate: rates.append(rate))
    assert run(tmp_path / "faster", one, "--training.critic_learning_rate=1e-2", "--training.n_critic=1") == 0
    assert rates == [2e-4, 1e-2]
