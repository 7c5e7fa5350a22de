"""train_classifier.py from the command line's point of view; what it shares with train_gan.py is tested there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import train_classifier
from cs_gan.data import train_and_test
from cs_gan.runs import read_lines
from cs_gan.training import list_checkpoints, parse_config, read_checkpoint
from tasks.classifier import task as classifier_task
from tasks.classifier.recipe import ClassifierConfig
from tests.scripts import ONE_NETWORK, assert_resumes, equal, final_tensors, refusal, words

pytestmark = pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")

CODED = ["--method.coded.blocks=['']", "--method.coded.mu=0.5"]


TINY = ONE_NETWORK | {"data.limit": 40, "data.crop": 1, "data.flip": "false", "metrics.rci_group": 64}


def arguments(folder: Path, *more: str) -> list[str]:
    return words(folder, TINY, *more)


def run(folder: Path, *more: str) -> int:
    return train_classifier.main(arguments(folder, *more))


def test_steps_as_a_key_win_over_the_epochs_of_a_recipe(tmp_path):
    (tmp_path / "r.yaml").write_text("training: {epochs: 3}\n")
    assert run(tmp_path / "run", f"--config={tmp_path / 'r.yaml'}", "--training.steps=2") == 0
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]
    assert (saved["steps"], saved["epochs"]) == (2, None)
    assert run(tmp_path / "later", "--training.epochs=0.9") == 0  # the test's recipe gives steps before it
    assert yaml.safe_load((tmp_path / "later" / "config.yaml").read_text())["training"]["steps"] == 5


@pytest.mark.usefixtures("pictures")
def test_run_scores_plain_and_under_rci_side_by_side(tmp_path):
    more = ["--metrics.corruptions=gaussian_noise,contrast", "--training.evaluate_every=2"]
    assert run(tmp_path / "run", *CODED, *more) == 0
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 4]
    for row in rows:
        assert {"accuracy (%)", "accuracy, RCI (%)"} <= row["scores"].keys()
        assert (row["primary"], row["better"]) == ("accuracy (%)", "higher")
        assert row["provenance"]["num_images"] == 1500
    full = json.loads((tmp_path / "run" / "scores.json").read_text())["final"]["scores"]
    assert {"accuracy, gaussian_noise 3 (%)", "accuracy, RCI, contrast 3 (%)"} <= full.keys()
    assert full["accuracy (%)"] == rows[-1]["scores"]["accuracy (%)"]
    assert all(float(row["coded"]) > 0 for row in read_lines(tmp_path / "run" / "log.jsonl"))
    assert (tmp_path / "run" / "report.html").exists()


def test_a_network_is_scored_once_where_the_end_asks_for_nothing_more(tmp_path, monkeypatch):
    counted = []
    accuracies = classifier_task.accuracies

    def count(*given, **named):
        counted.append(1)
        return accuracies(*given, **named)

    monkeypatch.setattr(classifier_task, "accuracies", count)
    assert run(tmp_path / "run", "--metrics.rci_ratio=null", "--training.evaluate_every=2") == 0
    assert len(counted) == 3  # at steps 0, 2 and 4
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert "accuracy, RCI (%)" not in rows[-1]["scores"]
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["final"] == rows[-1]
    assert scores["best"] == max(rows[1:], key=lambda row: row["scores"]["accuracy (%)"])


def test_rci_codes_the_blocks_of_the_recipe(tmp_path):
    assert run(tmp_path / "run", "--metrics.rci_blocks=blocks.1,head", "--training.steps=2") == 0
    row = read_lines(tmp_path / "run" / "metrics.jsonl")[-1]
    assert row["provenance"]["rci"]["blocks"] == ["blocks.1", "head"]
    whole = ["--metrics.rci_blocks=['']", "--training.steps=2"]
    assert run(tmp_path / "whole", *whole) == 0
    other = read_lines(tmp_path / "whole" / "metrics.jsonl")[-1]
    assert row["scores"]["cross-entropy, RCI"] != other["scores"]["cross-entropy, RCI"]
    assert row["scores"]["cross-entropy"] == other["scores"]["cross-entropy"]


def test_training_and_test_images_share_none_and_seeds_share_the_test_set(tmp_path):
    config = parse_config(ClassifierConfig, arguments(tmp_path))
    train, test = train_and_test(**config.data.parts(config.seed))
    seen = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in seen for image in test.images)
    config.seed = 1
    other_train, other_test = train_and_test(**config.data.parts(config.seed))
    assert torch.equal(test.images, other_test.images)
    assert not torch.equal(train.images, other_train.images)


def test_resumed_run_equals_undisturbed_one_to_the_bit(tmp_path):
    mixed = [*CODED, "--method.mixup.alpha=1.0", "--data.workers=2", "--training.optimizer=adamw"]
    assert_resumes(run, tmp_path, *mixed)


METHODS = {
    "label smoothing": ["--method.label_smoothing=0.1"],
    "logit norm": ["--method.logit_norm=0.01"],
    "jacobian": ["--method.jacobian=0.01"],
    "mixup": ["--method.mixup.alpha=1.0"],
    "cutmix": ["--method.cutmix.alpha=1.0", "--method.cutmix.probability=0.9"],
    "manifold mixup": ["--method.manifold_mixup.alpha=1.0"],
    "coded": ["--method.coded.blocks=blocks.1"],
}


def test_every_method_trains_and_differs_from_erm_and_the_others(tmp_path):
    found = []
    for name, method in {"erm": [], **METHODS}.items():
        assert run(tmp_path / name, *method, "--metrics.rci_ratio=null", "--training.steps=2") == 0
        found.append(final_tensors(tmp_path / name))
        assert all(torch.isfinite(value).all() for value in found[-1].values()), name
        assert not any(equal(found[-1], other) for other in found[:-1]), name


def test_the_first_step_of_adamw_moves_every_weight_by_the_learning_rate(tmp_path):
    adamw = ["--training.optimizer=adamw", "--training.learning_rate=0.001", "--training.weight_decay=0"]
    more = ["--metrics.rci_ratio=null", "--training.decay=constant", "--training.checkpoint_every=1"]
    assert run(tmp_path / "run", *adamw, *more, "--training.steps=2", "--training.keep_checkpoints=9") == 0
    (first, second) = (read_checkpoint(path)[0] for path in list_checkpoints(tmp_path / "run" / "checkpoints"))
    weight = next(key for key in first if key.endswith("head.2.weight"))
    moved = (second[weight] - first[weight]).abs()
    # m / (sqrt(v) + eps) of two gradients a, b is (0.9 a + b) / 1.9 over their root mean square: at most 1.42 or so.
    assert 0.0002 < moved.mean() < 0.00145


def test_vit_trains_coded(tmp_path):
    vit = ["--training.optimizer=adamw", "--model.name=vit32", "--model.width=16", "--data.image_size=16"]
    vit += ["--method.coded.blocks=blocks.0", "--training.steps=2", "--metrics.rci_ratio=null"]
    assert run(tmp_path / "run", *vit) == 0


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--method.mixupp.alpha=1", ["method.mixupp.alpha", "method.mixup.alpha"]),
        ("--method.coded.mu=1.0", ["mu", "[0, 1)"]),
        ("--metrics.rci_ratio=0.001", ["rci_ratio", "at least"]),
        ("--model.name=resnet21", ["resnet21", "resnet20"]),
        ("--data.holdout=0", ["--data.holdout"]),
        ("--data.limit=5", ["10"]),
        ("--method.coded.blocks=blocks.9", ["blocks.9"]),
        ("--metrics.severity=6", ["severity"]),
        ("--metrics.corruptions=fogg", ["fogg"]),
        ('--metrics.shifted={"cifar10.3":"."}', ["cifar10.3", "cifar10.2"]),
        ('--metrics.shifted={"cifar10.1":"nowhere"}', ["nowhere", "folder"]),
        ('--metrics.shifted={"cifar10_c":"."}', ["--metrics.corruptions"]),
        ("--metrics.rci_blocks=blocks.9", ["blocks.9"]),
        ("--metrics.rci_blocks=", ["rci_blocks"]),
        ("--method.mixup.probability=0", ["probability", "(0, 1]"]),
        ("--method.mixup.alpha=1 --method.cutmix.alpha=1", ["at most one"]),
    ],
)
def test_unusable_argument_is_refused_at_once_and_named(tmp_path, capsys, argument, words):
    error = refusal(capsys, run, tmp_path / "run", *argument.split())
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    ("given", "said"), [([], False), (["--method.coded.mu=0.3"], True), (["--method.coded.mu=0.3", *CODED[:1]], False)]
)
def test_strength_without_blocks_is_said_to_code_nothing(tmp_path, capsys, given, said):
    assert run(tmp_path / "run", *given) == 0
    assert ("so nothing is coded" in capsys.readouterr().out) == said


def test_folder_without_test_images_is_refused_rather_than_scored_on_its_training_images(tmp_path, capsys):
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    data = ["--data.name=folder", f"--data.root={tmp_path / 'images'}", "--data.holdout=0", "--data.limit=null"]
    assert "no test images of its own" in refusal(capsys, run, tmp_path / "run", *data)
    (tmp_path / "images" / "birds").mkdir()
    assert "birds" in refusal(capsys, run, tmp_path / "run", *data)
