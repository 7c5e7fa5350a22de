"""evaluate.py accuracy of an encoder: as at the end of training; the other commands refuse it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import evaluate
from cs_gan.runs import read_lines
from cs_gan.training import read_snapshot, save_snapshot
from models import build_encoder
from tasks.robustness import study as attack_study
from tests.evaluated import refused
from tests.test_train_ssl import ENCODER, run

pytestmark = pytest.mark.usefixtures("signal_handlers_as_before")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("features") / "run"
    assert run(path, *ENCODER) == 0
    return path


def evaluated(*words: object) -> int:
    return evaluate.main(["accuracy", *map(str, words)])


def test_scores_are_those_of_the_end_of_training(folder):
    assert evaluated(folder) == 0
    found = json.loads((folder / "accuracy.json").read_text())
    trained = read_lines(folder / "metrics.jsonl")[-1]
    assert found["scores"] == trained["scores"]
    assert [found[key] for key in ("primary", "better")] == ["linear probe (%)", "higher"]
    same = ("reference", "num_images", "num_labels", "k", "step")
    assert [found["provenance"][key] for key in same] == [trained["provenance"][key] for key in same]


def test_provenance_names_the_scored_snapshot_by_its_digest(folder):
    assert evaluated(folder) == 0
    provenance = json.loads((folder / "accuracy.json").read_text())["provenance"]
    content = (folder / "snapshot.safetensors").read_bytes()
    assert provenance["snapshot_sha256"] == hashlib.sha256(content).hexdigest()


def test_scores_their_labels_and_the_file_are_printed(folder, capsys):
    assert evaluated(folder) == 0
    printed = capsys.readouterr().out
    assert "kNN (%)" in printed
    assert "50 labels" in printed
    assert str(folder / "accuracy.json") in printed


def test_what_the_command_line_says_changes_the_scores_and_is_recorded(folder, tmp_path):
    assert evaluated(folder, "--metrics.labels=20", "--metrics.k=30", "--json", tmp_path / "few.json") == 0
    few = json.loads((tmp_path / "few.json").read_text())
    assert [few["provenance"][key] for key in ("num_labels", "k")] == [20, 20]
    assert few["scores"] != read_lines(folder / "metrics.jsonl")[-1]["scores"]


def test_best_is_scored_as_it_was(folder, tmp_path):
    assert evaluated(folder, "--best", "--json", tmp_path / "best.json") == 0
    best = read_snapshot(folder / "best.safetensors")
    found = json.loads((tmp_path / "best.json").read_text())
    assert found["scores"] == best.scores
    assert found["provenance"]["step"] == best.step


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--metrics.k=0", "metrics.k"),
        ("--metrics.rci_ratio=2", "rci_ratio"),
        ("--training.steps=3", "--metrics.<key>"),
        ("--data.image_size=16", "8, 8"),
        ("--metrics.labels=3", "at least 10"),
    ],
)
def test_a_wrong_argument_gives_one_line_that_says_what_is_allowed(folder, capsys, word, said):
    assert said in refused(capsys, "accuracy", folder, word)


@pytest.mark.parametrize("command", ["sample", "interpolate", "score", "nearest", "attack"])
def test_other_commands_say_which_one_takes_an_encoder(folder, capsys, command):
    error = refused(capsys, command, folder)
    assert "kind 'encoder'" in error
    assert "evaluate.py accuracy" in error


def test_a_study_of_classifiers_refuses_an_encoder_by_its_kind(folder, tmp_path, capsys):
    study = tmp_path / "study"
    (study / "runs").mkdir(parents=True)
    (study / "runs" / "one").symlink_to(folder)
    assert attack_study.main([str(study), "--images=10"]) == 2
    assert "no snapshot of a classifier: it holds a network of kind 'encoder'" in capsys.readouterr().err


def test_a_snapshot_whose_weights_do_not_fit_is_named(folder, tmp_path, capsys):
    told = read_snapshot(folder / "snapshot.safetensors")
    other = build_encoder(**told.model | {"projector_dim": 3})
    about = {"kind": "encoder", "model": told.model, "config": told.config, "step": 1}
    save_snapshot(tmp_path / "other.safetensors", other, **about)
    assert "no snapshot of an encoder" in refused(capsys, "accuracy", tmp_path / "other.safetensors")
