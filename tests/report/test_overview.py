"""The picture of one run or several."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cs_gan.report import save_grid
from cs_gan.report.__main__ import main


@pytest.fixture
def runs(tmp_path):
    folders = [tmp_path / "plain", tmp_path / "coded"]
    for i, folder in enumerate(folders):
        folder.mkdir()
        save_grid(folder / "grid.png", torch.full((4, 3, 32, 32), 255 * i, dtype=torch.uint8))
        (folder / "metrics.csv").write_text("step,FD,seconds\n0,100,1\n10,20,1\n")
    return folders


def test_picture_shows_every_grid_and_the_curve(runs, tmp_path, capsys):
    picture = tmp_path / "new" / "both.png"
    assert main([str(run) for run in runs] + [f"--output={picture}"]) == 0
    assert str(picture) in capsys.readouterr().out
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    middle, right = np.array_split(pixels, 3, axis=1)[1:]
    # The plain grid is black, the coded one white: the centre of its panel is that colour.
    assert pixels[pixels.shape[0] // 2, middle.shape[1] * 3 // 2].sum() == 0
    assert pixels[pixels.shape[0] // 2, -right.shape[1] // 2].sum() == 3 * 255
    assert np.array_split(pixels, 3, axis=1)[0].std() > 0


def test_folder_that_is_no_run_is_named(runs, tmp_path, capsys):
    (runs[1] / "grid.png").unlink()
    assert main([str(run) for run in runs] + [f"--output={tmp_path / 'both.png'}"]) == 2
    assert str(runs[1]) in capsys.readouterr().err
    assert not (tmp_path / "both.png").exists()
