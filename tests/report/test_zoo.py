"""The Markdown table of runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from cs_gan.report import save_zoo
from cs_gan.report.__main__ import main
from cs_gan.report.zoo import COLUMNS
from cs_gan.training import save_snapshot
from models import CLASSIFIER_NAMES, GAN_NAMES, build_classifier, build_encoder, build_gan

from .conftest import FD, IS, evaluation


@pytest.fixture
def table(tmp_path):
    """The rows of the table of run folders, each a dict, and the whole text."""

    def make(*folders: Path):
        save_zoo(tmp_path / "zoo.md", folders)
        text = (tmp_path / "zoo.md").read_text()
        rows = [
            [cell.strip() for cell in line.strip("|").replace("\\|", "\0").split("|")]
            for line in text.splitlines()
            if line.startswith("|")
        ]
        assert rows[1] == ["---"] * len(rows[0])
        return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]], text

    return make


def scored(step: int, fd: float, **changed):
    return evaluation(step, {FD: fd, IS: 2.0, f"{IS} std": 0.125}, **changed)


def test_seeds_are_one_row_with_mean_standard_error_and_n(make_run, table):
    runs = [
        make_run(f"small_seed{seed}", recipe={"seed": seed}, metrics=[scored(0, 300), scored(1000, fd, seed=seed)])
        for seed, fd in enumerate((10.0, 12.0, 17.0))
    ]
    [row], _ = table(*runs)
    # By hand: mean 13; deviations -3, -1, 4 give a variance of 26 / 2, and sqrt(13 / 3) is 2.08.
    assert row["scores"].split("<br>") == [f"{FD}: 13.0 ± 2.1", f"{IS}: 2.00 ± 0.00"]
    assert (row["run"], row["n"], row["steps"]) == ("small", "3 (seed 0, 1, 2)", "1,000")
    assert row["network"] == "dcgan32"
    assert row["coded"] == "none"
    assert row["scored on"] == (
        "2,000 generated against 5,000 of cifar10 (train), features of efficientnet_lite0 (weights 702b1ec2)"
    )
    assert (row["hardware"], row["made by"], row["parameters"]) == ("not recorded",) * 3


def test_scores_in_full_take_the_place_of_the_curves(make_run, table):
    full = scored(1000, 7.5, num_samples=50_000)
    [row], _ = table(make_run(scores={"final": full, "best": full}))
    assert row["scores"].startswith(f"{FD}: 7.500<br>")
    assert row["scored on"].startswith("50,000 generated")


def test_what_is_coded_is_told_for_every_kind_of_recipe(make_run, table):
    ratio = {"ratio_start": 1.0, "ratio_end": 1.5}
    whole = {"blocks": [""], "weight": 0.0, "weight_end": 3.0}
    given = {
        "gan": {"coded": ratio | {"critic": {"blocks": ["blocks.1"], "weight": 0.25}}},
        "growing": {"coded": ratio | {"generator": whole}},
        "classifier": {"method": {"coded": ratio | {"blocks": [""], "mu": 0.5, "against": "labels"}}},
        "ssl": {"coded": ratio | {"blocks": ["encoder"], "weight": 1.0, "weight_end": None}},
        "off": {"coded": ratio | {"blocks": ["encoder"], "weight": 0.0, "weight_end": None}},
    }
    rows, _ = table(*(make_run(name, recipe=recipe) for name, recipe in given.items()))
    assert {row["run"]: row["coded"] for row in rows} == {
        "gan": "critic: blocks.1, weight 0.25; N/K 1.0 to 1.5",
        "growing": "generator: the whole network, weight 0.0 to 3.0; N/K 1.0 to 1.5",
        "classifier": "the whole network, mu 0.5, against labels; N/K 1.0 to 1.5",
        "ssl": "encoder, weight 1.0; N/K 1.0 to 1.5",
        "off": "none",
    }


def test_network_data_and_the_steps_of_an_unfinished_run_are_shown(make_run, table):
    recipe = {
        "model": {"name": "dcgan32", "width": 16, "latent_dim": None},
        "data": {"name": "cifar10", "limit": 5000},
        "training": {"steps": 4000},
    }
    [row], _ = table(make_run(recipe=recipe))
    assert (row["network"], row["data"], row["steps"]) == (
        "dcgan32 (width 16)",
        "cifar10, 5,000 images",
        "1,000 of 4,000",
    )


def test_a_run_that_was_never_scored_is_a_row(make_run, table):
    [row], _ = table(make_run(metrics=None))
    assert row["scores"] == "none yet"
    assert row["n"] == "1 (seed 0)"


def test_another_extractors_distance_is_never_plain_fid(make_run, table):
    runs = [
        make_run("a", metrics=[evaluation(5, {"FID": 3.0, "KID": 1.0})], recipe={"x": 1}),
        make_run("b", metrics=[evaluation(5, {"FID": 4.0}, extractor="inception")], recipe={"x": 2}),
    ]
    rows, _ = table(*runs)
    assert rows[0]["scores"] == (
        "FID of efficientnet_lite0, not Inception: 3.000<br>KID of efficientnet_lite0, not Inception: 1.000"
    )
    assert rows[1]["scores"] == "FID: 4.000"


def test_seeds_that_were_scored_differently_are_warned_of(make_run, table):
    runs = [
        make_run(f"r{seed}", recipe={"seed": seed}, metrics=[scored(9, 3.0, num_samples=count)])
        for seed, count in enumerate((2000, 500))
    ]
    [row], text = table(*runs)
    assert "2,000 generated" in row["scored on"]
    assert "500 generated" in row["scored on"]
    assert "num_samples is not the same for all its scores: 2000, 500." in text
    _, text = table(runs[0])
    assert "not the same" not in text


def test_hardware_and_command_are_told_where_recorded(make_run, table):
    folder = make_run(metrics=[scored(9, 3.0, hardware="1 x NVIDIA H100")])
    config = folder / "config.yaml"
    config.write_text("# python train_gan.py --config a|b.yaml\n" + config.read_text())
    [row], _ = table(folder)
    assert row["hardware"] == "1 x NVIDIA H100"
    assert row["made by"] == "`python train_gan.py --config a\0b.yaml`"


def test_a_run_of_a_study_has_its_case_and_its_studys_command(make_run, tmp_path, table):
    for seed in (0, 1):
        make_run(f"study/runs/plain~12-seed{seed}", recipe={"seed": seed}, metrics=[scored(9, 3.0 + seed)])
    runs = [{"folder": f"runs/plain~12-seed{seed}"} for seed in (0, 1)]
    told = {"study": "configs/studies/a.yaml", "points": [{"case": "no coding", "runs": runs}]}
    (tmp_path / "study" / "results.json").write_text(json.dumps(told))
    [row], text = table(*sorted((tmp_path / "study" / "runs").iterdir()))
    assert row["run"] == "no coding"
    assert row["made by"] == "`python -m cs_gan.study configs/studies/a.yaml`"
    assert f"{tmp_path}/study/runs/* \\\n" in text  # all of the folder's, so by a pattern
    (tmp_path / "study" / "results.json").write_text("{")
    assert table(*sorted((tmp_path / "study" / "runs").iterdir()))[0][0]["run"] == "plain~12"


def test_folders_of_a_study_without_a_run_are_left_out_and_noted(make_run, tmp_path, capsys):
    folder = make_run("run", metrics=[scored(9, 3.0)])
    (tmp_path / "adopted").mkdir()
    (tmp_path / "adopted" / "study.json").write_text("{}")
    assert main([str(folder), str(tmp_path / "adopted"), "--output", str(tmp_path / "zoo.md")]) == 0
    assert "note: 1 folders of a study have no run and are left out" in capsys.readouterr().err
    assert main([str(tmp_path / "adopted"), "--output", str(tmp_path / "zoo.md")]) == 2


def networks():
    for name in GAN_NAMES:
        yield pytest.param(lambda name=name: build_gan(name, width=8)[0], id=name)
    for name in CLASSIFIER_NAMES:
        yield pytest.param(lambda name=name: build_classifier(name, 10), id=name)
    yield pytest.param(lambda: build_encoder("cnn_small", width=8), id="encoder")


@pytest.mark.parametrize("build", list(networks()))
def test_parameters_are_counted_without_buffers_for_every_network(build, make_run, table):
    with torch.device("meta"):
        network = build()
    expected = sum(p.numel() for p in network.parameters())
    network = network.to_empty(device="cpu")
    for tensor in network.state_dict().values():
        tensor.zero_()
    folder = make_run(grids=())
    save_snapshot(folder / "snapshot.safetensors", network, kind="any", model={}, config={}, step=1)
    [row], _ = table(folder)
    assert row["parameters"] == f"{expected:,}"


def test_the_command_line_writes_a_table_by_its_suffix(make_run, tmp_path, capsys):
    target = tmp_path / "new" / "zoo.md"
    assert main([str(make_run()), "--output", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert f"| {FD}: 123.0<br>" in target.read_text()
    assert main([str(tmp_path / "nothing"), "--output", str(target)]) == 2
    assert main([str(tmp_path / "run"), "--output", str(tmp_path / "zoo.txt")]) == 2
    assert ".md" in capsys.readouterr().err


def test_the_committed_table_has_these_columns_and_names_what_exists():
    root = Path(__file__).parents[2]
    text = (root / "samples" / "zoo.md").read_text()
    assert "| " + " | ".join(COLUMNS) + " |" in text
    named = re.findall(r"configs/\S+?\.yaml", text)
    assert named
    assert [name for name in named if not (root / name).exists()] == []
