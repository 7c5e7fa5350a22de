"""CapturedStep on a CPU, with a recorder in the place of CUDA graphs; tests/test_cuda.py has the real ones."""

from __future__ import annotations

import pytest
import torch

from cs_gan.training.capture import KEPT, WARM_UP, CapturedStep
from tests.training.recorder import Recorder

CPU = torch.device("cpu")


class Count:
    """A step with a weight of its own: adds ``by`` times ``rate``, and gives the sum."""

    def __init__(self) -> None:
        self.total, self.rate, self.python_calls = torch.zeros(()), torch.ones(()), 0

    def __call__(self, by: torch.Tensor) -> dict[str, torch.Tensor]:
        self.python_calls += 1
        self.total += by * self.rate
        return {"total": self.total.clone()}


def test_a_captured_step_does_what_the_plain_one_does():
    capture = Recorder()
    plain, captured = Count(), Count()
    step = CapturedStep(captured, CPU, capture=capture)
    for i in range(10):
        for count in (plain, captured):
            count.rate.fill_(0.5 + i)
        by = torch.tensor(float(i))
        assert step("only", {"by": by})["total"] == plain(by)["total"]
    assert (capture.captures, capture.replays) == (1, 10 - WARM_UP)
    assert captured.python_calls == WARM_UP + 1  # the recorder has to run what it records


def test_without_capture_the_function_is_called_each_time():
    count = Count()
    step = CapturedStep(count, CPU, capture=None)
    for _ in range(5):
        step("only", {"by": torch.ones(())})
    assert (count.total, count.python_calls) == (5, 5)
    assert not step.captures


def test_variants_that_do_not_come_back_are_dropped_and_what_they_held_with_them():
    import weakref

    class Held:
        pass

    capture, count = Recorder(), Count()
    step = CapturedStep(count, CPU, capture=capture)
    gone = []
    for variant in range(KEPT + 2):
        held = Held()
        gone.append(weakref.ref(held))
        for _ in range(WARM_UP + 1):
            step(variant, {"by": torch.ones(())}, held)
        del held
    assert [reference() is None for reference in gone] == [True, True] + [False] * KEPT
    before = capture.captures
    for _ in range(WARM_UP + 1):  # one that was dropped comes back
        step(0, {"by": torch.ones(())})
    assert capture.captures == before + 1
    assert count.total == (KEPT + 3) * (WARM_UP + 1)


def test_the_variant_used_last_is_dropped_last():
    capture = Recorder()
    step = CapturedStep(Count(), CPU, capture=capture)

    def often(variant: int) -> None:
        for _ in range(WARM_UP + 1):
            step(variant, {"by": torch.ones(())})

    for variant in range(KEPT):
        often(variant)
    step(0, {"by": torch.ones(())})
    often(KEPT)  # drops 1, not 0
    before = capture.captures
    step(0, {"by": torch.ones(())})
    assert capture.captures == before


def test_a_step_that_reads_on_the_host_runs_without_and_says_why():
    total = torch.zeros(())

    def reads(by: torch.Tensor) -> dict[str, torch.Tensor]:
        if bool(by > 0):
            total.add_(by)
        return {"total": total}

    step = CapturedStep(reads, CPU, capture=Recorder())
    for _ in range(WARM_UP):
        step("only", {"by": torch.ones(())})
    with pytest.warns(UserWarning, match="the step can't be captured .* read on the host"):
        step("only", {"by": torch.ones(())})
    assert not step.captures
    step("only", {"by": torch.ones(())})
    assert total == WARM_UP + 2


def test_a_number_of_pythons_is_baked_in_which_the_recorder_shows():
    # What the recorder is for: this step would go wrong under a graph, and the tests of tasks would see it.
    rate = [1.0]
    total = torch.zeros(())
    step = CapturedStep(lambda by: {"total": total.add_(by * rate[0])}, CPU, capture=Recorder())
    for i in range(WARM_UP + 3):
        rate[0] = float(i)
        step("only", {"by": torch.ones(())})
    assert total != sum(range(WARM_UP + 3))
