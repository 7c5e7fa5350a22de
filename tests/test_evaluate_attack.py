"""evaluate.py attack, end to end on a tiny classifier of digits, and its page."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cs_gan import RandomizedCodedInference
from cs_gan.attacks import THREATS as THREATS_OF_ALL
from cs_gan.attacks import Budget, evaluate_threat, find_threat
from cs_gan.data import load_images, train_and_test
from cs_gan.errors import DataError
from cs_gan.randomness import stream
from cs_gan.report import save_robustness
from cs_gan.training import as_plain, read_snapshot, save_snapshot
from models import build_classifier, build_gan
from tasks.classifier.recipe import ClassifierConfig
from tests.report.conftest import text_of
from tests.test_evaluate import refused, run

MODEL = {"name": "mlp", "num_classes": 10, "channels": 1, "image_size": 8, "width": 16}
FEW = ["--images=24", "--group=10", "--targets=2", "--steps=2", "--draws=2", "--queries=5", "--eps=0,16/255"]
THREATS = "--threats=oblivious,eot-1,eot-2,neighbours clean and fixed"


def config() -> ClassifierConfig:
    made = ClassifierConfig(output_dir="samples/run")
    made.data.name, made.data.image_size, made.data.holdout = "digits", 8, 700
    return made


def write_classifier(path: Path, steps: int, seed: int = 0, **model: object) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_classifier(**MODEL | model)
    if steps:
        store, _ = train_and_test(**config().data.parts(0))
        images, labels = store.batch(range(len(store))), store.labels
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
    about = {"kind": "classifier", "model": MODEL | model, "config": as_plain(config()), "step": steps}
    save_snapshot(path, network, **about)


def network_of(path: Path) -> nn.Module:
    network = build_classifier(**MODEL)
    network.load_state_dict(read_snapshot(path).tensors)
    return network.eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "snapshot.safetensors"
    write_classifier(path, 100)
    return path


@pytest.fixture
def folder(tmp_path, trained):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "snapshot.safetensors").write_bytes(trained.read_bytes())
    return tmp_path / "run"


def shown(page: Path) -> str:
    return text_of(page.read_text())


def result_of(folder: Path) -> dict:
    return json.loads((folder / "robustness" / "robustness.json").read_text())


# -- end to end ------------------------------------------------------------------------------------


def test_attack_writes_rows_gates_verdict_and_provenance(folder, tmp_path, capsys):
    write_classifier(tmp_path / "other.safetensors", 100, seed=1)
    other = [f"--surrogate={tmp_path / 'other.safetensors'}", f"--plain={tmp_path / 'other.safetensors'}"]
    assert run("attack", folder, *FEW, *other, THREATS + ",transfer,square") == 0
    out, result = capsys.readouterr().out, result_of(folder)
    rows = result["rows"]
    threats = {(row["threat"], row["eps_given"]) for row in rows if row["role"] == "threat"}
    names = ["oblivious", "eot-1", "eot-2", "neighbours clean and fixed", "transfer", "square"]
    assert threats == {(name, eps) for name in names for eps in ("0", "16/255")}
    assert {row["network"] for row in rows if row["role"] == "baseline"} == {"without RCI", "plain network"}
    # pixels in [0, 1] on the command line, the images' [-1, 1] in the rows
    assert {row["eps"] for row in rows if row["eps_given"] == "16/255"} == {32 / 255}
    assert {row["n"] for row in rows if row["threat"] == "neighbours clean and fixed"} == {2}
    assert any(row["attack"] == "fgsm" for row in rows)
    assert max(row["eps_pixels"] for row in rows) == 0.5
    assert len(result["gates"]) == 8
    assert result["claim"] == all(gate["passed"] for gate in result["gates"])
    assert next(gate["passed"] for gate in result["gates"] if gate["name"].startswith("batch sizes"))
    assert [row["network"] for row in result["networks"]] == ["plain network", "without RCI", "RCI"]
    about = result["provenance"]
    assert (about["images"], about["seed"], about["budget"]["steps"], about["rci"]["group"]) == (24, 0, 2, 10)
    assert len(about["snapshot_sha256"]) == len(about["surrogate_sha256"]) == 64
    assert about["versions"]["torch"] == torch.__version__
    with (folder / "robustness" / "robustness.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(line["mean"]) for line in table] == [row["mean"] for row in rows]
    assert "left" in out  # the time that it takes
    page = folder / "robustness" / "robustness.html"
    assert str(page) in out
    assert "robustness claim" in shown(page) or "all gates passed" in shown(page)
    assert 'src="http' not in page.read_text()
    assert all(name in shown(page) for name in [*names, "plain network", "Cost of RCI"])


def test_rows_are_those_of_the_library_on_the_test_images_of_training(folder, trained):
    assert run("attack", folder, *FEW, "--images=3000", "--threats=oblivious", "--eps=16/255") == 0
    result = result_of(folder)
    (row,) = (row for row in result["rows"] if row["network"] == "without RCI")
    store = load_images("digits", image_size=8, split="train")
    _, test = train_and_test(**config().data.parts(0))
    assert len(test) == row["n"] == result["provenance"]["images"] == 700
    assert result["provenance"]["fingerprint"] == test.fingerprint != store.fingerprint
    network = network_of(trained)
    chosen = torch.randperm(700, generator=stream(0, "attacked images"))
    images, labels = test.batch(chosen), test.labels[chosen]
    clean = (network(images).argmax(1) == labels).double().mean().item()
    assert result["defence"]["plain"]["value"] == pytest.approx(clean)
    assert clean > 0.8
    expected = evaluate_threat(
        find_threat("eot-1"), network, images, labels, Budget(32 / 255, steps=2), group_size=10, draws=1
    )
    assert row["mean"] == pytest.approx(expected.mean.value)
    assert row["mean"] < clean


def test_rci_codes_the_blocks_that_are_asked_for(folder, trained):
    assert run("attack", folder, *FEW, "--threats=eot-1", "--eps=64/255", "--images=200", "--blocks=blocks.2,head") == 0
    result = result_of(folder)
    assert result["provenance"]["rci"]["blocks"] == ["blocks.2", "head"]
    (row,) = (row for row in result["rows"] if (row["network"], row["role"], row["attack"]) == ("RCI", "threat", "pgd"))
    network, (train, test) = network_of(trained), train_and_test(**config().data.parts(0))
    chosen = torch.randperm(len(test), generator=stream(0, "attacked images"))[:200]

    def left(*blocks: str) -> float:
        defence = RandomizedCodedInference(network, 1.5, blocks=blocks, reference=train.batch(range(9)))
        attacked = (test.batch(chosen), test.labels[chosen], Budget(128 / 255, steps=2))
        found = evaluate_threat("eot-1", defence, *attacked, group_size=10, draws=2).mean.value
        defence.coded.detach()
        return found

    assert row["mean"] == left("blocks.2", "head") != left("")


def test_groups_too_small_for_a_gate_leave_it_unjudged(folder, capsys):
    assert run("attack", folder, *FEW, "--threats=eot-1", "--group=2", "--norm=l2", "--eps=0.5") == 0
    result = result_of(folder)
    (gate,) = (gate for gate in result["gates"] if gate["name"].startswith("batch sizes"))
    assert not gate["passed"]
    assert "could not be judged" in gate["evidence"]
    assert not result["claim"]
    assert "no robustness claim" in shown(folder / "robustness" / "robustness.html")
    assert max(row["eps_pixels"] for row in result["rows"]) == 4  # sqrt(8 * 8) / 2


def test_all_threats_that_can_be_run_are_the_default(folder, capsys):
    assert run("attack", folder, "--images=12", "--group=12", *FEW[2:5], "--eps=0") == 0
    threats = result_of(folder)["threats"]
    assert threats.keys() == THREATS_OF_ALL.keys() - {"transfer", "neighbours clean and fresh"}
    assert all(word in capsys.readouterr().out for word in ["'transfer' is left out"])
    assert "is left out" in shown(folder / "robustness" / "robustness.html")


# -- resume ----------------------------------------------------------------------------------------


def test_a_kill_costs_no_finished_row(folder, capsys, monkeypatch):
    command = ["attack", folder, *FEW, THREATS]
    assert run(*command) == 0
    whole, lines = result_of(folder), (folder / "robustness" / "robustness.jsonl").read_bytes().split(b"\n")
    (folder / "robustness" / "robustness.jsonl").write_bytes(b"\n".join([*lines[:6], lines[6][:20]]))
    capsys.readouterr()
    assert run(*command) == 0
    assert "5 of 13 rows are there already" in capsys.readouterr().out
    again = result_of(folder)
    assert untimed(again["rows"]) == untimed(whole["rows"])
    assert again["rows"][:5] == whole["rows"][:5]  # the seconds too, so they were not computed again
    assert again["gates"] == whole["gates"]
    monkeypatch.setattr("tasks.robustness.setup.evaluate_threat", None)  # everything is there
    assert run(*command) == 0
    assert result_of(folder) == again


@pytest.mark.parametrize(
    "change", ["weights", "--seed=1", "--ratio=2", "--draws=3", "--steps=3", "--group=8", "--images=20"]
)
def test_rows_of_another_provenance_are_not_taken(folder, capsys, change):
    few = [*FEW, "--threats=oblivious", "--eps=0"]
    assert run("attack", folder, *few) == 0
    if change == "weights":
        write_classifier(folder / "snapshot.safetensors", 100, seed=1)
    assert run("attack", folder, *few, *([change] if change != "weights" else [])) == 0
    assert "there already" not in capsys.readouterr().out
    assert run("attack", folder, *few) == 0
    assert "there already" in capsys.readouterr().out


def untimed(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--eps=-1/255"], "below 0"),
        (["--eps=nan"], "8/255"),
        (["--eps=1/0"], "8/255"),
        (["--eps=,"], "give eps"),
        (["--threats=oblivous"], "Did you mean oblivious?"),
        (["--threats=transfer"], "--surrogate"),
        (["--threats=neighbours clean and fresh", "--group=24"], "more --images"),
        (["--loss=hinge"], "margin"),
        (["--norm=l1"], "linf"),
        (["--ratio=0.01"], "ratio"),
        (["--blocks=blocks.9"], "no block 'blocks.9'"),
        (["--images=0"], "above 0"),
        (["--training.steps=3"], "--data.<key>"),
        (["--data.image_size=16"], "8"),
        (["--data.holdout=0"], "hold some out"),
        (["--device=teapot"], "teapot"),
    ],
)
def test_wrong_words_are_one_line(folder, capsys, words, said):
    assert said in refused(capsys, "attack", folder, *FEW, *words)
    assert not (folder / "robustness" / "robustness.html").exists()


def test_each_kind_of_snapshot_names_its_commands(folder, tmp_path, capsys):
    model = {"name": "dcgan16", "channels": 1, "width": 4, "latent_dim": 8}
    generator, _ = build_gan(**model)
    save_snapshot(tmp_path / "gan.safetensors", generator, kind="gan", model=model, config={}, step=1)
    assert "evaluate.py sample" in refused(capsys, "attack", tmp_path / "gan.safetensors")
    assert "evaluate.py attack" in refused(capsys, "sample", folder)
    assert "'gan'" in refused(capsys, "attack", folder, f"--surrogate={tmp_path / 'gan.safetensors'}")


def test_other_networks_must_fit(folder, tmp_path, capsys):
    write_classifier(tmp_path / "five.safetensors", 0, num_classes=5)
    assert "5 classes" in refused(capsys, "attack", folder, f"--plain={tmp_path / 'five.safetensors'}")
    save_snapshot(
        tmp_path / "odd.safetensors", torch.nn.Linear(2, 2), kind="classifier", model=MODEL, config={}, step=1
    )
    assert "odd.safetensors is no snapshot" in refused(capsys, "attack", tmp_path / "odd.safetensors")


def test_help_says_which_units_eps_has(capsys):
    with pytest.raises(SystemExit):
        run("attack", "--help")
    assert "pixels in [0, 1]" in " ".join(capsys.readouterr().out.split())


# -- the page --------------------------------------------------------------------------------------


def planted(**changed: object) -> dict:
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    about = {"threat": "eot-1", "kind": "white-box", "attack": "pgd", "loss": "margin", "steps": 2, "restarts": 1}
    about |= {"eot": 1, "norm": "linf", "n": 24, "draws": 2, "group_size": 8, "batch_sizes": [8], "seconds": 0.5}
    about |= {f"{name}{end}": 0.5 for name in ("mean", "worst", "majority") for end in ("", "_low", "_high")}
    about |= {"forward_passes": 12, "network": "RCI", "role": "threat", "eps": 16 / 255}
    rows = [about | {"eps_given": "0", "eps_pixels": 0.0}, about | {"eps_given": "8/255", "eps_pixels": 8 / 255}]
    cost = {"ratio": 1.5, "votes": 1, "group_size": 8, "passes_per_image": 1.5, "plain_seconds": 1e-3}
    cost |= {"defended_seconds": 2e-3, "slowdown": 2.0, "plain": interval}
    cost["defended"] = {"mean": interval, "worst": interval, "majority": interval, "n": 24, "draws": 2}
    network = {"network": "RCI", "trained": "ERM", "snapshot": "a/run/snapshot.safetensors", "accuracy": 0.5}
    gates = [{"name": "first gate", "passed": True, "evidence": "fine"}]
    made = {"claim": True, "sentence": "", "gates": gates, "networks": [network], "defence": cost, "rows": rows}
    made |= {"threats": {}, "notes": [], "provenance": {"snapshot": "a/run/snapshot.safetensors"}}
    return made | changed


def test_page_says_that_nothing_is_claimed_and_why(tmp_path):
    gates = [
        {"name": "first gate", "passed": True, "evidence": "fine"},
        {"name": "white-box beats black-box", "passed": False, "evidence": "square leaves 3 %, eot-1 20 %."},
    ]
    save_robustness(tmp_path / "page.html", planted(claim=False, gates=gates))
    text = shown(tmp_path / "page.html")
    assert "run: no robustness claim" in text
    assert "because 1 of 2 sanity gates failed" in text
    assert text.count("square leaves 3 %, eot-1 20 %.") == 2  # in the headline and in the table
    save_robustness(tmp_path / "page.html", planted())
    assert "no robustness claim" not in shown(tmp_path / "page.html").lower()


def test_page_draws_means_worsts_and_majorities_with_their_bands(tmp_path):
    save_robustness(tmp_path / "page.html", planted())
    page = (tmp_path / "page.html").read_text()
    assert page.count('<polygon class="band') == 4  # of the networks side by side, and of a threat's three lines
    assert "50.0 % [50.0, 50.0]" in page
    assert "eps in 1/255 8: 50" in page


def test_page_escapes_what_it_shows(tmp_path):
    evil = "<script>alert(1)</script>"
    row = planted()["rows"][0] | {"threat": evil, "eps_given": evil}
    gates = [{"name": evil, "passed": False, "evidence": evil}]
    made = planted(rows=[row], gates=gates, claim=False, notes=[evil], provenance={"snapshot": f"{evil}/a", evil: evil})
    save_robustness(tmp_path / "page.html", made)
    assert "<script" not in (tmp_path / "page.html").read_text()


def test_page_without_rows_or_parts(tmp_path):
    save_robustness(tmp_path / "page.html", planted(rows=[]))
    with pytest.raises(DataError, match="lack gates, rows"):
        save_robustness(tmp_path / "b.html", {k: v for k, v in planted().items() if k not in ("gates", "rows")})
