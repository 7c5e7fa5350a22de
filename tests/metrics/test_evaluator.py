from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cs_gan.errors import MetricError
from cs_gan.metrics import EXTRACTORS, Evaluator, to_uint8
from tests.metrics.conftest import Replay, ScoreImages

FD, IS, KID = (f"{score}, digits classifier" for score in ("FD", "IS", "KID"))
PRECISION, RECALL = "precision, digits classifier", "recall, digits classifier"
DENSITY, COVERAGE = "density, digits classifier", "coverage, digits classifier"
ABOUT = {"data": "digits", "split": "all"}


def test_all_scores_have_names_and_finite_values(evaluator: Evaluator, toy_generator: nn.Module) -> None:
    scores = evaluator(toy_generator, seed=3)
    assert list(scores.values) == [FD, IS, f"{IS} std", KID, f"{KID} std", PRECISION, RECALL, DENSITY, COVERAGE]
    assert scores.primary == FD
    assert all(np.isfinite(value) for value in scores.values.values())


def test_provenance_holds_everything_that_the_scores_depend_on(evaluator: Evaluator, toy_generator: nn.Module) -> None:
    provenance = evaluator(toy_generator, seed=3).provenance
    assert (provenance["extractor"], provenance["seed"], provenance["num_samples"]) == ("digits", 3, 200)
    assert provenance["num_reference"] == 900
    assert provenance["reference"] == {"data": "digits", "split": "first 900"}
    assert provenance["kid"] == {"generated": 200, "reference": 900, "subsets": 100, "subset_size": 200}
    manifold = provenance["precision_recall"]
    assert (manifold["generated"], manifold["reference"], manifold["neighbours"]) == (200, 900, 3)
    assert len(provenance["weights_sha256"]) == 64
    assert provenance["notes"] == []


def test_provenance_tells_time_processes_and_what_the_caller_adds(
    evaluator: Evaluator, toy_generator: nn.Module
) -> None:
    provenance = evaluator(toy_generator, seed=3, about={"step": 500, "network": "EMA"}).provenance
    assert (provenance["step"], provenance["network"], provenance["processes"]) == (500, "EMA", 1)
    assert provenance["seconds"] > 0


def test_only_inceptions_distances_go_by_their_bare_names() -> None:
    fractions = ("precision", "recall", "density", "coverage")
    scores = ("FD", "IS", "KID", *fractions)
    names = {name: tuple(map(spec.named, scores)) for name, spec in EXTRACTORS.items()}
    of_lite0, of_dinov2 = (
        tuple(f"{score}, {name}" for score in scores) for name in ("EfficientNet-Lite0", "DINOv2 ViT-L/14")
    )
    assert names == {
        "inception": ("FID", "IS", "KID", *(f"{each}, Inception" for each in fractions)),
        "efficientnet_lite0": of_lite0,
        "digits": (FD, IS, KID, PRECISION, RECALL, DENSITY, COVERAGE),
        "dinov2": of_dinov2,
    }


def test_real_digits_score_far_better_than_noise(score_images: ScoreImages, real_digits: Tensor) -> None:
    noise = torch.randint(0, 256, (897, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    other_half = score_images(real_digits[900:]).values
    of_noise = score_images(noise).values
    assert other_half[FD] < of_noise[FD] / 20
    assert other_half[IS] > 8  # ten balanced classes, recognised with confidence: 10 at most
    assert of_noise[IS] < 6
    assert abs(other_half[KID]) < of_noise[KID] / 100
    assert other_half[PRECISION] > 0.7 > 0.2 > of_noise[PRECISION]
    assert other_half[RECALL] > 0.7 > 0.2 > of_noise[RECALL]
    assert other_half[DENSITY] > 0.7 > 0.2 > of_noise[DENSITY]
    assert other_half[COVERAGE] > 0.7 > 0.2 > of_noise[COVERAGE]


def test_few_classes_cost_recall_and_keep_precision(
    score_images: ScoreImages, evaluator: Evaluator, real_digits: Tensor
) -> None:
    with torch.inference_mode():
        logits = evaluator._extractor.module(real_digits[900:].repeat(1, 3, 1, 1))[1]
    zeros_and_ones = real_digits[900:][logits.argmax(1) < 2]
    values = score_images(zeros_and_ones).values
    assert values[PRECISION] > 0.7
    assert values[RECALL] < 0.4  # two classes of ten, and a little of their neighbours


def test_same_images_have_distance_zero(score_images: ScoreImages, evaluator: Evaluator, real_digits: Tensor) -> None:
    score = score_images(real_digits[:900])
    # sqrt of eigenvalues near 0 turns float64 rounding of 1e-16 into 1e-8, once per feature
    scale = evaluator.features(real_digits[:900]).var(0).sum().item()
    assert abs(score.values[FD]) < 64 * 1e-6 * scale
    assert score.values[PRECISION] == score.values[RECALL] == 1
    # Every subset is the whole: its deviation is rounding and isn't reported.
    assert f"{KID} std" not in score.values


def test_each_image_is_generated_and_read_once(evaluator: Evaluator, real_digits: Tensor) -> None:
    evaluator(Replay(real_digits), num_samples=4)  # now the reference is known
    seen: list[int] = []
    hook = evaluator._extractor.module.register_forward_hook(lambda _module, args, _output: seen.append(len(args[0])))
    replay = Replay(real_digits)
    evaluator(replay, num_samples=130)
    hook.remove()
    assert seen == [64, 64, 2]
    assert (replay.position, replay.batches) == (130, 3)


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
    Evaluator("digits", real_digits, reference_about=ABOUT, num_samples=4, cache_dir=cache_dir)
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


def test_rgb_and_repeated_grey_score_alike(real_digits: Tensor, score_images: ScoreImages) -> None:
    grey = score_images(real_digits[900:1100]).values
    rgb = score_images(real_digits[900:1100].repeat(1, 3, 1, 1)).values
    assert grey == rgb


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_have_no_score(evaluator: Evaluator, value: float) -> None:
    class Diverged(nn.Module):
        latent_dim = 2

        def forward(self, z: Tensor) -> Tensor:
            return torch.full((len(z), 1, 8, 8), value)

    with pytest.raises(MetricError, match="diverged"):
        evaluator(Diverged())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extractor": "fid"}, "no extractor 'fid'; choose one of inception, efficientnet_lite0, digits"),
        ({"num_samples": 3}, "num_samples = 3"),
        ({"num_reference": 0}, "num_reference = 0"),
        ({"num_reference": 5000}, "num_reference = 5000"),
        ({"reference_about": {"root": Path("data")}}, r"reference_about = .* JSON"),
    ],
)
def test_options_that_can_not_be_used_are_refused(
    real_digits: Tensor, cache_dir: Path, options: dict, message: str
) -> None:
    usable = {"extractor": "digits", "reference_about": ABOUT, "num_samples": 10, "cache_dir": cache_dir}
    with pytest.raises(MetricError, match=message):
        Evaluator(reference=real_digits, **usable | options)


def test_reference_images_that_are_not_uint8_are_refused(real_digits: Tensor, cache_dir: Path) -> None:
    with pytest.raises(MetricError, match="expected uint8"):
        Evaluator("digits", real_digits.float(), reference_about=ABOUT, num_samples=10, cache_dir=cache_dir)


def test_a_generator_without_latent_dim_is_refused(evaluator: Evaluator) -> None:
    with pytest.raises(MetricError, match="latent_dim"):
        evaluator(nn.Linear(2, 2))


def test_images_of_another_size_than_the_reference_are_refused(evaluator: Evaluator) -> None:
    with pytest.raises(MetricError, match="reference images of"):
        evaluator(Replay(torch.zeros(4, 1, 16, 16, dtype=torch.uint8)), num_samples=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 1}, "num_samples = 1"),
        ({"about": {"weights": "EMA", "seed": 1}}, "replace the provenance's own seed, weights"),
        ({"kid_subsets": 0}, "subsets = 0"),
    ],
)
def test_options_of_a_call_are_checked_before_an_image_is_generated(
    evaluator: Evaluator, options: dict, message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        evaluator(nn.Identity(), **options)


def test_more_neighbours_than_reference_images_are_refused(evaluator: Evaluator, real_digits: Tensor) -> None:
    with pytest.raises(MetricError, match="k = 901"):
        evaluator.nearest(real_digits[:2], k=901)


def test_few_samples_are_allowed_and_noted(real_digits: Tensor, cache_dir: Path) -> None:
    few = Evaluator("digits", real_digits, reference_about=ABOUT, num_samples=40, num_reference=50, cache_dir=cache_dir)
    scores = few(Replay(real_digits))
    assert scores.provenance["notes"] == [
        "biased: fewer samples than features",
        "biased: fewer reference images than features",
    ]
    # One split: its deviation is 0 by construction, so it isn't reported.
    assert f"{IS} std" not in scores.values
    assert scores.provenance["is_splits"] == 1


def test_to_uint8_rounds_and_clamps() -> None:
    x = torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0, -1 + 1.6 / 127.5]).view(1, 1, 1, 6)
    assert to_uint8(x).flatten().tolist() == [0, 0, 128, 255, 255, 2]
