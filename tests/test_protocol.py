"""What a limited GAN run is scored against, which images it gets, and how its critic tells them from others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import train_gan
from cs_gan.data import drawn, load_images
from cs_gan.randomness import derive_seed
from cs_gan.report.groups import score_conflicts
from cs_gan.report.run import read_run
from cs_gan.runs import read_lines
from tasks.gan.critic_gap import CriticGap
from tests.reliability.runs import Started, finish
from tests.scripts import last, refusal, states_equal, words

pytestmark = pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")

TINY = {
    "model.name": "dcgan16",
    "model.width": 4,
    "training.steps": 2,
    "training.batch_size": 8,
    "training.n_critic": 1,
    "training.checkpoint_every": 1,
    "training.log_every": 1,
    "metrics.extractor": "digits",
    "metrics.num_samples": 20,
    "tracking.trackers": "none",
}
FOLDER = ["--data.name=folder", "--data.channels=1", "--data.image_size=16"]
FD = "FD, digits classifier"


def digits_folder(root: Path, **splits: slice) -> Path:
    """Digits in class folders below train/, test/, ..."""
    store = load_images("digits")
    for split, chosen in splits.items():
        images, labels = store.images[chosen], store.labels[chosen].tolist()
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            (root / split / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(root / split / str(label) / f"{i:04d}.png")
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return digits_folder(tmp_path_factory.mktemp("images"), train=slice(0, 300), test=slice(300, 400))


def run(folder: Path, *more: str) -> int:
    return train_gan.main(words(folder, TINY, *more))


def final(folder: Path) -> dict:
    return json.loads((folder / "scores.json").read_text())["final"]


# -- the reference ---------------------------------------------------------------------------------


def test_a_limited_run_is_scored_against_the_whole_split_that_provenance_names(tmp_path, images):
    data = [*FOLDER, f"--data.root={images}", "--data.limit=30"]
    counts = {"train": 300, "test": 100, "all": 400}
    for which in counts:
        assert run(tmp_path / which, *data, f"--metrics.reference={which}") == 0
    found = {which: final(tmp_path / which) for which in counts}
    for which, row in found.items():
        about = row["provenance"]["reference"]
        whole = load_images("folder", images, image_size=16, channels=1, split=which)
        assert (about["split"], about["count"]) == (which, counts[which])
        assert about["fingerprint"] == whole.fingerprint
        assert about["preparation"] == whole.preparation
        assert row["provenance"]["num_reference"] == counts[which]
    # The three trained alike, so that only the reference tells them apart.
    assert len({row["scores"][FD] for row in found.values()}) == 3


def test_evaluate_scores_by_the_same_rule(tmp_path, images):
    data = [*FOLDER, f"--data.root={images}", "--data.limit=30", "--metrics.reference=test"]
    assert run(tmp_path / "run", *data) == 0
    assert evaluate.main(["score", str(tmp_path / "run"), f"--json={tmp_path / 'a.json'}"]) == 0
    scored = json.loads((tmp_path / "a.json").read_text())
    assert scored["provenance"]["reference"] == final(tmp_path / "run")["provenance"]["reference"]
    assert scored["scores"][FD] == pytest.approx(final(tmp_path / "run")["scores"][FD], rel=1e-6)
    changed = ["--metrics.reference=train", f"--json={tmp_path / 'b.json'}"]
    assert evaluate.main(["score", str(tmp_path / "run"), *changed]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["provenance"]["reference"]["count"] == 300


def test_the_training_images_are_loaded_once_where_they_are_the_reference(tmp_path, monkeypatch):
    loaded = []
    load = load_images

    def counted(*words, **keys):
        loaded.append((keys["split"], keys["limit"]))
        return load(*words, **keys)

    monkeypatch.setattr("tasks.gan.data.load_images", counted)
    few = "--metrics.num_reference=100"
    assert run(tmp_path / "whole", few) == 0
    assert [each for each in loaded if each[0] == "train"] == [("train", None)]
    loaded.clear()
    assert run(tmp_path / "limited", few, "--data.limit=40") == 0
    assert [each for each in loaded if each[0] == "train"] == [("train", 40), ("train", None)]
    loaded.clear()
    assert run(tmp_path / "unscored", "--data.limit=40", "--metrics.extractor=none") == 0
    assert loaded == [("train", 40)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--metrics.reference=test"], ["metrics.reference = test", "digits have no split 'test'", "'train'"]),
        (["--metrics.reference=all"], ["metrics.reference = all", "digits have no split 'all'"]),
        (["--metrics.reference=val"], ["metrics.reference", "val"]),
        ([*FOLDER, "--data.root={only}", "--metrics.reference=test"], ["has no split 'test'", "It has: train"]),
        (
            [*FOLDER, "--data.root={flat}", "--metrics.reference=test"],
            ["no test images of its own", "train/ and test/"],
        ),
    ],
)
def test_a_reference_that_is_not_there_is_refused_with_what_is(tmp_path, capsys, images, more, said):
    only = digits_folder(tmp_path / "only", train=slice(0, 5))
    places = {"only": only, "flat": only / "train"}
    error = refusal(capsys, run, tmp_path / "run", *(word.format(**places) for word in more))
    assert all(each in error for each in said), error


def test_a_resume_against_another_reference_is_refused(tmp_path, capsys, images):
    data = [*FOLDER, f"--data.root={images}"]
    assert run(tmp_path / "run", *data) == 0
    error = refusal(capsys, run, tmp_path / "run", *data, "--metrics.reference=test")
    assert "metrics.reference: train -> test" in error


def test_images_of_another_shape_are_no_reference(tmp_path, capsys):
    root = tmp_path / "images"
    for split, size in (("train", 16), ("test", 20)):
        (root / split).mkdir(parents=True)
        Image.fromarray(np.zeros((size, size), np.uint8)).save(root / split / "a.png")
    data = ["--data.name=folder", "--data.channels=1", f"--data.root={root}", "--metrics.reference=test"]
    assert "--data.image_size" in refusal(capsys, run, tmp_path / "run", *data)


# -- which images are trained on -------------------------------------------------------------------


def test_a_limit_with_a_seed_is_drawn_by_class_and_told(tmp_path, images):
    data = [*FOLDER, f"--data.root={images}", "--data.limit=30"]
    found = {}
    for name, seed in (("even", "null"), ("0", "0"), ("1", "1"), ("again", "0")):
        assert run(tmp_path / name, *data, f"--data.limit_seed={seed}", "--training.steps=1") == 0
        found[name] = final(tmp_path / name)["provenance"]
        number = None if seed == "null" else int(seed)
        store = load_images("folder", images, image_size=16, channels=1, limit=30, limit_seed=number)
        assert found[name]["trained_on"] == {
            "split": "train",
            "count": 30,
            "fingerprint": store.fingerprint,
            "limit_seed": number,
        }
    assert store.labels.bincount().tolist() == [3] * 10
    assert found["0"]["trained_on"] == found["again"]["trained_on"]
    assert len({about["trained_on"]["fingerprint"] for about in found.values()}) == 3
    assert len({about["reference"]["fingerprint"] for about in found.values()}) == 1


def test_a_resume_on_images_of_another_draw_is_refused(tmp_path, capsys):
    data = ["--data.limit=40", "--metrics.extractor=none"]
    assert run(tmp_path / "run", *data, "--data.limit_seed=0") == 0
    error = refusal(capsys, run, tmp_path / "run", *data, "--data.limit_seed=1")
    assert "data.limit_seed: 0 -> 1" in error
    assert "images: " in error
    assert "data.limit_seed: 0 -> None" in refusal(capsys, run, tmp_path / "run", *data)


@pytest.mark.parametrize("seed", ["-1", "many", str(2**63)])
def test_a_limit_seed_that_is_none_is_refused(tmp_path, capsys, seed):
    assert "limit_seed" in refusal(capsys, run, tmp_path / "run", f"--data.limit_seed={seed}")


def test_scores_of_runs_on_more_and_fewer_images_may_be_compared(tmp_path, images):
    data = [*FOLDER, f"--data.root={images}", "--metrics.reference=test"]
    assert run(tmp_path / "all", *data) == 0
    assert run(tmp_path / "some", *data, "--data.limit=30", "--data.limit_seed=0") == 0
    assert run(tmp_path / "train", *data, "--metrics.reference=train") == 0
    groups = [read_run(tmp_path / name).evaluations for name in ("all", "some", "train")]
    assert score_conflicts(groups[:2]) == {}
    assert {"reference.split", "reference.fingerprint", "reference.count"} <= set(score_conflicts(groups))


# -- the critic's gap ------------------------------------------------------------------------------


class Brightness(torch.nn.Module):
    """A critic whose scores are known: the mean pixel. Dropout and batch norm would show a training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout = torch.nn.BatchNorm2d(1, affine=False), torch.nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 1, H, W) -> (B,)
        return self.dropout(self.norm(x)).mean((1, 2, 3)) + 0 * torch.rand(1)


def test_the_gap_is_the_difference_of_mean_scores_and_leaves_the_critic_alone(images):
    train, test = (load_images("folder", images, image_size=16, channels=1, split=name) for name in ("train", "test"))
    critic = Brightness()
    state = {key: value.clone() for key, value in critic.state_dict().items()}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    gap = CriticGap(train, test, 0, torch.device("cpu"), torch.channels_last)
    value = gap(critic)
    assert torch.equal(torch.get_rng_state(), before)
    assert critic.training
    assert critic.dropout.training
    assert all(torch.equal(value, state[key]) for key, value in critic.state_dict().items())
    # By hand: 256 of 300 training images, as many of each class, and all 100 of the test images.
    rows = drawn(300, 256, derive_seed(0, "critic gap"), train.labels)
    mean = [(store.double() / 127.5 - 1).mean().item() for store in (train.images[rows], test.images)]
    # a fresh batch norm divides by sqrt(1 + 1e-5)
    assert value == pytest.approx((mean[0] - mean[1]) / (1 + 1e-5) ** 0.5, abs=1e-6)
    assert gap.about == {"training": 256, "held_out": 100, "split": "test"}


@pytest.mark.usefixtures("pictures")
def test_the_gap_is_logged_and_drawn_where_there_are_held_out_images(tmp_path, images):
    data = [*FOLDER, f"--data.root={images}", "--data.limit=30", "--training.evaluate_every=1"]
    assert run(tmp_path / "run", *data) == 0
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    gaps = [row["scores"]["critic_gap"] for row in rows]
    assert len(set(gaps)) == 3
    assert rows[0]["provenance"]["critic_gap"] == {"training": 30, "held_out": 100, "split": "test"}
    assert final(tmp_path / "run")["scores"]["critic_gap"] == gaps[-1]
    best = json.loads((tmp_path / "run" / "scores.json").read_text())["best"]
    if best["step"] < 2:
        assert "critic_gap" not in best["scores"]
    assert "critic_gap" in (tmp_path / "run" / "report.html").read_text()


def test_there_is_no_gap_where_there_are_no_held_out_images(tmp_path, capsys):
    assert run(tmp_path / "digits", "--metrics.num_reference=100") == 0
    assert "no critic_gap: digits have no split 'test'" in capsys.readouterr().out
    assert "critic_gap" not in final(tmp_path / "digits")["scores"]


def test_measuring_the_gap_changes_no_bit_of_training(tmp_path, images):
    data = [*FOLDER, f"--data.root={images}", "--data.limit=30", "--training.evaluate_every=1"]
    assert run(tmp_path / "scored", *data) == 0
    assert run(tmp_path / "plain", *data, "--metrics.extractor=none") == 0
    assert states_equal(last(tmp_path / "scored"), last(tmp_path / "plain"))


def test_two_processes_measure_the_gap_of_one_and_stay_in_step(tmp_path, images):
    tested = [*FOLDER, f"--data.root={images}", "--metrics.reference=test"]
    finish(tmp_path / "two", *tested, processes=2, recipe=TINY)
    rows = read_lines(tmp_path / "two" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 2]
    assert run(tmp_path / "one", *tested) == 0
    # Before the first step both have the same critic.
    first = read_lines(tmp_path / "one" / "metrics.jsonl")[0]["scores"]["critic_gap"]
    assert rows[0]["scores"]["critic_gap"] == pytest.approx(first, abs=1e-6)
    # Without test images every process finds out, and none waits.
    started = Started(tmp_path / "none", *FOLDER, f"--data.root={images / 'train'}", processes=2, recipe=TINY)
    assert started.wait() == [0, 0], started.said()
    assert [started.said(rank).count("no critic_gap: folder has no test images") for rank in (0, 1)] == [1, 0]
