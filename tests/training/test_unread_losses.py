import math

import pytest
import torch

from cs_gan.training import UnreadLosses


def step(losses: UnreadLosses, number: int, **values: float) -> None:
    losses.add(number, {name: torch.tensor(value) for name, value in values.items()})


def test_means_are_over_the_steps_that_had_the_loss():
    losses = UnreadLosses()
    step(losses, 1, a=1.0, b=4.0)
    step(losses, 2, a=2.0)
    assert losses.accept(losses.unread().tolist()) == []
    step(losses, 3, a=6.0)
    losses.accept(losses.unread().tolist())
    assert losses.values == {"a": [1.0, 2.0, 6.0], "b": [4.0]}
    assert losses.take() == {"a": 3.0, "b": 4.0}
    assert losses.values == {}


def test_what_is_kept_does_not_change_with_the_tensor():
    losses, value = UnreadLosses(), torch.tensor(1.0)
    losses.add(1, {"a": value})
    value.fill_(5.0)  # a graph's next replay writes over its outputs
    assert losses.unread().tolist() == [1.0]


def test_the_first_step_that_was_not_finite_is_named():
    losses = UnreadLosses()
    step(losses, 7, a=1.0, b=1.0)
    step(losses, 8, a=1.0, b=math.nan)
    step(losses, 9, a=math.inf, b=math.nan)
    assert losses.accept(losses.unread().tolist()) == [(8, "b"), (9, "a"), (9, "b")]


def test_unread_losses_are_read_once():
    losses = UnreadLosses({"a": [3.0]})
    step(losses, 1, a=1.0)
    losses.accept(losses.unread().tolist())
    step(losses, 2, a=5.0)
    assert losses.unread().tolist() == [5.0]
    losses.accept([5.0])
    assert losses.take() == {"a": pytest.approx(3.0)}
