import pytest
import torch

from cs_gan.data import batch_indices, drawn, load_images, subset
from cs_gan.errors import DataError


@pytest.mark.parametrize(("n", "batch", "world"), [(10, 4, 1), (50, 7, 2), (12, 4, 3), (3, 8, 2), (1, 5, 1)])
def test_draws_end_to_end_are_epochs_each_with_every_image_once(n: int, batch: int, world: int) -> None:
    draws = -(-4 * n // (batch * world))  # enough for four epochs
    stream = torch.cat(
        [batch_indices(n, batch, d, seed=3, rank=r, world_size=world) for d in range(draws) for r in range(world)]
    )
    for epoch in range(4):
        part = stream[epoch * n : (epoch + 1) * n]
        assert torch.equal(part, batch_indices(n, n, epoch, seed=3))
        assert torch.equal(part.sort().values, torch.arange(n))


def test_each_epoch_and_each_seed_has_its_own_order() -> None:
    first = batch_indices(100, 100, 0, seed=0)
    assert not torch.equal(first, batch_indices(100, 100, 1, seed=0))
    assert not torch.equal(first, batch_indices(100, 100, 0, seed=1))
    assert torch.equal(first, batch_indices(100, 100, 0, seed=0))


def test_writing_into_a_batch_leaves_later_draws_alone() -> None:
    before = batch_indices(10, 10, 0, seed=0)
    batch_indices(10, 10, 0, seed=0).zero_()
    assert torch.equal(batch_indices(10, 10, 0, seed=0), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "no images"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"draw": -1}, "draw at least 0"),
        ({"rank": 2, "world_size": 2}, "rank must be in"),
    ],
)
def test_impossible_draws_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        batch_indices(**{"n": 10, "batch_size": 2, "draw": 0, "seed": 0, **arguments})


def test_a_draw_by_class_takes_as_many_of_each_and_all_of_a_class_that_has_fewer() -> None:
    labels = torch.tensor([0] * 40 + [1] * 3 + [2] * 40)[torch.randperm(83, generator=torch.Generator().manual_seed(0))]
    rows = drawn(83, 23, seed=5, labels=labels)
    assert labels[rows].bincount().tolist() == [10, 3, 10]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert sorted(labels[drawn(83, 8, 5, labels)].bincount().tolist()) == [2, 3, 3]
    assert set(drawn(83, 8, 5, labels).tolist()) < set(rows.tolist())
    assert not torch.equal(drawn(83, 23, 6, labels), rows)
    assert torch.equal(drawn(83, 100, 5, labels), torch.arange(83))


def test_a_draw_without_labels_is_uniform() -> None:
    taken = torch.stack([torch.zeros(20).index_fill(0, drawn(20, 5, seed), 1) for seed in range(2000)])
    assert torch.equal(taken.sum(1), torch.full((2000,), 5.0))
    # each image is taken with probability 1/4: 500 times, standard deviation 19; five of those for 20 images
    assert (taken.sum(0) - 500).abs().max() < 97


def test_a_limit_with_a_seed_gives_the_subset_of_all() -> None:
    some = load_images("digits", limit=95, limit_seed=7)
    whole = subset(load_images("digits"), 95, seed=7)
    assert some.fingerprint == whole.fingerprint
    assert some.labels is not None
    assert torch.equal(some.labels, whole.labels)  # type: ignore[arg-type]
    assert "95 of 1,797 drawn by class by seed 7" in some.description
    assert load_images("digits", limit=95).fingerprint != some.fingerprint
