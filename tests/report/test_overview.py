"""The picture of one run or several, and which output the command line makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from cs_gan.report import save_grid
from cs_gan.report.__main__ import main

from .conftest import FD, evaluation


@pytest.fixture
def runs(make_run):
    made = [make_run(name, recipe={"model": {"name": name}}, grids=()) for name in ("plain", "coded")]
    for i, folder in enumerate(made):
        save_grid(folder / "grid.png", torch.full((4, 3, 32, 32), 255 * i, dtype=torch.uint8))
    return made


def test_picture_shows_every_grid_and_the_curve(runs, tmp_path, capsys):
    picture = tmp_path / "new" / "both.png"
    assert main([str(run) for run in runs] + [f"--output={picture}"]) == 0
    assert str(picture) in capsys.readouterr().out
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    # The plain grid is black, the coded one white: a place well inside its panel is that colour.
    height, width = pixels.shape[0] * 2 // 5, 100 * 2.9
    # The picture is resampled, so the gap between images reaches some levels into them.
    assert pixels[height, round(-1.5 * width) - 12].max() <= 5
    assert pixels[height, round(-0.5 * width)].min() >= 200
    assert pixels[:, : round(-2 * width)].std() > 0


@pytest.mark.parametrize(("colours", "panels"), [((0,), 3), ((0, 0), 4), ((0, 255), 5)])
def test_training_images_are_shown_once_for_each_data_set(make_run, tmp_path, monkeypatch, colours, panels):
    titles, set_title = [], Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda *a, **k: titles.append(a[1]) or set_title(*a, **k))
    made = [make_run(f"run_{i}", recipe={"model": {"name": f"m{i}"}}) for i in range(len(colours))]
    for folder, colour in zip(made, colours, strict=True):
        save_grid(folder / "real.png", torch.full((4, 3, 8, 8), colour, dtype=torch.uint8))
    assert main([*map(str, made), f"--output={tmp_path / 'runs.png'}"]) == 0
    assert len(titles) == panels  # one of the curve
    assert titles[-1] == ("training images" if panels < 5 else "training images of run_1")


def test_long_names_of_runs_are_wrapped(make_run, tmp_path, monkeypatch):
    titles, set_title = [], Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda *a, **k: titles.append(a[1]) or set_title(*a, **k))
    assert main([str(make_run("inner_block,critic.share=0.03~e9ebe34f-seed2")), f"--output={tmp_path / 'x.png'}"]) == 0
    assert max(map(len, titles[1].splitlines())) <= 36


def test_seeds_are_one_line_in_a_band_and_one_grid(make_run, tmp_path, monkeypatch):
    bands, grids, fill, imshow = [], [], Axes.fill_between, Axes.imshow
    monkeypatch.setattr(Axes, "fill_between", lambda *a, **k: bands.append([list(x) for x in a[1:]]) or fill(*a, **k))
    monkeypatch.setattr(Axes, "imshow", lambda *a, **k: grids.append(a[1]) or imshow(*a, **k))
    made = [
        make_run(f"small_{seed}", recipe={"seed": seed}, metrics=[evaluation(0, {FD: 9.0}), evaluation(5, {FD: value})])
        for seed, value in enumerate((3.0, 1.0, 2.5))
    ]
    assert main([str(run) for run in made] + [f"--output={tmp_path / 'seeds.png'}"]) == 0
    assert bands == [[[0.0, 5.0], [9.0, 1.0], [9.0, 3.0]]]
    assert len(grids) == 1


@pytest.mark.parametrize("missing", ["grid.png", "metrics.jsonl"])
def test_folder_that_is_no_run_is_named(missing, runs, tmp_path, capsys):
    (runs[1] / missing).unlink()
    assert main([str(run) for run in runs] + [f"--output={tmp_path / 'both.png'}"]) == 2
    assert str(runs[1]) in capsys.readouterr().err
    assert not (tmp_path / "both.png").exists()


def test_one_run_has_its_report_in_its_folder(runs, capsys):
    assert main([str(runs[0])]) == 0
    assert "Training run" in (runs[0] / "report.html").read_text()
    assert capsys.readouterr().out.strip() == str(runs[0] / "report.html")


def test_several_runs_have_a_comparison_here(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(run) for run in runs]) == 0
    assert "Comparison of runs" in (tmp_path / "comparison.html").read_text()


@pytest.mark.parametrize("arguments", [["--output=x.pdf"], ["nowhere"]])
def test_a_command_that_can_not_be_done_is_refused_in_one_line(arguments, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main([str(runs[0]), *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before
