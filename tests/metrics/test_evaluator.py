from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from torch import Tensor, nn
from torch.utils.data import Dataset

from cs_gan.errors import MetricError
from cs_gan.metrics import EXTRACTORS, Evaluator, digits, to_uint8

FD, IS = "FD, digits classifier", "IS, digits classifier"


def test_scores_carry_honest_names_and_provenance(evaluator: Evaluator, toy_generator: nn.Module) -> None:
    scores = evaluator(toy_generator, seed=3)
    assert set(scores.values) == {FD, IS, f"{IS} std"}
    assert scores.primary == FD
    assert all(np.isfinite(value) for value in scores.values.values())
    provenance = scores.provenance
    assert (provenance["extractor"], provenance["seed"], provenance["num_samples"]) == ("digits", 3, 200)
    assert (provenance["num_reference"], provenance["reference"]) == (900, "digits[:900]")
    assert len(provenance["weights_sha256"]) == 64
    assert provenance["seconds"] > 0
    assert provenance["notes"] == []


def test_only_inception_may_be_called_fid() -> None:
    names = {name: (spec.distance, spec.inception_score) for name, spec in EXTRACTORS.items()}
    assert names == {
        "inception": ("FID", "IS"),
        "efficientnet_lite0": ("FD, EfficientNet-Lite0", "IS, EfficientNet-Lite0"),
        "digits": (FD, IS),
    }


def test_real_digits_score_far_better_than_noise(evaluator: Evaluator, real_digits: Tensor) -> None:
    noise = torch.randint(0, 256, (897, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    other_half = evaluator.score_images(real_digits[900:]).values
    of_noise = evaluator.score_images(noise).values
    assert other_half[FD] < of_noise[FD] / 20
    assert other_half[IS] > 8  # ten balanced classes, recognised with confidence: 10 at most
    assert of_noise[IS] < 6


def test_same_images_have_distance_zero(evaluator: Evaluator, real_digits: Tensor) -> None:
    score = evaluator.score_images(real_digits[:900])
    # sqrt of eigenvalues near 0 turns float64 rounding of 1e-16 into 1e-8, once per feature
    scale = np.trace(evaluator.reference_statistics()["sigma"])
    assert abs(score.values[FD]) < 64 * 1e-6 * scale


def test_agrees_with_torch_fidelity_through_its_own_registry(
    evaluator: Evaluator, real_digits: Tensor, tmp_path: Path
) -> None:
    class Images(Dataset[Tensor]):
        def __init__(self, images: Tensor) -> None:
            self.images = images.expand(-1, 3, -1, -1)

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int) -> Tensor:
            return self.images[index]

    fakes = real_digits[900:].flip(3)
    ours = evaluator.score_images(fakes)
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(fakes),
        input2=Images(real_digits[:900]),
        feature_extractor="cs-gan-digits",
        feature_extractor_weights_path=ours.provenance["weights"],
        fid=True,
        isc=True,
        cuda=False,
        cache=False,
        cache_root=str(tmp_path),
        save_cpu_ram=True,
        verbose=False,
    )
    assert ours.values[FD] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert ours.values[IS] == pytest.approx(theirs["inception_score_mean"], rel=1e-3)
    assert ours.values[f"{IS} std"] == pytest.approx(theirs["inception_score_std"], rel=1e-3)


def test_score_ignores_and_keeps_the_global_rng(evaluator: Evaluator, toy_generator: nn.Module) -> None:
    torch.manual_seed(11)
    first = evaluator(toy_generator, seed=0).values
    torch.manual_seed(12)
    np.random.seed(12)  # noqa: NPY002
    random.seed(12)
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # type: ignore[index]  # noqa: NPY002
    second = evaluator(toy_generator, seed=0).values
    assert first == second
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]  # noqa: NPY002
    assert random.getstate() == before[2]
    assert evaluator(toy_generator, seed=1).values != first


def test_loading_an_extractor_keeps_the_global_rng(real_digits: Tensor, cache_dir: Path) -> None:
    before = torch.get_rng_state()
    Evaluator("digits", real_digits, reference_name="rng", num_samples=2, cache_dir=cache_dir)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_submodule_keeps_its_own_training_mode(evaluator: Evaluator, toy_generator: nn.Module) -> None:
    toy_generator.train()
    toy_generator.norm.eval()  # a frozen batch norm inside a training generator
    modes = {name: part.training for name, part in toy_generator.named_modules()}
    state = {key: value.clone() for key, value in toy_generator.state_dict().items()}
    evaluator(toy_generator)
    assert {name: part.training for name, part in toy_generator.named_modules()} == modes
    assert all(torch.equal(value, state[key]) for key, value in toy_generator.state_dict().items())
    assert all(parameter.requires_grad for parameter in toy_generator.parameters())


def test_modes_and_rng_are_restored_after_an_error(evaluator: Evaluator) -> None:
    class Broken(nn.Module):
        latent_dim = 3

        def forward(self, z: Tensor) -> Tensor:
            torch.rand(1)
            raise RuntimeError("broken")

    broken, before = Broken(), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        evaluator(broken)
    assert broken.training
    assert torch.equal(torch.get_rng_state(), before)


def test_rgb_and_repeated_grey_score_alike(real_digits: Tensor, evaluator: Evaluator) -> None:
    grey = evaluator.score_images(real_digits[900:1100]).values
    rgb = evaluator.score_images(real_digits[900:1100].repeat(1, 3, 1, 1)).values
    assert grey == rgb


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_have_no_score(evaluator: Evaluator, value: float) -> None:
    class Diverged(nn.Module):
        latent_dim = 2

        def forward(self, z: Tensor) -> Tensor:
            return torch.full((len(z), 1, 8, 8), value)

    with pytest.raises(MetricError, match="diverged"):
        evaluator(Diverged())


def test_wrong_inputs_are_refused(evaluator: Evaluator, real_digits: Tensor, cache_dir: Path) -> None:
    def build(reference: Tensor, extractor: str = "digits", **counts: int) -> None:
        arguments = {"num_samples": 10, **counts}
        Evaluator(extractor, reference, reference_name="x", cache_dir=cache_dir, **arguments)

    with pytest.raises(MetricError, match="no extractor 'fid'; choose one of inception, efficientnet_lite0, digits"):
        build(real_digits, extractor="fid")
    with pytest.raises(MetricError, match="expected uint8"):
        build(real_digits.float())
    with pytest.raises(MetricError, match="num_samples = 1"):
        build(real_digits, num_samples=1)
    with pytest.raises(MetricError, match="num_reference = 5000"):
        build(real_digits, num_reference=5000)
    with pytest.raises(MetricError, match="latent_dim"):
        evaluator(nn.Linear(2, 2))
    with pytest.raises(MetricError, match="reference images of"):
        evaluator.score_images(torch.zeros(4, 1, 16, 16, dtype=torch.uint8))


def test_few_samples_are_allowed_and_noted(real_digits: Tensor, cache_dir: Path) -> None:
    few = Evaluator("digits", real_digits, reference_name="few", num_samples=40, num_reference=50, cache_dir=cache_dir)
    scores = few.score_images(real_digits[:40])
    assert scores.provenance["notes"] == [
        "biased: fewer samples than features",
        "biased: fewer reference images than features",
    ]
    # One split: its deviation is 0 by construction, so it isn't reported.
    assert set(scores.values) == {FD, IS}
    assert scores.provenance["is_splits"] == 1


def test_to_uint8_rounds_and_clamps() -> None:
    x = torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0, -1 + 1.6 / 127.5]).view(1, 1, 1, 6)
    assert to_uint8(x).flatten().tolist() == [0, 0, 128, 255, 255, 2]


def _reference_file(cache_dir: Path) -> Path:
    (file,) = cache_dir.glob("reference-digits-*")
    return file


def test_reference_cache_is_used_and_never_trusted_when_damaged(
    real_digits: Tensor, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = digits.locate_weights(cache_dir)

    def build(reference: Tensor = real_digits) -> Evaluator:
        return Evaluator("digits", reference, reference_name="all", num_samples=2, cache_dir=tmp_path, weights=weights)

    fresh = build().reference_statistics()
    file = _reference_file(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "_compute_reference", lambda self: pytest.fail("the cache wasn't used"))
        assert np.array_equal(build().reference_statistics()["sigma"], fresh["sigma"])

    flipped = bytearray(file.read_bytes())
    flipped[-5] ^= 1  # one bit of the payload, which safetensors itself would load without a word
    for damaged in (bytes(flipped), b"", file.read_bytes()[:-100]):
        file.write_bytes(damaged)
        with pytest.warns(UserWarning, match="damaged"):
            again = build().reference_statistics()
        assert np.array_equal(again["sigma"], fresh["sigma"])
        assert np.array_equal(again["mu"], fresh["mu"])

    build(255 - real_digits).reference_statistics()  # other data under the same name
    assert len(list(tmp_path.glob("reference-digits-*"))) == 2
    assert not list(tmp_path.glob("*.tmp"))
