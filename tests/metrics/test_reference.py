"""What is kept of the real images, and the search among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cs_gan.metrics import Evaluator, digits, evaluator, feature_statistics, reference
from cs_gan.metrics.extraction import FeatureReader
from tests.metrics.conftest import Replay

ABOUT = {"data": "digits", "split": "train", "preparation": "crop 8", "fingerprint": "00"}


@pytest.fixture
def build(real_digits: Tensor, cache_dir: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """A new evaluator with a cache of its own for the test, and the weights of the session."""
    weights = digits.locate_weights(cache_dir)

    def build(images: Tensor = real_digits, about: Mapping[str, object] = ABOUT, count: int | None = None) -> Evaluator:
        return Evaluator(
            "digits",
            images,
            reference_about=about,
            num_samples=4,
            num_reference=count,
            cache_dir=tmp_path,
            weights=weights,
        )

    return build


def _score(evaluator: Evaluator, images: Tensor) -> dict[str, float]:
    return evaluator(Replay(images), num_samples=60).values


def _files(folder: Path, what: str = "reference") -> set[str]:
    return {file.name for file in folder.glob(f"{what}-digits-*")}


def test_cache_is_used_and_never_trusted_when_damaged(  # type: ignore[no-untyped-def]
    build, real_digits: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = _score(build(), real_digits)
    (name,) = _files(tmp_path)
    file = tmp_path / name
    with monkeypatch.context() as patch:
        patch.setattr(reference.Reference, "_store_statistics", lambda *_: pytest.fail("the cache wasn't used"))
        assert _score(build(), real_digits) == fresh

    flipped = bytearray(file.read_bytes())
    flipped[-5] ^= 1  # one bit of the payload, which safetensors itself would load without a word
    for damaged in (bytes(flipped), b"", file.read_bytes()[:-100]):
        file.write_bytes(damaged)
        with pytest.warns(UserWarning, match="damaged"):
            assert _score(build(), real_digits) == fresh
    assert not list(tmp_path.glob(".*.partial"))


def test_everything_that_changes_the_result_changes_the_key(  # type: ignore[no-untyped-def]
    build, real_digits: Tensor, tmp_path: Path
) -> None:
    changes = [
        {},
        {"about": ABOUT | {"split": "test"}},
        {"about": ABOUT | {"preparation": "crop 6"}},
        {"about": ABOUT | {"fingerprint": "01"}},
        {"count": 100},
        {"count": 101},
        {"images": 255 - real_digits},  # other data under the same words
        {"images": real_digits[:1000]},
        {"images": _with_another_pixel(real_digits)},
    ]
    for number, change in enumerate(changes, 1):
        _score(build(**change), real_digits)
        assert len(_files(tmp_path)) == number
    _score(build(about=dict(reversed(ABOUT.items()))), real_digits)  # the order of words says nothing
    assert len(_files(tmp_path)) == len(changes)


def _with_another_pixel(images: Tensor) -> Tensor:
    changed = images.clone()
    changed[1, 0, 4, 4] ^= 1
    return changed


def test_statistics_of_an_older_version_are_not_read(  # type: ignore[no-untyped-def]
    build, real_digits: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 2 had the mean in float32. Its file stays for older installations, features of all images are reused."""
    monkeypatch.setattr(reference, "FEATURES_KEPT", 500)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "VERSIONS", {"reference": 2, "features": 2})
        patch.setattr(reference, "feature_statistics", _in_float32)
        _score(build(), real_digits)
        build().nearest(real_digits[:2], k=1)
    kept = {what: _files(tmp_path, what) for what in ("reference", "features")}
    again = build()
    _score(again, real_digits)
    again.nearest(real_digits[:2], k=1)
    assert again._reference._statistics["mu"].dtype == np.float64
    assert kept["reference"] < _files(tmp_path)
    assert kept["features"] == _files(tmp_path, "features")


def _in_float32(features: Tensor) -> dict[str, object]:
    statistics = feature_statistics(features)
    return statistics | {"mu": statistics["mu"].astype(np.float32)}


def test_statistics_take_all_images_and_features_a_fixed_subset(  # type: ignore[no-untyped-def]
    build, real_digits: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_features = build().features(real_digits)
    monkeypatch.setattr(reference, "FEATURES_KEPT", 500)
    limited = build()
    provenance = limited(Replay(real_digits), num_samples=600).provenance
    assert (provenance["num_reference"], provenance["kid"]["reference"]) == (1797, 500)
    assert (provenance["kid"]["subset_size"], provenance["precision_recall"]["reference"]) == (500, 500)
    known = limited._reference._statistics
    expected = feature_statistics(all_features)
    assert all(np.array_equal(known[name], expected[name]) for name in expected)
    kept = torch.from_numpy(known["features"])
    positions = torch.cdist(kept, all_features, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    assert torch.equal(all_features[positions], kept)
    assert len(set(positions.tolist())) == 500
    assert positions.max() > 1600  # not merely the first 500


@pytest.mark.parametrize(("kept", "count"), [(10_000, None), (500, None), (10_000, 300)])
def test_nearest_matches_a_naive_search_over_all_images(  # type: ignore[no-untyped-def]
    build, real_digits: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, count: int | None
) -> None:
    monkeypatch.setattr(reference, "FEATURES_KEPT", kept)
    monkeypatch.setattr(evaluator, "CHUNK", 100)
    scorer = build(count=count)
    _score(scorer, real_digits)
    queries = torch.cat([real_digits[[5, 1700]], real_digits[:6].flip(3)])
    distances, indices = scorer.nearest(queries, k=150)  # more than a chunk holds
    found, everything = scorer.features(queries).double(), scorer.features(real_digits).double()
    naive = torch.stack([(everything - query).norm(dim=1) for query in found]).sort(1)
    # float32 features of O(10) in 64 dimensions
    assert torch.allclose(distances.double(), naive.values[:, :150], atol=1e-4)
    assert (indices == naive.indices[:, :150]).double().mean() > 0.99  # ties aside
    assert indices[:2, 0].tolist() == [5, 1700]
    # Where the scores' own file holds all features there is no second one.
    assert len(_files(tmp_path, "features")) == (0 if count is None and kept == 10_000 else 1)
    monkeypatch.setattr(FeatureReader, "read", _only(len(queries), FeatureReader.read))
    again = build(count=count).nearest(queries, k=150)
    assert torch.equal(again[0], distances)
    assert torch.equal(again[1], indices)


def _only(expected, read):  # type: ignore[no-untyped-def]
    def checked(self, batches, count, *arguments):  # type: ignore[no-untyped-def]
        assert count == expected, "the reference was read again"
        return read(self, batches, count, *arguments)

    return checked
