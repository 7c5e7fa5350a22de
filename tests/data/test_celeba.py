"""CelebA in the layouts that people have; its relatives are told by their size."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.datasets import CelebA

from cs_gan.data import load_images
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]
Zipped = Callable[[Path], Path]

NAMES = [f"{i:06}.png" for i in range(1, 9)]
CSV = "image_id,partition\n" + "".join(f"{name[:6]}.jpg,{i % 3}\n" for i, name in enumerate(NAMES))
TXT = "".join(f"{name[:6]}.jpg {i % 3}\n" for i, name in enumerate(NAMES))
COUNTS = {"train": 3, "valid": 3, "test": 2, "all": 8}


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CelebA, "download", lambda self: pytest.fail("tried to download"))


@pytest.mark.parametrize(
    ("images", "table", "content", "below"),
    [
        ("img_align_celeba/img_align_celeba", "list_eval_partition.csv", CSV, ""),  # Kaggle
        ("img_align_celeba/img_align_celeba", "list_eval_partition.csv", CSV, "img_align_celeba/img_align_celeba"),
        ("Img/img_align_celeba", "Eval/list_eval_partition.txt", TXT, ""),  # the authors
        ("Img/img_align_celeba", "Eval/list_eval_partition.txt", TXT, "Img/img_align_celeba"),
        ("celeba/img_align_celeba", "celeba/list_eval_partition.txt", TXT, ""),  # torchvision
        ("celeba/img_align_celeba", "celeba/list_eval_partition.txt", TXT, "celeba"),
        ("celeba/img_align_celeba", "celeba/list_eval_partition.txt", TXT, "celeba/img_align_celeba"),
        ("faces", "list_eval_partition.csv", CSV, ""),
    ],
)
def test_the_partition_is_used_wherever_it_lies(
    images: str, table: str, content: str, below: str, make_images: MakeImages
) -> None:
    root = make_images(*(f"{images}/{name}" for name in NAMES), width=178, height=218)
    (root / table).parent.mkdir(exist_ok=True)
    (root / table).write_text(content)
    stores = {split: load_images("celeba", root / below, split=split) for split in COUNTS}
    assert {split: len(store) for split, store in stores.items()} == COUNTS
    assert torch.equal(stores["train"].images, stores["all"].images[[0, 3, 6]])
    assert stores["train"].split == "train"
    assert f"(train by {table.rpartition('/')[2]}): 3 images" in stores["train"].description


def test_kaggles_zip_is_split_and_so_is_a_zip_beside_the_list(make_images: MakeImages, tmp_path: Path) -> None:
    root = make_images(*(f"img_align_celeba/img_align_celeba/{name}" for name in NAMES), width=178, height=218)
    for name, inside in (("archive.zip", True), ("faces.zip", False)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path in sorted(root.rglob("*.png")):
                archive.write(path, path.relative_to(root))
            if inside:
                archive.writestr("list_eval_partition.csv", CSV)
    assert len(load_images("celeba", tmp_path / "archive.zip", split="test")) == 2
    whole = load_images("celeba", tmp_path / "faces.zip", split="test")
    assert (len(whole), whole.split) == (8, "all")
    (tmp_path / "list_eval_partition.txt").write_text(TXT)
    assert len(load_images("celeba", tmp_path / "faces.zip", split="test")) == 2


def test_a_part_of_the_images_is_said(make_images: MakeImages) -> None:
    root = make_images(*NAMES[:4], width=178, height=218)
    (root / "list_eval_partition.txt").write_text(TXT)
    assert "(train by list_eval_partition.txt, which lists 4 more images): 2" in load_images("celeba", root).description


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TXT[:26], r"000003\.png isn't in .*list_eval_partition\.txt, so it is of no split"),
        ("", "is empty"),
        ("000001.jpg 3\n", r"line 1: '000001\.jpg 3' isn't '<image> <0, 1 or 2>'"),
        ("000001.jpg 0\n000001.jpg 1\n", r"line 2: 000001\.jpg occurs twice"),
        (TXT.replace(" 2", " 1"), r"no images of the split 'test'"),
    ],
)
def test_a_partition_that_does_not_fit_is_refused(content: str, message: str, make_images: MakeImages) -> None:
    root = make_images(*NAMES, width=178, height=218)
    (root / "list_eval_partition.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        load_images("celeba", root, split="test")


def test_images_of_one_name_are_refused(make_images: MakeImages) -> None:
    root = make_images("a/000001.png", "b/000001.png", width=178, height=218)
    (root / "list_eval_partition.txt").write_text(TXT)
    with pytest.raises(DataError, match=r"b/000001\.png and .*a/000001\.png have one name"):
        load_images("celeba", root)


@pytest.mark.parametrize(
    ("names", "size", "message"),
    [
        (["CelebA-HQ-img/0.png"], 1024, "CelebA-HQ and CelebAMask-HQ have this size: use --data.name=folder"),
        (["CelebAMask-HQ-mask-anno/0/0_nose.png"], 512, "masks of CelebAMask-HQ .* no faces: use --data.name=folder"),
        (["data256x256/1.png"], 256, "CelebA-HQ is often stored in this size: use --data.name=folder"),
        (["1.png"], 178, "cropped already: use --data.name=folder"),
    ],
)
def test_relatives_are_refused_with_the_name_that_fits(
    names: list[str], size: int, message: str, make_images: MakeImages
) -> None:
    root = make_images(*names, width=size, height=size)
    with pytest.raises(DataError, match=rf"is {size}x{size}, but this data set's are 178x218: .*{message}"):
        load_images("celeba", root)
    assert len(load_images("folder", root, image_size=64)) == 1


def test_a_download_goes_where_torchvision_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("torchvision.datasets.CelebA", _recorded(asked))
    (tmp_path / "celeba").mkdir()
    for root in (tmp_path, tmp_path / "celeba"):
        with pytest.raises(DataError, match="couldn't be downloaded"):
            load_images("celeba", root)
    assert asked == [tmp_path, tmp_path]


def _recorded(asked: list[Path]) -> object:
    class Recorded:
        base_folder = "celeba"

        def __init__(self, folder: Path, **_: object) -> None:
            asked.append(folder)
            raise OSError("no network")

    return Recorded
