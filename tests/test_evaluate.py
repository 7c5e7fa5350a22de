"""evaluate.py from the command line's point of view, on a tiny snapshot that was never trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cs_gan.data import load_images
from cs_gan.metrics import Evaluator, to_uint8
from cs_gan.training import save_snapshot
from models import PretrainedGenerator
from tests.evaluated import MODEL, config, network, refused, run, write_snapshot
from tests.launched import WORLD
from tests.processes import free_port, run_in_processes


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def tile(path: Path, row: int, column: int) -> np.ndarray:  # -> (64, 64)
    """One image of a grid of 16x16 images, shown at four times their size with a gap of 3."""
    top, left = row * 67, column * 67
    return pixels(path)[top : top + 64, left : left + 64]


def shows(path: Path, image: np.ndarray) -> bool:  # (16, 16)
    """Whether a picture holds an image, at four times its size."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels(path)[..., 0], (64, 64))
    large = image.repeat(4, 0).repeat(4, 1)
    candidates = np.argwhere((windows[..., 0, 0] == large[0, 0]) & (windows[..., 32, 32] == large[32, 32]))
    return any(np.array_equal(windows[row, column], large) for row, column in candidates)


def same(first: np.ndarray, second: np.ndarray) -> None:
    """The same image, up to a rounding to the next grey level where another batch size took another kernel."""
    assert first.shape == second.shape
    assert np.abs(first.astype(int) - second).max() <= 1


def expected(gan_folder: Path, z: Tensor, name: str = "snapshot") -> Tensor:  # (n, 8) -> uint8 (n, 1, 16, 16)
    with torch.no_grad():
        return to_uint8(PretrainedGenerator.from_snapshot(gan_folder / f"{name}.safetensors")(z))


# -- sample ----------------------------------------------------------------------------------------


def test_sample_draws_a_grid_beside_the_snapshot_and_says_where(gan_folder, capsys):
    assert run("sample", gan_folder) == 0
    assert str(gan_folder / "samples.png") in capsys.readouterr().out
    assert pixels(gan_folder / "samples.png").shape == (8 * 67 - 3, 8 * 67 - 3)
    assert tile(gan_folder / "samples.png", 0, 0).std() > 20


def test_sample_of_the_same_seed_has_the_same_bits(gan_folder, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert (
            run("sample", gan_folder, "--count=4", f"--seed={seed}", "--grid", tmp_path / "grids" / f"{name}.png") == 0
        )
    a, b, c = ((tmp_path / "grids" / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_folder_of_png_files_holds_the_bytes_of_the_latents_images(gan_folder, tmp_path):
    assert run("sample", gan_folder, "--count=5", "--seed=2", "--folder", tmp_path / "images") == 0
    files = sorted((tmp_path / "images").iterdir())
    assert [file.name for file in files] == [f"{i:06d}.png" for i in range(5)]
    pretrained = PretrainedGenerator.from_snapshot(gan_folder / "snapshot.safetensors")
    for file, image in zip(files, to_uint8(pretrained.sample(5, seed=2)), strict=True):
        assert np.array_equal(pixels(file), image[0].numpy())
    assert not (gan_folder / "samples.png").exists()


def test_coloured_images_are_written_as_coloured_png_files(tmp_path):
    path, model = tmp_path / "s.safetensors", {"name": "dcgan16", "width": 4, "latent_dim": 8}
    save_snapshot(path, network(1, **model), kind="gan", model=model, config={}, step=1)
    assert run("sample", path, "--seeds=4", "--folder", tmp_path / "images", "--grid", tmp_path / "grid.png") == 0
    image = to_uint8(PretrainedGenerator.from_snapshot(path).sample(1, seed=4))[0]
    assert np.array_equal(pixels(tmp_path / "images" / "000000.png"), image.permute(1, 2, 0).numpy())
    assert (tmp_path / "grid.png").exists()


def test_image_of_a_seed_can_be_made_again_alone(gan_folder, tmp_path):
    assert run("sample", gan_folder, "--seeds=0-5", "--folder", tmp_path / "many") == 0
    assert run("sample", gan_folder, "--seeds=3", "--folder", tmp_path / "one") == 0
    same(pixels(tmp_path / "many" / "000003.png"), pixels(tmp_path / "one" / "000000.png"))
    # in a batch of its own it is the same to the bit
    assert run("sample", gan_folder, "--seeds=5,1-3", "--batch_size=1", "--folder", tmp_path / "some") == 0
    assert np.array_equal(pixels(tmp_path / "some" / "000003.png"), pixels(tmp_path / "one" / "000000.png"))


def test_a_count_that_is_no_square_is_filled_with_grey(gan_folder):
    assert run("sample", gan_folder, "--count=7") == 0
    grid = gan_folder / "samples.png"
    assert pixels(grid).shape == (3 * 67 - 3, 3 * 67 - 3)
    assert (tile(grid, 2, 1) == 128).all()
    assert tile(grid, 2, 0).std() > 0


def test_best_is_another_network_than_the_last(gan_folder, tmp_path):
    assert run("sample", gan_folder, "--best", "--seeds=0", "--folder", tmp_path / "best") == 0
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(pixels(tmp_path / "best" / "000000.png"), expected(gan_folder, z, "best")[0, 0].numpy())
    assert not torch.equal(expected(gan_folder, z, "best"), expected(gan_folder, z))


def test_a_folder_that_holds_files_is_refused_and_kept(gan_folder, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    (images / "mine.txt").write_text("mine")
    assert "holds files already" in refused(capsys, "sample", gan_folder, "--folder", images)
    assert [path.name for path in images.iterdir()] == ["mine.txt"]


# -- interpolate -----------------------------------------------------------------------------------


def test_interpolation_goes_from_seed_to_seed(gan_folder, tmp_path):
    assert run("interpolate", gan_folder, "--seeds=3,1,7", "--steps=5") == 0
    grid = gan_folder / "interpolation.png"
    assert pixels(grid).shape == (2 * 67 - 3, 5 * 67 - 3)
    assert run("sample", gan_folder, "--seeds=3,1,7", "--folder", tmp_path / "ends") == 0
    ends = [pixels(tmp_path / "ends" / f"{i:06d}.png").repeat(4, 0).repeat(4, 1) for i in range(3)]
    for row, column, end in ((0, 0, 0), (0, 4, 1), (1, 0, 1), (1, 4, 2)):
        same(tile(grid, row, column), ends[end])
    assert all(np.abs(tile(grid, 0, 2).astype(int) - end).max() > 20 for end in ends)


def test_interpolation_with_one_seed_is_refused(gan_folder, capsys):
    assert "two seeds" in refused(capsys, "interpolate", gan_folder, "--seeds=3")


# -- score -----------------------------------------------------------------------------------------


def test_score_equals_the_evaluators_with_provenance(gan_folder):
    assert run("score", gan_folder) == 0
    path = gan_folder / "score-step70-digits-40-seed5.json"
    result = json.loads(path.read_text())
    store = load_images("digits")  # all of them: data.limit is of the training alone
    about = {
        "data": "digits",
        "count": 1797,
        **{key: getattr(store, key) for key in ("split", "preparation", "fingerprint")},
    }
    evaluator = Evaluator("digits", store.images, reference_about=about, num_samples=40, batch_size=32)
    scores = evaluator(PretrainedGenerator.from_snapshot(gan_folder / "snapshot.safetensors"), seed=5)
    assert result["scores"] == scores.values
    assert result["primary"] == scores.primary
    assert result["provenance"]["num_samples"] == 40
    assert result["provenance"]["step"] == 70
    assert result["provenance"]["reference"] == about


def test_score_prints_every_score_and_where_they_are(gan_folder, capsys):
    assert run("score", gan_folder) == 0
    path = gan_folder / "score-step70-digits-40-seed5.json"
    printed = capsys.readouterr().out
    assert str(path) in printed
    assert all(name in printed for name in json.loads(path.read_text())["scores"])


def test_score_takes_what_the_command_line_says(gan_folder, tmp_path):
    changed = ["--metrics.num_samples=30", "--metrics.num_reference=50", "--seed=6"]
    assert run("score", gan_folder, "--best", *changed, "--json", tmp_path / "a" / "s.json") == 0
    provenance = json.loads((tmp_path / "a" / "s.json").read_text())["provenance"]
    assert [provenance[key] for key in ("num_samples", "num_reference", "seed", "step")] == [30, 50, 6, 60]


def test_score_is_by_default_as_large_as_the_one_at_the_end_of_training(gan_folder):
    plain = config()
    plain["metrics"]["final_samples"] = 50
    write_snapshot(gan_folder / "snapshot.safetensors", 1, config=plain)
    assert run("score", gan_folder) == 0
    assert (gan_folder / "score-step70-digits-50-seed5.json").exists()
    assert run("score", gan_folder, "--metrics.num_samples=45") == 0
    assert (gan_folder / "score-step70-digits-45-seed5.json").exists()


def test_score_of_a_run_that_was_not_scored_asks_for_an_extractor(gan_folder, capsys):
    plain = config()
    plain["metrics"]["extractor"] = "none"
    write_snapshot(gan_folder / "snapshot.safetensors", 1, config=plain)
    assert "--metrics.extractor" in refused(capsys, "score", gan_folder)
    assert run("score", gan_folder, "--metrics.extractor=digits") == 0


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--metrics.num_sample=3", "metrics.num_samples"),
        ("--metrics.num_samples=many", "num_samples"),
        ("--training.steps=3", "--metrics.<key>"),
        ("--data.root", "--data.<key>"),
        ("--data.image_size=32", "makes images of"),
        ("--metrics.extractor=digit", "digits"),
        ("--metrics.num_samples=1", "num_samples"),
    ],
)
def test_what_score_cant_change_is_refused(gan_folder, capsys, word, said):
    assert said in refused(capsys, "score", gan_folder, word)
    assert not list(gan_folder.glob("*.json"))


@pytest.mark.slow
def test_two_processes_score_as_one(gan_folder, tmp_path):
    assert run("score", gan_folder, "--json", tmp_path / "one.json") == 0
    words = ("score", gan_folder, "--json", tmp_path / "two.json")
    printed = run_in_processes("tests.launched", WORLD, free_port(), "evaluate", *words)
    assert printed.count("score: ") == 1
    assert printed.count("in the group: gloo_tcp_loop") == printed.count("at the end: none") == WORLD
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert two["provenance"]["processes"] == 2
    assert one["scores"] == pytest.approx(two["scores"], rel=1e-5)


# -- nearest ---------------------------------------------------------------------------------------


def test_nearest_sets_images_beside_training_images_by_distance(gan_folder, capsys):
    assert run("nearest", gan_folder, "--seeds=4,9", "--neighbours=3", "--metrics.num_reference=10") == 0
    out = capsys.readouterr().out
    grid, store = gan_folder / "nearest.png", load_images("digits", limit=60)
    assert str(grid) in out
    latents = [torch.randn(1, 8, generator=torch.Generator().manual_seed(seed)) for seed in (4, 9)]
    images = expected(gan_folder, torch.cat(latents))
    evaluator = Evaluator("digits", store.images, reference_about={}, num_samples=40, batch_size=32)
    # by hand: all distances, sorted
    real, made = evaluator.features(store.images).double(), evaluator.features(images).double()
    distances = (made[:, None] - real[None]).square().sum(-1).sqrt()
    order = distances.argsort(dim=1)[:, :3]
    for row in range(2):
        for image in (images[row], *store.images[order[row]]):
            assert shows(grid, image[0].numpy())
        assert f"{distances[row, order[row, 0]]:.4g}" in out.splitlines()[row]
    others = (real[:, None] - real[None]).square().sum(-1).sqrt().fill_diagonal_(torch.inf).min(dim=1).values
    assert f"{others.median():.4g}" in out
    assert f"{distances.min(dim=1).values.median():.4g}" in out


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "required"),
        (("dream", "."), "invalid choice: 'dream'"),
        (("sample", "{run}", "--count=0"), "whole number above 0"),
        (("sample", "{run}", "--seeds=3-1"), "seeds such as"),
        (("sample", "{run}", "--seeds=0-99999999999"), "seeds such as"),
        (("sample", "{run}", f"--seed={10**30}"), "seeds such as"),
        (("sample", "{run}", "--coun=3"), "doesn't take --coun=3"),
        (("sample", "{run}", "--metrics.num_samples=3"), "doesn't take"),
        (("sample", "{run}", "--device=teapot"), "--device teapot"),
        (("sample", "{run}", "--grid", "{run}"), "run"),
        (("nearest", "{run}", "--neighbours=61"), "61"),
    ],
)
def test_a_wrong_argument_gives_one_line_that_says_what_is_allowed(gan_folder, capsys, words, said):
    assert said in refused(capsys, *(word.format(run=gan_folder) for word in words))


def test_a_file_that_is_no_snapshot_of_a_generator_is_refused_by_name(gan_folder, tmp_path, capsys):
    assert "contains run/best.safetensors, run/snapshot.safetensors" in refused(capsys, "sample", tmp_path / "rum")
    (tmp_path / "junk.safetensors").write_bytes(b"\x80\x04 a pickle")
    assert "junk.safetensors is not a snapshot" in refused(capsys, "sample", tmp_path / "junk.safetensors")
    write_snapshot(tmp_path / "classifier.safetensors", 1, kind="classifier")
    assert "kind" in refused(capsys, "sample", tmp_path / "classifier.safetensors")
    write_snapshot(tmp_path / "other.safetensors", 1, model=MODEL | {"width": 5})
    assert "tensors don't fit" in refused(capsys, "sample", tmp_path / "other.safetensors")


def test_a_generator_whose_images_are_not_finite_is_refused(gan_folder, capsys):
    generator = network(1, **MODEL)
    generator.stem[2].running_var.fill_(-1)
    save_snapshot(gan_folder / "snapshot.safetensors", generator, kind="gan", model=MODEL, config=config(), step=1)
    assert "NaN" in refused(capsys, "sample", gan_folder)
    assert not (gan_folder / "samples.png").exists()
