"""train_ssl.py from the command line's point of view; what it shares with the other scripts is tested there."""

from __future__ import annotations

import json
import platform
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train_ssl
from cs_gan.data import subset
from cs_gan.runs import read_lines
from cs_gan.ssl import linear_probe
from cs_gan.training import Session, parse_config, read_snapshot
from models import build_encoder
from tasks import one_network
from tasks.encoder.recipe import SslConfig
from tests.launched import WORLD
from tests.processes import free_port, run_in_processes
from tests.scripts import ONE_NETWORK, assert_resumes, equal, final_tensors, refusal, words

pytestmark = pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")

RECIPES = Path(__file__).parents[1] / "configs" / "ssl"
ENCODER = ["--coded.blocks=encoder", "--coded.weight=0.5"]
PROJECTOR = ["--coded.blocks=projector", "--coded.weight=0.5"]
BARLOW = ["--method.loss=barlow_twins", "--model.projector_layers=3"]


TINY = ONE_NETWORK | {"model.projector_width": 16, "model.projector_dim": 8, "metrics.labels": 50, "metrics.k": 5}


def arguments(folder: Path, *more: str) -> list[str]:
    return words(folder, TINY, *more)


def run(folder: Path, *more: str) -> int:
    return train_ssl.main(arguments(folder, *more))


@pytest.mark.parametrize("loss", [[], BARLOW], ids=["simclr", "barlow_twins"])
@pytest.mark.parametrize("coded", [[], ENCODER, PROJECTOR], ids=["plain", "encoder", "projector"])
def test_every_loss_trains_plain_and_coded(tmp_path, loss, coded):
    assert run(tmp_path / "run", *loss, *coded, "--training.evaluate_every=2") == 0
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 4]
    for row in rows:
        assert row["scores"].keys() == {"linear probe (%)", "kNN (%)"}
        assert (row["primary"], row["better"]) == ("linear probe (%)", "higher")
        assert (row["provenance"]["num_images"], row["provenance"]["num_labels"]) == (1500, 50)
    log = read_lines(tmp_path / "run" / "log.jsonl")
    assert all(("coded" in row and row["coded"] > 0) == bool(coded) for row in log)
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["final"] == rows[-1]


@pytest.mark.usefixtures("pictures")
def test_the_command_and_the_hardware_are_recorded(tmp_path):
    words = arguments(tmp_path / "two words")
    assert train_ssl.main(words) == 0
    first = (tmp_path / "two words" / "config.yaml").read_text().partition("\n")[0]
    assert shlex.split(first) == ["#", "python", "train_ssl.py", *words]
    assert "train_ssl.py" in (tmp_path / "two words" / "report.html").read_text()
    for row in read_lines(tmp_path / "two words" / "metrics.jsonl"):
        assert row["provenance"]["hardware"] == f"1 x cpu ({platform.machine()}), 1 threads"


def test_coding_and_the_loss_change_what_is_trained(tmp_path):
    ends = []
    for number, more in enumerate(([], ENCODER, PROJECTOR, BARLOW[:1])):
        assert run(tmp_path / str(number), *more) == 0
        ends.append(final_tensors(tmp_path / str(number)))
    assert not any(equal(ends[0], other) for other in ends[1:])
    assert not equal(ends[1], ends[2])


def test_resumed_run_equals_undisturbed_one_to_the_bit(tmp_path):
    assert_resumes(run, tmp_path, *BARLOW, *PROJECTOR, "--data.workers=2", "--coded.every=3")


def test_a_late_process_ends_the_run_like_the_others(tmp_path, monkeypatch):
    """It used to find the scores.json that the first process had just written, and left while that one waited."""
    monkeypatch.setenv("LATE", "cs_gan.training.loop:_scored")
    printed = run_in_processes("tests.launched", WORLD, free_port(), "train_ssl", *arguments(tmp_path / "run"))
    assert printed.count("Done.") == 1
    assert printed.count("at the end: none") == WORLD


def test_the_first_process_says_what_a_network_scored(tmp_path, monkeypatch):
    """The last bits of the others' scores may differ."""

    def of_the_first(session, value):
        return value | {"scores": {"linear probe (%)": 12.5}} if isinstance(value, dict) else value

    monkeypatch.setattr(Session, "of_first", of_the_first)
    assert run(tmp_path / "run") == 0
    assert read_lines(tmp_path / "run" / "metrics.jsonl")[-1]["scores"] == {"linear probe (%)": 12.5}


def test_labels_are_used_by_the_scores_alone(tmp_path, monkeypatch):
    assert run(tmp_path / "run") == 0
    load = one_network.train_and_test

    def shuffled(**given):
        train, test = load(**given)
        return replace(train, labels=train.labels.flip(0)), test

    monkeypatch.setattr(one_network, "train_and_test", shuffled)
    assert run(tmp_path / "shuffled") == 0
    assert equal(final_tensors(tmp_path / "run"), final_tensors(tmp_path / "shuffled"))
    scores = [read_lines(tmp_path / name / "metrics.jsonl")[-1]["scores"] for name in ("run", "shuffled")]
    assert scores[0] != scores[1]


def test_the_snapshot_alone_gives_the_scored_features(tmp_path):
    assert run(tmp_path / "run", *ENCODER) == 0
    snapshot = read_snapshot(tmp_path / "run" / "snapshot.safetensors")
    assert snapshot.kind == "encoder"
    network = build_encoder(**snapshot.model)
    network.load_state_dict(snapshot.tensors)
    config = parse_config(SslConfig, arguments(tmp_path / "other"))
    train, test = one_network.train_and_test(**config.data.parts(config.seed))
    bank, encoder = subset(train, 50, seed=0), network.encoder.eval()
    with torch.no_grad():
        parts = [x for s in (bank, test) for x in (encoder(s.batch(range(len(s)))), s.labels)]
    scores = read_lines(tmp_path / "run" / "metrics.jsonl")[-1]["scores"]
    # An image in 1,500: batches of another size round otherwise.
    assert linear_probe(*parts) == pytest.approx(scores["linear probe (%)"], abs=0.14)


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--method.temperature=0", "method.temperature"),
        ("--method.off_diagonal=-1", "method.off_diagonal"),
        ("--method.loss=byol", "barlow_twins"),
        ("--views.crop_scale=0", "views.crop_scale"),
        ("--views.grey=2", "views.grey"),
        ("--data.flip=true", "views"),
        ("--data.crop=4", "views"),
        ("--model.projector_layers=0", "model.projector_layers"),
        ("--model.name=resnet21", "resnet20"),
        ("--metrics.k=0", "metrics.k"),
        ("--metrics.labels=5", "at least 10"),
        ("--training.batch_size=1", "training.batch_size"),
        ("--coded.weight=-1", "weight"),
        ("--coded.blocks=encodr", "encoder"),
        ("--coded.wieght=1", "coded.weight"),
        ("--coded.levels=1", "coded.levels"),
    ],
)
def test_what_can_not_be_run_is_refused_by_name(tmp_path, capsys, argument, named):
    blocks = [] if argument.startswith("--coded.blocks") else ENCODER[:1]
    assert named in refusal(capsys, run, tmp_path / "run", *blocks, argument)


# -- recipes ---------------------------------------------------------------------------------------


def test_recipes_are_there():
    names = {f"{data}_{end}" for data in ("digits", "cifar10") for end in ("simclr", "simclr_coded", "barlow")}
    assert {path.stem for path in RECIPES.glob("*.yaml")} == names


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_runs_a_step_dry_at_toy_size(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    toy = ["--model.width=8", "--model.projector_width=8", "--model.projector_dim=4", "--training.batch_size=4"]
    toy += ["--tracking.trackers=none", "--metrics.labels=null", "--training.epochs=null", "--training.steps=2"]
    if path.stem.startswith("cifar10"):
        pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        for number, each in enumerate(pixels):
            folder = tmp_path / "images" / ("train" if number % 2 else "test") / f"class{number // 2 % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(each).save(folder / f"{number}.png")
        toy += ["--data.name=folder", f"--data.root={tmp_path / 'images'}", "--data.image_size=32"]
    assert train_ssl.main([f"--config={path}", *toy, "--dry-run"]) == 0
    assert "Nothing was written" in capsys.readouterr().out
    assert not (tmp_path / "samples" / path.stem / "log.jsonl").exists()


def test_coding_is_held_at_its_share_of_the_gradient(tmp_path):
    held = ["--coded.blocks=encoder", "--coded.share=0.1", "--coded.share_every=1", "--training.steps=6"]
    assert run(tmp_path / "run", *held) == 0
    rows = read_lines(tmp_path / "run" / "log.jsonl")
    assert rows[-1]["coded_share"] == pytest.approx(0.1, rel=0.5)
    assert rows[-1]["coded_weight"] > 0
