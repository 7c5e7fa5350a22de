"""The study pack classifier_5k: each file plans, each of its arms is a recipe, and one of them runs at toy size."""

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from cs_gan.study import read_study
from cs_gan.study.plan import list_points, plan
from cs_gan.training import parse_config
from models import build_classifier
from tasks.classifier.recipe import ClassifierConfig
from tasks.robustness import study as attack_study

ROOT = Path(__file__).parents[2]
FILES = [ROOT / f"configs/studies/classifier_5k{end}.yaml" for end in ("", "_cpu", "_tune")]
SMALL = (
    "classifier_1k",
    "classifier_1k_new",
    "classifier_1k_tune",
    "classifier_5k_resnet",
    "cifar100_2k",
    "tiny_imagenet_2k",
)
RESNET = [ROOT / f"configs/studies/{name}.yaml" for name in SMALL]
TOY = {
    "data": {"name": "digits", "holdout": 1700, "limit": 40, "flip": False, "crop": 0},
    "model.width": 4,
    "training": {"steps": 2, "batch_size": 8, "learning_rate": 0.01, "evaluate_every": 0, "checkpoint_every": 0},
    "metrics": {"rci_ratio": None},
}


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@cache
def blocks(name):
    network = build_classifier(name, 10, image_size=32, channels=3)
    return {block for block, _ in network.named_modules()}


@pytest.mark.parametrize("path", [*FILES, *RESNET], ids=lambda path: path.stem)
def test_every_point_is_a_recipe_and_its_blocks_exist(path, tmp_path):
    study = read_study(path)
    for run in plan(replace(study, seeds=study.seeds[:1]), tmp_path):
        config = parse_config(ClassifierConfig, run.command[2:])
        assert set(config.method.coded.blocks) <= blocks(config.model.name)


def test_tuning_gives_every_method_three_strengths_and_seeds_of_its_own():
    tune, final = (read_study(ROOT / f"configs/studies/classifier_5k{end}.yaml") for end in ("_tune", ""))
    counts = {case.name: len(list_points(replace(tune, cases=[case]))) for case in tune.cases}
    assert counts.pop("ERM") == 1
    assert set(counts.values()) == {3}
    assert {case.name for case in final.cases} == {"ERM", *counts}
    assert not set(tune.seeds) & set(final.seeds)
    assert tune.fixed["data.evaluate_on"] == "validation"
    assert "data.evaluate_on" not in final.fixed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_one_coded_point_runs_on_digits_and_is_attacked(path, bench, in_this_process):
    content = yaml.safe_load(path.read_text())
    name, case = next((n, c) for n, c in content["cases"].items() if n.startswith("coded inner"))
    case = {key: value[-1:] if key == "method.coded.mu" else value for key, value in case.items()}
    fixed = {"model.name": content["fixed"]["model.name"]} | TOY
    assert bench.study(script="train_classifier.py", seeds=1, fixed=fixed, cases={name: case}, plots=None) == 0
    assert 0 <= float(bench.table[0]["accuracy (%)"]) <= 100
    words = [str(bench.folder), "--images=20", "--steps=1", "--device=cpu"]
    assert attack_study.main(words) == 0
    table = (bench.folder / "attacks.csv").read_text()
    (row,) = csv.DictReader(table.splitlines())
    assert row["images"] == "20"
    scores = [float(row[key]) for key in ("clean", "PGD", "APGD-CE", "APGD-DLR", "all")]
    assert min(scores) == scores[-1]
    ledger = (bench.folder / "attacks.jsonl").read_text()
    assert attack_study.main(words) == 0  # nothing is computed twice
    assert (bench.folder / "attacks.jsonl").read_text() == ledger
    assert (bench.folder / "attacks.csv").read_text() == table


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert attack_study.main([str(tmp_path)]) == 2
    assert "no finished run" in capsys.readouterr().err


def test_an_image_counts_as_right_only_under_every_attack(monkeypatch):
    """Attacks that each flip one image: one row each, and nothing of the two is left in the union."""
    network = torch.nn.Flatten()
    images, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), torch.zeros(3, dtype=torch.long)

    def flipping(which):
        def attack(_network, x, _y, **_options):
            moved = x.clone()
            moved[which] = x[which].flip(0)
            return moved

        return attack

    monkeypatch.setattr(attack_study, "pgd", flipping(0))
    monkeypatch.setattr(attack_study, "apgd", flipping(1))
    right = attack_study.attack_unit(network, images, labels, 0, 0.1, 1)
    assert right["clean"].tolist() == [True, True, True]
    assert right["PGD"].tolist() == [False, True, True]
    assert right["APGD-CE"].tolist() == right["APGD-DLR"].tolist() == [True, False, True]
