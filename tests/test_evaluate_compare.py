"""evaluate.py compare, stats and sample --npz: anyone's samples, against the formula written out and our own scores."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image

from cs_gan.metrics import Comparer, Evaluator, SampleSet, digits, feature_statistics, load_extractor
from tests.evaluated import refused, run
from tests.metrics.conftest import Replay
from tests.test_evaluate import pixels

# Some features of the digits are always 0; scipy's root is right to 1e-6 all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Matrix is singular")
DIGITS = "--extractor=digits"


@pytest.fixture
def images(cache_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets of digits, uint8 (n, 1, 8, 8), and a working directory of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_dir.parents[1]))
    monkeypatch.chdir(tmp_path)
    every = digits.load_digits()[0][:, :1]
    return every[:120].flip(3).contiguous(), every[300:500].contiguous()


def write_npz(path: Path, images: torch.Tensor, **more: np.ndarray) -> Path:
    np.savez(path, arr_0=images.permute(0, 2, 3, 1).numpy(), **more)
    return path


def write_folder(path: Path, images: torch.Tensor) -> Path:
    path.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(path / f"{number:04}.png")
    return path


def write_zip(path: Path, images: torch.Tensor) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for image in sorted(write_folder(path.with_suffix(""), images).iterdir()):
            file.write(image, image.name)
    return path


def features(images: torch.Tensor, cache_dir: Path) -> np.ndarray:  # (n, 64) float64
    module = load_extractor("digits", cache_dir=cache_dir).module  # outside, because it may train its classifier first
    with torch.inference_mode():
        found: torch.Tensor = module(images.expand(-1, 3, -1, -1))[0]
    return found.double().numpy()


def written_out(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """The formula of pytorch-fid and clean-fid: the trace of scipy's square root of the product."""
    root = scipy.linalg.sqrtm(sigma1 @ sigma2)
    return float(((mu1 - mu2) ** 2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root).real)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(0), np.cov(x, rowvar=False)


def result(name: str) -> dict:
    return json.loads(Path(name).read_text())


def test_folder_zip_npz_and_statistics_of_the_same_images_have_the_distance_of_the_formula(images, cache_dir, capsys):
    fake, real = images
    expected = written_out(*moments(features(fake, cache_dir)), *moments(features(real, cache_dir)))
    write_npz(Path("fake.npz"), fake)
    write_zip(Path("real.zip"), real)  # and the folder real/
    assert run("stats", "real", DIGITS) == 0
    assert "real-digits.npz" in capsys.readouterr().out
    found = []
    for number, reference in enumerate(("real", "real.zip", "real-digits.npz")):
        assert run("compare", "fake.npz", reference, DIGITS, f"--json={number}.json") == 0
        scores = result(f"{number}.json")
        assert scores["primary"] == "FD, digits classifier"
        found.append(scores["scores"]["FD, digits classifier"])
    assert found == pytest.approx([expected] * 3, rel=1e-6)
    assert "IS, digits classifier" in scores["scores"]  # of the images, though the reference is statistics
    assert "precision, digits classifier" not in scores["scores"]
    assert scores["provenance"]["reference"]["statistics"]["num_images"] == 200


def test_two_sets_of_images_get_the_scores_of_the_evaluator(images, cache_dir):
    fake, real = images
    write_npz(Path("fake.npz"), fake)
    write_npz(Path("real.npz"), real)
    assert run("compare", "fake.npz", "real.npz", DIGITS) == 0
    found = result("compare-fake-real-digits.json")
    evaluator = Evaluator("digits", real, reference_about={}, num_samples=120, cache_dir=cache_dir)
    assert found["scores"] == pytest.approx(evaluator(Replay(fake)).values, rel=1e-6)
    assert found["provenance"]["weights_sha256"]
    assert [found["provenance"][name]["count"] for name in ("generated", "reference")] == [120, 200]
    assert found["provenance"]["generated"]["fingerprint"] != found["provenance"]["reference"]["fingerprint"]


def test_a_statistics_file_holds_the_mu_and_sigma_that_pytorch_fid_reads(images, cache_dir):
    write_npz(Path("real.npz"), images[1])
    assert run("stats", "real.npz", DIGITS, "--file=out/statistics.npz") == 0
    with np.load("out/statistics.npz") as file:  # without pickles
        mu, sigma = moments(features(images[1], cache_dir))
        # float32 features in batches of other sizes
        np.testing.assert_allclose(file["mu"][:], mu, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(file["sigma"][:], sigma, rtol=1e-4, atol=1e-6)
        assert file["mu"].dtype == file["sigma"].dtype == np.float64
        assert json.loads(str(file["provenance"]))["extractor"] == "digits"


def test_statistics_of_others_need_no_weights_and_say_what_is_unknown(images, capsys):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(90, 20)), rng.normal(1, 2, size=(80, 20))
    for name, x in (("a.npz", first), ("b.npz", second)):
        np.savez(name, mu=x.mean(0), sigma=np.cov(x, rowvar=False))
    assert run("compare", "a.npz", "b.npz", "--weights=nowhere.pth") == 0
    printed = capsys.readouterr().out
    assert "a.npz doesn't tell its extractor" in printed
    scores = result("compare-a-b-unnamed.json")["scores"]
    expected = written_out(*moments(first), *moments(second))
    assert scores == {"FD, 20 unnamed features": pytest.approx(expected, rel=1e-6)}


def test_only_inceptions_features_give_a_distance_called_fid():
    def of(width: int, **about: object) -> SampleSet:
        return SampleSet("s", None, {"mu": np.ones(width), "sigma": np.eye(width)}, about)

    def name(extractor: str, first: SampleSet, second: SampleSet) -> str:
        return Comparer(extractor).compare(first, second).primary

    assert name("inception", of(2048), of(2048, extractor="inception")) == "FID"
    assert (
        name("inception", of(2048, extractor="another"), of(2048, extractor="another")) == "FD, 2048 unnamed features"
    )
    assert name("efficientnet_lite0", of(1280), of(1280)) == "FD, EfficientNet-Lite0"
    lite0 = of(1280, extractor="efficientnet_lite0")
    assert name("inception", lite0, lite0) == "FD, EfficientNet-Lite0"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"extractor": "efficientnet_lite0"}, "efficientnet_lite0 features"),
        ({"weights_sha256": "0" * 64}, "weights_sha256 differs"),
        ({"image_size": [32, 32]}, "image_size differs: "),
    ],
)
def test_statistics_of_other_features_weights_or_sizes_are_refused(images, capsys, changed, expected):
    write_npz(Path("fake.npz"), images[0])
    about = {"extractor": "digits", "num_images": 200, "image_size": [8, 8], **changed}
    np.savez("real.npz", mu=np.zeros(64), sigma=np.eye(64), provenance=np.array(json.dumps(about)))
    assert expected in refused(capsys, "compare", "fake.npz", "real.npz", DIGITS)


def test_images_of_other_sizes_are_refused_unless_they_are_resized(images, capsys):
    write_npz(Path("fake.npz"), images[0].repeat_interleave(2, 2).repeat_interleave(2, 3))
    write_folder(Path("real"), images[1])
    assert "--image_size" in refused(capsys, "compare", "fake.npz", "real", DIGITS)
    assert run("compare", "fake.npz", "real", DIGITS, "--image_size=8") == 0
    assert "resize 8" in result("compare-fake-real-digits.json")["provenance"]["generated"]["preparation"]


def test_a_reference_batch_with_statistics_uses_them_for_the_distance_alone(images, cache_dir, capsys):
    """ADM's hold the statistics of the whole training set, but 10,000 images."""
    fake, real = images
    statistics = feature_statistics(torch.from_numpy(features(real, cache_dir)))
    write_npz(Path("fake.npz"), fake)
    write_npz(Path("batch.npz"), real[:50], **statistics)
    write_npz(Path("part.npz"), real[:50])
    for name in ("batch", "part"):
        assert run("compare", "fake.npz", f"{name}.npz", DIGITS, f"--json={name}.json") == 0
    batch, part = result("batch.json")["scores"], result("part.json")["scores"]
    expected = written_out(*moments(features(fake, cache_dir)), *moments(features(real, cache_dir)))
    assert batch.pop("FD, digits classifier") == pytest.approx(expected, rel=1e-6)
    assert part.pop("FD, digits classifier") != pytest.approx(expected, rel=1e-3)
    assert batch == part


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"labels": np.zeros(3)}, "holds labels"),
        ({"arr_0": np.zeros((3, 8, 8, 1))}, "uint8 (n, H, W, C)"),
        ({"arr_0": np.zeros((3, 3, 8, 8), np.uint8)}, "uint8 (n, H, W, C)"),
        ({"mu": np.zeros(4), "sigma": np.eye(5)}, "sigma (d, d)"),
        ({"mu": np.zeros(4), "sigma": np.triu(np.ones((4, 4)))}, "isn't symmetric"),
        ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "aren't finite"),
        ({"arr_0": np.array([{}], dtype=object)}, "can't be read as .npz"),
    ],
)
def test_a_file_that_holds_neither_names_itself_and_says_what_to_give(images, capsys, arrays, expected):
    np.savez("wrong.npz", **arrays)
    error = refused(capsys, "compare", "wrong.npz", "wrong.npz", DIGITS)
    assert expected in error
    assert "wrong.npz" in error


def test_missing_and_damaged_files_are_named(images, capsys):
    assert "none.npz doesn't exist" in refused(capsys, "compare", "none.npz", "none.npz")
    assert "nowhere" in refused(capsys, "stats", "nowhere", DIGITS)
    Path("damaged.npz").write_bytes(b"PK\x03\x04 not a zip")
    assert "damaged.npz can't be read" in refused(capsys, "stats", "damaged.npz", DIGITS)
    write_npz(Path("fake.npz"), images[0])
    assert "ends in .npz" in refused(capsys, "stats", "fake.npz", DIGITS, "--file=stats.txt")
    assert "give another name" in refused(capsys, "stats", "fake.npz", DIGITS, "--file=fake.npz")
    assert "compare doesn't take --data.name=x" in refused(capsys, "compare", "a", "b", "--data.name=x")
    asked = refused(capsys, "compare", "a", "b", "--metrics.extractor=digits")
    assert "compare doesn't take --metrics.extractor=digits. Did you mean --extractor?" in asked
    assert "--device cuda:77" in refused(capsys, "stats", "fake.npz", DIGITS, "--device=cuda:77")


def test_missing_weights_are_told_with_the_options_of_the_command(images, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(Path.cwd()))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    write_npz(Path("fake.npz"), images[0])
    for words in (("stats", "fake.npz"), ("compare", "fake.npz", "fake.npz")):
        error = refused(capsys, *words)
        assert "give its path: --weights" in error
        assert "--extractor=efficientnet_lite0" in error


def test_sample_npz_holds_the_images_of_the_folder_as_adms_suite_reads_them(gan_folder, tmp_path):
    path = tmp_path / "new" / "samples.npz"
    assert run("sample", gan_folder, "--count=70", "--npz", path, "--folder", tmp_path / "images") == 0
    with np.load(path) as file:
        assert file.files == ["arr_0"]
        samples = file["arr_0"]
    assert samples.dtype == np.uint8
    assert samples.shape == (70, 16, 16, 3)
    assert samples.flags.c_contiguous
    for image, png in zip(samples, sorted((tmp_path / "images").iterdir()), strict=True):
        assert np.array_equal(image, np.repeat(pixels(png)[..., None], 3, axis=2))
    assert not (gan_folder / "samples.png").exists()


def test_sample_npz_wants_a_name_that_numpy_knows(gan_folder, tmp_path, capsys):
    assert "ends in .npz" in refused(capsys, "sample", gan_folder, "--npz", tmp_path / "samples.zip")
