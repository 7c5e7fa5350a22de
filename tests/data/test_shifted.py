"""CIFAR-10.1, 10.2 and 10-C as published, in small: what fits is read, all else is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cs_gan.data import load_shifted, shifted
from cs_gan.errors import DataError

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images where there are thousands; for 10-C, two for each severity."""
    monkeypatch.setattr(shifted, "_COUNTS", {"cifar10.1": 4, "cifar10.1_v4": 5, "cifar10.2": 4, "cifar10_c": 10})


def pixels(n: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def cifar10_c(tmp_path: Path) -> Path:
    np.save(tmp_path / "labels.npy", np.tile([7, 1], 5).astype(np.uint8))
    for seed, name in enumerate(("fog", "snow")):
        np.save(tmp_path / f"{name}.npy", pixels(10, seed))
    return tmp_path


@pytest.mark.parametrize(("name", "stem", "n"), [("cifar10.1", "v6", 4), ("cifar10.1_v4", "v4", 5)])
@pytest.mark.parametrize("below", ["", "datasets"])
def test_cifar10_1(name: str, stem: str, n: int, below: str, tmp_path: Path) -> None:
    (tmp_path / below).mkdir(exist_ok=True)
    np.save(tmp_path / below / f"cifar10.1_{stem}_data.npy", pixels(n))
    np.save(tmp_path / below / f"cifar10.1_{stem}_labels.npy", np.arange(n, dtype=np.int32))
    store = load_shifted(name, tmp_path)
    np.testing.assert_array_equal(store.images.permute(0, 2, 3, 1), pixels(n))
    assert store.labels is not None
    assert store.labels.tolist() == list(range(n))
    assert store.class_names[3] == "cat"
    assert store.description.startswith(f"{name} (test): {n} images, 3x32x32")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_cifar10_2_is_read_beside_the_objects_that_its_file_holds(save: Callable[..., None], tmp_path: Path) -> None:
    names = np.array(["cat", {}], dtype=object)  # would need pickle
    save(tmp_path / "cifar102_test.npz", images=pixels(4), labels=np.array([9, 0, 5, 5]), label_names=names)
    store = load_shifted("cifar10.2", tmp_path, limit=2)
    np.testing.assert_array_equal(store.images.permute(0, 2, 3, 1), pixels(4)[[0, 2]])
    assert store.labels is not None
    assert store.labels.tolist() == [9, 5]


@pytest.mark.parametrize("severity", [1, 3, 5, None])
def test_cifar10_c_has_one_severity_after_the_other(severity: int | None, cifar10_c: Path) -> None:
    store = load_shifted("cifar10_c", cifar10_c, "snow", severity)
    expected = pixels(10, seed=1)
    if severity:
        expected = expected[2 * severity - 2 : 2 * severity]
    np.testing.assert_array_equal(store.images.permute(0, 2, 3, 1), expected)
    assert store.labels is not None
    assert store.labels.tolist() == [7, 1] * (len(expected) // 2)
    assert store.split == f"snow, severity {severity or '1 to 5'}"


def test_images_are_made_to_fit_the_network(cifar10_c: Path) -> None:
    store = load_shifted("cifar10_c", cifar10_c, "fog", 2, image_size=16, channels=1)
    assert store.images.shape == (2, 1, 16, 16)


def test_real_class_names_are_torchvisions(cifar10_c: Path) -> None:
    # torchvision reads them from the files it downloads, so they are written down once more.
    known = "airplane automobile bird cat deer dog frog horse ship truck"
    assert load_shifted("cifar10_c", cifar10_c, "fog").class_names == tuple(known.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cifar10.3"}, r"Unknown data set 'cifar10\.3'; .* Did you mean 'cifar10\.[12]'"),
        ({"name": "cifar10.1", "corruption": None}, r"cifar10\.1_v6_data\.npy is missing. Get it from https://github"),
        ({"name": "cifar10.2", "corruption": None}, r"cifar102_test\.npz is missing"),
        ({"name": "cifar10.2", "severity": 1}, "only cifar10_c has a corruption and a severity"),
        ({"corruption": None}, r"corruption=None\): .* has fog, snow\. Give one"),
        ({"corruption": "../fog"}, r"has fog, snow\."),
        ({"corruption": "labels"}, r"has fog, snow\."),
        ({"severity": 6}, r"severity=6\): give 1 \.\.\. 5"),
        ({"severity": 0}, r"severity=0\): give 1 \.\.\. 5"),
        ({"image_size": 0}, "image_size=0"),
        ({"channels": 2}, "channels=2"),
        ({"limit": 0}, "limit=0"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str, cifar10_c: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_shifted(**{"name": "cifar10_c", "root": cifar10_c, "corruption": "fog", **arguments})


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone isn't a folder"):
        load_shifted("cifar10.1", tmp_path / "gone")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (pixels(3), np.arange(4), r"images are uint8 \(3, 32, 32, 3\), not uint8 \(4, 32, 32, 3\)"),
        (pixels(4).transpose(0, 3, 1, 2), np.arange(4), r"images are uint8 \(4, 3, 32, 32\)"),
        (pixels(4).astype(np.float32), np.arange(4), "images are float32"),
        (pixels(4), np.arange(3), r"labels are int64 \(3,\), not whole numbers \(4,\)"),
        (pixels(4), np.ones((4, 10), np.int64), r"labels are int64 \(4, 10\)"),
        (pixels(4), np.arange(4.0), r"labels are float64"),
        (pixels(4), np.array([0, 1, 10, 2]), r"image 2 has label 10 .* the 10 classes are 0 \.\.\. 9"),
        (
            pixels(4),
            np.array([{}] * 4),
            r"isn't an? \.np[yz] file (with|of) plain .*(isn't numbers|Python objects in dtype)",
        ),
    ],
)
@pytest.mark.parametrize("name", ["cifar10.1", "cifar10.2"])
def test_arrays_that_are_not_as_published_are_refused(
    name: str, images: Any, labels: Any, message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "cifar102_test.npz", images=images, labels=labels)
    np.save(tmp_path / "cifar10.1_v6_data.npy", images)
    np.save(tmp_path / "cifar10.1_v6_labels.npy", labels)
    if name == "cifar10.2" and images.dtype == np.float32:
        message = "holds more than 4 images of 32x32"  # seen before it is unpacked
    with pytest.raises(DataError, match=message):
        load_shifted(name, tmp_path)


def test_a_packed_array_that_is_too_large_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "cifar102_test.npz", images=np.zeros((999, 32, 32, 3), np.uint8), labels=[0])
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("was unpacked"))
    with pytest.raises(DataError, match=r"cifar102_test\.npz holds more than 4 images"):
        load_shifted("cifar10.2", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY but no more", b"text", b"PK\3\4", None])
@pytest.mark.parametrize("name", ["cifar10_c", "cifar10.2"])
def test_damaged_and_truncated_files_are_named(name: str, content: bytes | None, cifar10_c: Path) -> None:
    file = "fog.npy" if name == "cifar10_c" else "cifar102_test.npz"
    (cifar10_c / file).write_bytes((cifar10_c / "fog.npy").read_bytes()[:-100] if content is None else content)
    with pytest.raises(DataError, match=rf"{file} isn't an? \.np[yz] file .*Get it again"):
        load_shifted(name, cifar10_c, "fog" if name == "cifar10_c" else None)
