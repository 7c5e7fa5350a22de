"""evaluate.py accuracy: as at the end of training, on shifted images too."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import train_classifier
from cs_gan.data import load_images, shifted
from cs_gan.data.shifted import CIFAR10_CLASSES
from cs_gan.randomness import stream
from cs_gan.runs import read_lines
from cs_gan.supervised.accuracy import Accuracy
from cs_gan.training import read_snapshot, save_snapshot
from models import build_classifier
from tasks.classifier.load import shuffled
from tasks.classifier.scores import _groups
from tests.evaluated import refused

TINY = {
    "model.name": "mlp",
    "model.width": 8,
    "data.name": "cifar10",
    "training.steps": 3,
    "training.batch_size": 8,
    "metrics.rci_group": 8,
    "tracking.trackers": "none",
}


def pixels(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Images by class like CIFAR-10's, 10.1 and 10-C in small, and a run on them."""
    top = tmp_path_factory.mktemp("accuracy")
    for part, n in (("train", 3), ("test", 2)):
        for number, name in enumerate(CIFAR10_CLASSES):
            (top / "images" / part / name).mkdir(parents=True)
            for i, image in enumerate(pixels(n, 100 * number + n)):
                Image.fromarray(image).save(top / "images" / part / name / f"{i}.png")
    np.save(top / "cifar10.1_v6_data.npy", pixels(12, 1))
    np.save(top / "cifar10.1_v6_labels.npy", np.arange(12, dtype=np.int32) % 10)
    (top / "c").mkdir()
    np.save(top / "c" / "labels.npy", np.tile([7, 1, 3, 5], 5).astype(np.uint8))
    np.save(top / "c" / "fog.npy", pixels(20, 2))
    recipe = TINY | {"data.root": top / "images", "output_dir": top / "run"}
    assert train_classifier.main([f"--{key}={value}" for key, value in recipe.items()]) == 0
    return top


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(shifted, "_COUNTS", {"cifar10.1": 12, "cifar10_c": 20})


def run(*words: object) -> int:
    return evaluate.main(["accuracy", *map(str, words)])


def test_scores_are_those_of_the_end_of_training(folders, capsys):
    assert run(folders / "run") == 0
    found = json.loads((folders / "run" / "accuracy.json").read_text())
    trained = read_lines(folders / "run" / "metrics.jsonl")[-1]
    assert found["scores"] == trained["scores"]
    assert found["provenance"]["reference"] == trained["provenance"]["reference"]
    assert {"accuracy (%)", "accuracy, RCI (%)"} <= found["scores"].keys()
    out = capsys.readouterr().out
    assert "accuracy, RCI (%)" in out
    assert str(folders / "run" / "accuracy.json") in out


def test_shifted_images_are_scored_beside_and_counted_by_hand(folders, tmp_path):
    places = json.dumps({"cifar10.1": str(folders), "cifar10_c": str(folders / "c")})
    more = ["--metrics.corruptions=fog", "--metrics.severity=2", f"--metrics.shifted={places}"]
    assert run(folders / "run", *more, "--json", tmp_path / "found.json") == 0
    scores = json.loads((tmp_path / "found.json").read_text())["scores"]
    snapshot = read_snapshot(folders / "run" / "snapshot.safetensors")
    network = build_classifier(**snapshot.model)
    network.load_state_dict(snapshot.tensors)
    for name, images, labels in (
        ("cifar10.1", pixels(12, 1), np.arange(12) % 10),
        ("CIFAR-10-C fog 2", pixels(20, 2)[4:8], np.array([7, 1, 3, 5])),
    ):
        x = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
        right = (network.eval()(x).argmax(1).numpy() == labels).mean()
        assert scores[f"accuracy, {name} (%)"] == pytest.approx(100 * right)
        assert f"accuracy, RCI, {name} (%)" in scores


def test_corruptions_are_made_where_there_is_no_cifar10_c(folders, tmp_path):
    assert run(folders / "run", "--metrics.corruptions=contrast", "--json", tmp_path / "found.json") == 0
    assert "accuracy, contrast 3 (%)" in json.loads((tmp_path / "found.json").read_text())["scores"]


def test_fgsm_is_that_of_the_sign_of_the_gradient(folders, tmp_path):
    assert run(folders / "run", "--metrics.fgsm=[0,0.1]", "--json", tmp_path / "found.json") == 0
    scores = json.loads((tmp_path / "found.json").read_text())["scores"]
    assert scores["accuracy, FGSM 0 (%)"] == scores["accuracy (%)"]
    snapshot = read_snapshot(folders / "run" / "snapshot.safetensors")
    network = build_classifier(**snapshot.model).eval()
    network.load_state_dict(snapshot.tensors)
    test = load_images("cifar10", folders / "images", split="test")
    x = test.batch(range(20)).requires_grad_()
    torch.nn.functional.cross_entropy(network(x), test.labels, reduction="sum").backward()
    harmed = (x + 0.2 * x.grad.sign()).clamp(-1, 1)  # 0.1 of pixels in [0, 1]
    right = (network(harmed).argmax(1) == test.labels).double().mean().item()
    assert scores["accuracy, FGSM 0.1 (%)"] == pytest.approx(100 * right)


def test_attacks_take_as_many_test_images_as_asked(folders, tmp_path):
    """At radius 0 an attack's accuracy is the plain one of the images that it drew: of 4 images, a multiple of 25 %."""
    words = ["--metrics.fgsm=[0]", "--metrics.pgd=[0]", "--metrics.attack_images=4"]
    assert run(folders / "run", *words, "--json", tmp_path / "found.json") == 0
    found = json.loads((tmp_path / "found.json").read_text())
    snapshot = read_snapshot(folders / "run" / "snapshot.safetensors")
    network = build_classifier(**snapshot.model).eval()
    network.load_state_dict(snapshot.tensors)
    test = load_images("cifar10", folders / "images", split="test")
    drawn = torch.randperm(20, generator=stream(snapshot.config["seed"], "attacked images"))[:4]
    right = (network(test.batch(drawn)).argmax(1) == test.labels[drawn]).double().mean().item()
    # The name says it, so no table compares them with scores of all images.
    assert found["scores"]["accuracy, FGSM 0 on 4 (%)"] == found["scores"]["accuracy, PGD-20 0 on 4 (%)"] == 100 * right
    assert found["provenance"]["num_images"] == 20


def test_groups_of_rci_and_its_bank_mix_classes(folders):
    """Folders are read class by class, and images mixed with others of their class only would keep their label."""
    test = load_images("cifar10", folders / "images", split="test")
    labels = test.labels.sort().values
    store = replace(test, labels=labels)
    groups = [list(_groups(store, 5, rank, 2)) for rank in range(2)]
    assert sorted(number for part in groups for number, _, _ in part) == [0, 1, 2, 3]
    assert all(len(set(found.tolist())) > 1 for part in groups for _, _, found in part)
    assert torch.cat([found for part in groups for _, _, found in part]).sort().values.tolist() == labels.tolist()
    assert shuffled(test).tolist() == shuffled(store).tolist() != list(range(20))


def test_a_run_whose_cross_entropy_is_nan_goes_on_to_its_end(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tasks.classifier.scores.accuracy", lambda *_args, **_options: Accuracy(10.0, math.nan, math.nan)
    )
    recipe = TINY | {"data.root": folders / "images", "output_dir": tmp_path}
    assert train_classifier.main([f"--{key}={value}" for key, value in recipe.items()]) == 0
    assert math.isnan(read_lines(tmp_path / "metrics.jsonl")[-1]["scores"]["cross-entropy"])
    best = read_snapshot(tmp_path / "best.safetensors").scores
    assert best["accuracy (%)"] == 10
    assert "cross-entropy" not in best
    assert (tmp_path / "scores.json").exists()


def test_a_network_that_diverged_is_scored_to_the_end(folders, tmp_path):
    snapshot = read_snapshot(folders / "run" / "snapshot.safetensors")
    network = build_classifier(**snapshot.model)
    network.load_state_dict({name: 1e30 * tensor for name, tensor in snapshot.tensors.items()})  # finite weights
    about = {"kind": snapshot.kind, "model": snapshot.model, "config": snapshot.config}
    save_snapshot(tmp_path / "snapshot.safetensors", network, step=3, **about)
    with pytest.warns(UserWarning, match=r"FGSM 0.1: group 0 counts as wrong: the gradient of"):
        code = run(
            *(tmp_path / "snapshot.safetensors", f"--data.root={snapshot.config['data']['root']}"),
            *("--metrics.fgsm=[0.1]", "--json", tmp_path / "found.json"),
        )
    assert code == 0
    found = json.loads((tmp_path / "found.json").read_text())["scores"]
    assert {found[name] for name in found if name.startswith("accuracy")} == {0.0}
    assert len([name for name in found if name.startswith("accuracy")]) == 3  # plain, RCI, FGSM
    assert math.isnan(found["cross-entropy"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--metrics.fgsm=[-0.1]"], "metrics.fgsm"),
        (["--metrics.attack_images=0"], "metrics.attack_images"),
        (["--metrics.shifted={}".format('{"cifar10.1": "nowhere"}')], "nowhere"),
        (["--metrics.rci_ratio=0.001"], "rci_ratio"),
        (["--training.steps=3"], "--metrics.<key>"),
        (["--data.image_size=16"], "32"),
    ],
)
def test_a_wrong_argument_gives_one_line_that_says_what_is_allowed(folders, capsys, words, said):
    assert said in refused(capsys, "accuracy", folders / "run", *words)


def test_images_of_other_classes_are_refused_rather_than_scored_by_number(folders, tmp_path, capsys):
    """Class 0 of cat, dog and horse would count as the network's bird."""
    for part in ("train", "test"):
        for number, name in enumerate(sorted(CIFAR10_CLASSES)):
            new = "zebra" if name == "airplane" else name
            (tmp_path / part / new).mkdir(parents=True)
            for i, image in enumerate(pixels(2, number)):
                Image.fromarray(image).save(tmp_path / part / new / f"{i}.png")
    error = refused(capsys, "accuracy", folders / "run", f"--data.root={tmp_path}")
    assert (
        "trained on the classes airplane, automobile, bird, cat, deer, ..., but the data has automobile, bird" in error
    )
    assert "class 'airplane' would count as 'automobile'" in error


def test_held_out_images_that_it_may_have_been_trained_on_are_said(folders, capsys):
    words = ["accuracy", folders / "run", "--data.holdout=10", "--data.evaluate_on=validation"]
    assert evaluate.main([str(word) for word in words]) == 0
    assert "may know some of the held-out ones" in capsys.readouterr().err
    assert evaluate.main(["accuracy", str(folders / "run")]) == 0
    assert "note" not in capsys.readouterr().err


def test_a_snapshot_of_before_says_no_images_and_is_scored(folders, tmp_path):
    snapshot = read_snapshot(folders / "run" / "snapshot.safetensors")
    assert snapshot.images["classes"] == list(CIFAR10_CLASSES)
    network = build_classifier(**snapshot.model)
    network.load_state_dict(snapshot.tensors)
    about = {key: getattr(snapshot, key) for key in ("kind", "model", "config", "step")}
    save_snapshot(tmp_path / "snapshot.safetensors", network, **about)
    root = f"--data.root={folders / 'images'}"
    assert evaluate.main(["accuracy", str(tmp_path / "snapshot.safetensors"), root]) == 0
