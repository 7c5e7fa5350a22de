"""evaluate.py attack, end to end on a tiny classifier of digits, and its page."""

from __future__ import annotations

import csv
import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
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
from tests.evaluated import refused, run
from tests.report.conftest import text_of

MODEL = {"name": "mlp", "num_classes": 10, "channels": 1, "image_size": 8, "width": 16}
FEW = ["--images=24", "--group=10", "--targets=2", "--steps=2", "--draws=2", "--queries=5", "--eps=0,16/255"]
THREATS = "--threats=oblivious,eot-1,eot-2,neighbours clean and fixed"


def config() -> ClassifierConfig:
    recipe = ClassifierConfig(output_dir="samples/run")
    recipe.data.name, recipe.data.image_size, recipe.data.holdout = "digits", 8, 700
    return recipe


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


@dataclass(frozen=True)
class Attacked:
    """One evaluation with other networks: its folder, its ``robustness.json``, and what the command printed."""

    folder: Path
    result: dict
    printed: str


@pytest.fixture(scope="module")
def attacked(tmp_path_factory, trained) -> Attacked:
    folder = tmp_path_factory.mktemp("attacked") / "run"
    folder.mkdir()
    (folder / "snapshot.safetensors").write_bytes(trained.read_bytes())
    other = folder.parent / "other.safetensors"
    write_classifier(other, 100, seed=1)
    with redirect_stdout(io.StringIO()) as printed:
        words = [*FEW, f"--surrogate={other}", f"--plain={other}", THREATS + ",transfer,square"]
        assert run("attack", folder, *words) == 0
    return Attacked(folder, result_of(folder), printed.getvalue())


ATTACKED_THREATS = ["oblivious", "eot-1", "eot-2", "neighbours clean and fixed", "transfer", "square"]


def test_every_threat_has_a_row_at_every_eps(attacked):
    rows = [row for row in attacked.result["rows"] if row["role"] == "threat"]
    expected = {(name, eps) for name in ATTACKED_THREATS for eps in ("0", "16/255")}
    assert {(row["threat"], row["eps_given"]) for row in rows} == expected


def test_threats_against_one_image_attack_as_many_as_targets(attacked):
    rows = [row for row in attacked.result["rows"] if row["threat"] == "neighbours clean and fixed"]
    assert {row["n"] for row in rows} == {2}


def test_eps_is_for_pixels_from_0_to_1_on_the_command_line_and_from_minus_1_to_1_in_the_rows(attacked):
    assert {row["eps"] for row in attacked.result["rows"] if row["eps_given"] == "16/255"} == {32 / 255}


def test_undefended_networks_are_attacked_and_named_for_comparison(attacked):
    baselines = {row["network"] for row in attacked.result["rows"] if row["role"] == "baseline"}
    assert baselines == {"without RCI", "plain network"}
    assert [row["network"] for row in attacked.result["networks"]] == ["plain network", "without RCI", "RCI"]


def test_the_rows_that_sanity_checks_need_are_there(attacked):
    rows = [row for row in attacked.result["rows"] if row["role"] == "sanity check"]
    assert any(row["attack"] == "fgsm" for row in rows)
    assert max(row["eps_pixels"] for row in rows) == 0.5


def test_a_claim_needs_all_eight_sanity_checks(attacked):
    checks = attacked.result["sanity_checks"]
    assert len(checks) == 8
    assert attacked.result["claim"] == all(check["passed"] for check in checks)
    assert next(check["passed"] for check in checks if check["name"].startswith("batch sizes"))


def test_provenance_holds_options_digests_and_versions(attacked):
    about = attacked.result["provenance"]
    assert (about["images"], about["seed"], about["budget"]["steps"], about["rci"]["group"]) == (24, 0, 2, 10)
    assert len(about["snapshot_sha256"]) == len(about["surrogate_sha256"]) == 64
    assert about["versions"]["torch"] == torch.__version__


def test_the_csv_file_has_a_line_for_each_row(attacked):
    with (attacked.folder / "robustness" / "robustness.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(line["mean"]) for line in table] == [row["mean"] for row in attacked.result["rows"]]


def test_the_command_prints_the_remaining_time_and_where_the_page_is(attacked):
    assert " left" in attacked.printed
    assert str(attacked.folder / "robustness" / "robustness.html") in attacked.printed


def test_the_page_shows_verdict_threats_networks_and_cost_without_a_request(attacked):
    page = attacked.folder / "robustness" / "robustness.html"
    text = shown(page)
    assert "robustness claim" in text or "all sanity checks passed" in text
    assert all(name in text for name in [*ATTACKED_THREATS, "plain network", "Cost of RCI"])
    assert 'src="http' not in page.read_text()


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


def test_groups_too_small_for_a_sanity_check_leave_it_unjudged(folder, capsys):
    assert run("attack", folder, *FEW, "--threats=eot-1", "--group=2", "--norm=l2", "--eps=0.5") == 0
    result = result_of(folder)
    (check,) = (check for check in result["sanity_checks"] if check["name"].startswith("batch sizes"))
    assert not check["passed"]
    assert "could not be judged" in check["evidence"]
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
    assert again["sanity_checks"] == whole["sanity_checks"]
    monkeypatch.setattr("tasks.robustness.setup.evaluate_threat", None)  # everything is there
    assert run(*command) == 0
    assert result_of(folder) == again


def test_a_stored_row_gets_the_role_and_the_eps_of_this_command(folder):
    """0.5 was a sanity check of the first command, and is a threat of the second."""
    few = [*FEW, "--threats=eot-1"]
    assert run("attack", folder, *few) == 0
    assert run("attack", folder, *few, "--eps=0,16/255,0.5") == 0
    rows = [row for row in result_of(folder)["rows"] if row["network"] == "RCI" and row["eps_pixels"] == 0.5]
    assert ("threat", "0.5") in {(row["role"], row["eps_given"]) for row in rows}


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
def test_a_wrong_argument_gives_one_line_that_says_what_is_allowed(folder, capsys, words, said):
    assert said in refused(capsys, "attack", folder, *FEW, *words)
    assert not (folder / "robustness" / "robustness.html").exists()


def test_each_kind_of_snapshot_names_its_commands(folder, tmp_path, capsys):
    model = {"name": "dcgan16", "channels": 1, "width": 4, "latent_dim": 8}
    generator, _ = build_gan(**model)
    save_snapshot(tmp_path / "gan.safetensors", generator, kind="gan", model=model, config={}, step=1)
    assert "evaluate.py sample" in refused(capsys, "attack", tmp_path / "gan.safetensors")
    assert "evaluate.py attack" in refused(capsys, "sample", folder)
    assert "'gan'" in refused(capsys, "attack", folder, f"--surrogate={tmp_path / 'gan.safetensors'}")


def test_other_networks_with_other_classes_or_weights_are_refused(folder, tmp_path, capsys):
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
    checks = [{"name": "first check", "passed": True, "evidence": "fine"}]
    made = {
        "claim": True,
        "sentence": "",
        "sanity_checks": checks,
        "networks": [network],
        "defence": cost,
        "rows": rows,
    }
    made |= {"threats": {}, "notes": [], "provenance": {"snapshot": "a/run/snapshot.safetensors"}}
    return made | changed


def test_page_says_that_nothing_is_claimed_and_why(tmp_path):
    checks = [
        {"name": "first check", "passed": True, "evidence": "fine"},
        {"name": "white-box beats black-box", "passed": False, "evidence": "square leaves 3 %, eot-1 20 %."},
    ]
    save_robustness(tmp_path / "page.html", planted(claim=False, sanity_checks=checks))
    text = shown(tmp_path / "page.html")
    assert "run: no robustness claim" in text
    assert "because 1 of 2 sanity checks failed" in text
    assert text.count("square leaves 3 %, eot-1 20 %.") == 2  # in the headline and in the table
    save_robustness(tmp_path / "page.html", planted())
    assert "no robustness claim" not in shown(tmp_path / "page.html").lower()


def test_page_draws_means_worsts_and_majorities_with_their_bands(tmp_path):
    save_robustness(tmp_path / "page.html", planted())
    page = (tmp_path / "page.html").read_text()
    intervals = page.count('<polygon class="band') + page.count('<path class="whisker')
    assert intervals == 4  # of the networks side by side, and of a threat's three lines
    assert "50.0 % [50.0, 50.0]" in page
    assert "eps in 1/255 8: 50" in page


def test_page_escapes_what_it_shows(tmp_path):
    evil = "<script>alert(1)</script>"
    row = planted()["rows"][0] | {"threat": evil, "eps_given": evil}
    checks = [{"name": evil, "passed": False, "evidence": evil}]
    made = planted(
        rows=[row], sanity_checks=checks, claim=False, notes=[evil], provenance={"snapshot": f"{evil}/a", evil: evil}
    )
    save_robustness(tmp_path / "page.html", made)
    assert "<script" not in (tmp_path / "page.html").read_text()


def test_a_page_needs_all_parts_but_no_rows(tmp_path):
    save_robustness(tmp_path / "page.html", planted(rows=[]))
    with pytest.raises(DataError, match="lack sanity_checks, rows"):
        save_robustness(tmp_path / "b.html", {k: v for k, v in planted().items() if k not in ("sanity_checks", "rows")})
