"""A folder of one's own images: counts of scores follow the data, and the run is named after the folder."""

import json
from pathlib import Path

import pytest
import torch

import evaluate
import train_gan
from cs_gan.data import ImageStore
from cs_gan.metrics import Evaluator
from cs_gan.training import parse_config
from models import build_gan
from tasks.gan.data import counts
from tasks.gan.recipe import GanConfig, MetricsConfig
from tests.data.packed import png, random_images

RECIPES = Path(__file__).parents[1] / "configs" / "gan"


@pytest.mark.parametrize(
    ("samples", "final", "asked", "there", "expected", "told"),
    [
        (2000, None, 5000, 302, (302, 302, 302), "num_reference 5000 -> 302, num_samples 2000 -> 302"),
        (100, 10_000, 5000, 302, (100, 302, 302), "num_reference 5000 -> 302, final_samples 10000 -> 302"),
        (2000, None, 5000, 3000, (2000, 2000, 3000), "num_reference 5000 -> 3000"),
        (2000, None, 5000, 1, (4, 4, 1), "num_reference 5000 -> 1, num_samples 2000 -> 4"),
        (2000, None, 302, 302, (2000, 2000, 302), ""),
        (2000, 50_000, None, 302, (2000, 50_000, None), ""),
    ],
)
def test_counts_follow_the_data_only_where_it_has_fewer_images_than_the_recipe_scores_against(
    samples: int, final: int | None, asked: int | None, there: int, expected: tuple[int, int, int | None], told: str
) -> None:
    found = counts(MetricsConfig(num_samples=samples, final_samples=final, num_reference=asked), there)
    assert (found.samples, found.final_samples, found.reference) == expected
    assert found.note == (f"scored against {there} images, so {told}" if told else "")


def test_the_note_about_counts_is_in_the_provenance_of_the_score(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (12, 1, 16, 16), dtype=torch.uint8)
    evaluator = Evaluator("digits", images, reference_about={}, num_samples=8, notes=["so few"], cache_dir=tmp_path)
    generator, _ = build_gan("dcgan16", channels=1, width=4)
    assert evaluator(generator).provenance["notes"][0] == "so few"


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["--data.name=folder", "--data.root=pictures/my cats/"], "samples/cifar10_small-my_cats"),
        (["--data.name=folder", "--data.root=cats.ZIP"], "samples/cifar10_small-cats"),
        (["--data.name=folder", "--data.root=train.parquet"], "samples/cifar10_small-train"),
        (["--data.name=folder", "--data.root=/"], "samples/cifar10_small-images"),
        (["--data.name=hf:uoft-cs/cifar10"], "samples/cifar10_small-cifar10"),
        (["--data.name=folder", "--data.root=cats", "--output_dir=there"], "there"),
        (["--data.root=cifar10"], "samples/cifar10_small"),
        ([], "samples/cifar10_small"),
    ],
)
def test_a_run_on_ones_own_images_is_named_after_recipe_and_folder(words: list[str], folder: str) -> None:
    assert parse_config(GanConfig, [f"--config={RECIPES / 'cifar10_small.yaml'}", *words]).output_dir == folder


def test_a_run_in_the_folder_itself_is_named_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dogs").mkdir()
    monkeypatch.chdir(tmp_path / "dogs")
    words = ["--config=own_images_small", "--data.root=."]
    assert parse_config(GanConfig, words, recipes=RECIPES).output_dir == "samples/own_images_small-dogs"


@pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")
def test_a_recipe_for_many_images_trains_and_scores_on_few_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cats").mkdir()
    for i, image in enumerate(random_images(12, 16)):
        (tmp_path / "cats" / f"{i}.png").write_bytes(png(image))
    monkeypatch.chdir(tmp_path)
    words = [f"--config={RECIPES / 'cifar10_small.yaml'}", "--data.name=folder", "--data.root=cats"]
    words += ["--data.image_size=16", "--data.channels=1", "--model.name=dcgan16", "--model.width=4"]
    words += ["--training.steps=1", "--training.batch_size=4", "--metrics.extractor=digits"]
    assert train_gan.main([*words, "--tracking.trackers=none"]) == 0
    note = "scored against 12 images, so num_reference 5000 -> 12, num_samples 2000 -> 12"
    assert f"note: {note}" in capsys.readouterr().out
    run = Path("samples/cifar10_small-cats")
    provenance = json.loads((run / "scores.json").read_text())["final"]["provenance"]
    assert (provenance["num_samples"], provenance["num_reference"]) == (12, 12)
    assert note in provenance["notes"]
    assert evaluate.main(["score", str(run)]) == 0
    (scored,) = run.glob("score-step1-digits-12-*.json")
    assert note in json.loads(scored.read_text())["provenance"]["notes"]


def test_a_store_of_the_same_images_keeps_its_fingerprint() -> None:
    # The key of cached features, and what a resume compares: it must not change between versions.
    store = ImageStore(torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2), None, "folder", "x")
    assert store.fingerprint == "bd8c68500db3692c"
