"""Model cards: what a run folder tells, and nothing that it doesn't."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from cs_gan.data import DATASET_NAMES
from cs_gan.training import as_plain, parse_config, save_snapshot
from models import PretrainedGenerator, build_gan
from models.card import DATA
from tasks.gan.recipe import GanConfig

MODEL = {"name": "dcgan16", "channels": 1, "width": 4, "latent_dim": 8}
LITE0 = {"FD, EfficientNet-Lite0": 41.25, "IS, EfficientNet-Lite0": 2.5, "IS, EfficientNet-Lite0 std": 0.125}
SHA = "ab" * 32


def row(step: int, scores: dict[str, float], **changed: Any) -> dict[str, Any]:
    provenance = {
        "extractor": "efficientnet_lite0",
        "weights": "/home/someone/weights.pt",
        "weights_sha256": SHA,
        "num_samples": 1500,
        "num_reference": 700,
        "seed": 3,
        "step": step,
        "reference": {"data": "cifar10", "split": "test", "preparation": "none", "fingerprint": "f00d"},
        "notes": ["biased: fewer samples than features"],
    }
    return {"step": step, "scores": scores, "primary": next(iter(scores)), "provenance": provenance | changed}


def config(**data: Any) -> dict[str, Any]:
    plain = as_plain(GanConfig(seed=5, output_dir="/home/someone/samples/run"))
    plain["data"] |= {"name": "cifar10", "root": "/home/someone/cifar10", "limit": 5000} | data
    plain["metrics"]["weights"] = "/home/someone/weights.pt"
    plain["coded"]["critic"] |= {"blocks": ["blocks.1"], "weight": 0.25}
    return plain


def write(path: Path, step: int = 70, **changed: Any) -> None:
    generator, _ = build_gan(**MODEL)
    about = {"kind": "gan", "model": MODEL, "config": config(), "step": step}
    save_snapshot(path, generator, **about | changed)


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run whose final scores are at step 70 and whose best were at 50."""
    folder = tmp_path / "run"
    folder.mkdir()
    write(folder / "snapshot.safetensors")
    write(folder / "best.safetensors", 50, scores={"FD, EfficientNet-Lite0": 99.0})
    curve = [row(step, {"FD, EfficientNet-Lite0": 100.0 + step}) for step in (0, 50, 70)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
    full = {"final": row(70, LITE0), "best": row(50, {"FD, EfficientNet-Lite0": 39.5})}
    (folder / "scores.json").write_text(json.dumps(full))
    return folder


def card_of(snapshot: Path, **options: Any) -> ModelCard:
    folder = snapshot.parent / "saved"
    PretrainedGenerator.from_snapshot(snapshot).save_pretrained(folder, **options)
    return ModelCard.load(folder / "README.md")


def results(card: ModelCard) -> dict[str, float]:
    return {each.metric_name: each.metric_value for each in card.data.eval_results or []}


def test_card_tells_network_data_coding_licence_and_citation(run):
    card = card_of(run / "snapshot.safetensors")
    parameters = sum(p.numel() for p in build_gan(**MODEL)[0].parameters())
    for said in (
        "dcgan16 trained on cifar10",
        "16x16 grey",
        f"| parameters | {parameters:,} |",
        "CIFAR-10, 5,000 of its images",
        "critic: `blocks.1`, weight 0.25; N/K from 1.0 to 1.5",
        "70 steps of 64 images",
        "cs-gan 0.",
        "its authors state no licence",
        "2510.00253",
        "MIT",
    ):
        assert said in card.text, said
    data = card.data.to_dict()
    assert data["library_name"] == "cs-gan"
    assert data["license"] == "mit"
    assert data["datasets"] == ["uoft-cs/cifar10"]
    assert {"gan", "coded-smoothing", "wgan-gp"} <= set(data["tags"])


def test_scores_are_those_in_full_with_their_provenance(run):
    card = card_of(run / "snapshot.safetensors")
    assert results(card) == {name: value for name, value in LITE0.items() if not name.endswith(" std")}
    told = card.data.eval_results[0]
    assert told.metric_type == "fd-efficientnet-lite0"
    assert told.dataset_split == "test"
    assert told.metric_args == {
        "extractor": "efficientnet_lite0",
        "weights_sha256": SHA,
        "num_samples": 1500,
        "num_reference": 700,
        "seed": 3,
        "step": 70,
    }
    for said in (
        "| FD, EfficientNet-Lite0 | 41.25 |",
        SHA,
        "1500 generated",
        "700 of cifar10",
        "split `test`",
        "step 70",
    ):
        assert said in card.text, said
    assert "| IS, EfficientNet-Lite0 std | 0.125 |" in card.text
    assert "biased: fewer samples" in card.text


def test_fid_is_what_inceptions_distance_alone_is_called(run):
    (run / "scores.json").write_text(json.dumps({"final": row(70, {"FID": 12.5, "KID": 0.25}, extractor="inception")}))
    assert [each.metric_type for each in card_of(run / "snapshot.safetensors").data.eval_results] == ["fid", "kid"]


def test_scores_belong_to_the_snapshots_own_step(run):
    assert results(card_of(run / "best.safetensors")) == {"FD, EfficientNet-Lite0": 39.5}
    (run / "scores.json").unlink()
    (run / "saved" / "README.md").unlink()
    assert results(card_of(run / "best.safetensors")) == {"FD, EfficientNet-Lite0": 150.0}
    write(run / "snapshot.safetensors", 60)
    (run / "saved" / "README.md").unlink()
    card = card_of(run / "snapshot.safetensors")
    assert "No scores of this network are known" in card.text
    assert "model-index" not in card.data.to_dict()


def test_what_evaluate_scored_is_told_if_it_was_this_file(run):
    own = hashlib.sha256((run / "snapshot.safetensors").read_bytes()).hexdigest()
    (run / "score-a.json").write_text(json.dumps(row(70, {"FID": 30.5}, snapshot_sha256=own)))
    (run / "score-b.json").write_text(json.dumps(row(70, {"FID": 1.5}, snapshot_sha256="another")))
    (run / "score-c.json").write_text(json.dumps(row(70, {"FID": 2.5})))
    told = [each.metric_value for each in card_of(run / "snapshot.safetensors").data.eval_results]
    assert told == [41.25, 2.5, 30.5]


def test_a_snapshot_without_its_run_says_that_no_scores_are_known(tmp_path):
    write(tmp_path / "alone.safetensors")
    card = card_of(tmp_path / "alone.safetensors")
    assert "No scores of this network are known" in card.text
    assert "model-index" not in card.data.to_dict()
    assert "70 steps" in card.text


def test_scores_without_provenance_are_told_as_such_and_kept_from_the_index(tmp_path):
    write(tmp_path / "best.safetensors", scores={"FD, EfficientNet-Lite0": 99.0})
    card = card_of(tmp_path / "best.safetensors")
    assert "| FD, EfficientNet-Lite0 | 99 |" in card.text
    assert "computed from is not recorded" in card.text
    assert "model-index" not in card.data.to_dict()


def test_a_network_that_comes_from_no_snapshot_has_a_card(tmp_path):
    PretrainedGenerator(**MODEL).save_pretrained(tmp_path / "saved")
    text = (tmp_path / "saved" / "README.md").read_text()
    for said in ("No scores", "The training recipe is not recorded", "The training data is not recorded"):
        assert said in text


@pytest.mark.parametrize("torn", ['{"final": {"step": 70, "sco', "[]", '{"final": {"step": 70, "scores": 3}}', "\x80"])
def test_torn_files_beside_are_left_out(run, torn):
    (run / "scores.json").write_text(torn)
    (run / "score-x.json").write_text(torn)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 70, "scores": {"FD')
    card = card_of(run / "snapshot.safetensors")
    assert results(card) == {"FD, EfficientNet-Lite0": 170.0}


def test_no_place_of_the_machine_is_in_the_card(run):
    text = str(card_of(run / "snapshot.safetensors"))
    assert "/home/someone" not in text
    assert "--data.root='<your path>' --metrics.weights=" in text


def test_the_recipe_in_the_card_is_the_runs(run, tmp_path):
    text = card_of(run / "snapshot.safetensors").text
    (tmp_path / "recipe.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    found = as_plain(parse_config(GanConfig, [f"--config={tmp_path / 'recipe.yaml'}"]))
    expected = config(root=None)
    expected["metrics"]["weights"] = None
    for key in ("output_dir", "tracking"):
        del found[key], expected[key]
    assert found == yaml.safe_load(yaml.safe_dump(expected))


def test_the_code_in_the_card_runs(run, monkeypatch):
    text = card_of(run / "snapshot.safetensors").text
    monkeypatch.chdir(run)
    code, names = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], {}
    assert '"user/name"' in code
    exec(code.replace("user/name", "saved"), names)
    again = PretrainedGenerator.from_snapshot(run / "snapshot.safetensors").sample(64, seed=0)
    assert torch.equal(names["images"], again)


def test_every_data_set_has_a_licence():
    assert DATA.keys() == set(DATASET_NAMES) - {"folder"}


def test_data_of_ones_own_is_not_named_after_a_public_set(tmp_path):
    write(tmp_path / "s.safetensors", config=config(name="folder", root="/home/someone/cats"))
    card = card_of(tmp_path / "s.safetensors")
    assert card.data.datasets is None
    assert "licence is not recorded" in card.text
    assert "cats" not in str(card)


def test_another_loss_is_no_wgan_gp(tmp_path):
    plain = config()
    plain["training"]["loss"] = "hinge"
    write(tmp_path / "s.safetensors", config=plain)
    card = card_of(tmp_path / "s.safetensors")
    assert "wgan-gp" not in card.data.tags
    assert "loss hinge" in card.text
    assert "wgan-gp" in PretrainedGenerator._hub_mixin_info.model_card_data.tags  # that of all generators
