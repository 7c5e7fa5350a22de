import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing, Linear
from cs_gan.errors import CodeError
from tests.core.helpers import observed


@pytest.mark.parametrize(
    ("schedule", "progress", "value"),
    [
        (Linear(1.0, 1.5), 0.0, 1.0),
        (Linear(1.0, 1.5), 0.5, 1.25),
        (Linear(1.0, 1.5), 1.0, 1.5),
        (Linear(1.0, 1.5), 1.7, 1.5),
        (Linear(1.0, 1.5), -0.1, 1.0),
        (Linear(1.0, 1.5, until=0.5), 0.25, 1.25),
        (Linear(1.0, 1.5, until=0.5), 0.8, 1.5),
        (Linear(1.0, 1.5, until=0.0), 0.0, 1.5),
        (Linear(2.0, 0.0), 0.25, 1.5),
    ],
)
def test_linear_is_a_line_held_at_its_ends(schedule, progress, value):
    assert schedule(progress) == pytest.approx(value)


@pytest.mark.parametrize("levels", [2, 3, 5, 100])
def test_levels_are_equally_far_apart_and_equally_long_from_start_to_end(levels):
    schedule, steps = Linear(1.0, 1.5, until=0.5, levels=levels), 2000
    values = [schedule(step / steps) for step in range(steps + 1)]
    seen = list(dict.fromkeys(values))
    assert seen == pytest.approx([1.0 + 0.5 * level / (levels - 1) for level in range(levels)])
    assert values == sorted(values)
    assert (values[0], values[steps // 2], values[-1]) == (1.0, 1.5, 1.5)
    assert {values[: steps // 2].count(value) for value in seen} == {
        steps // 2 // levels + r for r in ([0, 1] if 1000 % levels else [0])
    }


def test_fewer_than_two_levels_are_refused():
    with pytest.raises(CodeError, match="levels=1"):
        Linear(1.0, 1.5, levels=1)


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh()), torch.randn(8, 3)


def test_ratio_and_weight_follow_set_step():
    block, x = network()
    coded = CodedSmoothing(block, [""], Linear(1.0, 2.0), weight=Linear(0.0, 4.0))
    coded.set_step(25, 100)
    assert (coded.ratio, coded.weight, coded.code(8).N) == (1.25, 1.0, 10)
    assert torch.equal(observed(coded, lambda: block(x)), coded.penalties[""])
    coded.set_step(50, 100)
    assert (coded.ratio, coded.weight, coded.code(8).N) == (1.5, 2.0, 12)
    assert torch.equal(observed(coded, lambda: block(x)), 2 * coded.penalties[""])


def test_schedules_of_any_kind_stay_at_their_end_beyond_the_last_step():
    coded = CodedSmoothing(network()[0], [""], lambda progress: 1 + progress, weight=lambda progress: 2 * progress)
    coded.set_step(30, 10, hold_end=True)
    assert (coded.ratio, coded.weight) == (2, 2)


def test_a_penalty_under_inference_mode_leaves_schedules_usable():
    block, x = network()
    coded = CodedSmoothing(block, [""], weight=Linear(0, 4))
    coded.set_step(1, 4)
    with torch.inference_mode():
        observed(coded, lambda: block(x))
    coded.set_step(2, 4)
    assert torch.equal(observed(coded, lambda: block(x)), 2 * coded.penalties[""])


@pytest.mark.parametrize("options", [{"ratio": Linear(1, 2)}, {"weight": Linear(1, 2)}, {"every": 2}])
def test_what_depends_on_the_step_asks_for_it(options):
    block, x = network()
    coded = CodedSmoothing(block, [""], **options)
    with pytest.raises(CodeError, match="set_step"):
        observed(coded, lambda: block(x))
    coded.set_step(0, 10)
    assert observed(coded, lambda: block(x)).isfinite()


def test_every_third_step_observes_with_three_times_the_penalty():
    block, x = network()
    always, lazy = observed(CodedSmoothing(block, [""], 1.5, weight=0.5), lambda: block(x)), None
    lazy = CodedSmoothing(block, [""], 1.5, weight=0.5, every=3)
    for step in range(7):
        lazy.set_step(step, 7)
        calls = []
        with lazy.observe():
            handle = block.register_forward_hook(lambda *_, calls=calls: calls.append(1))
            block(x)
            handle.remove()
        if step % 3 == 0:
            torch.testing.assert_close(lazy.penalty(), 3 * always, rtol=1e-6, atol=0)
        else:
            assert lazy.penalty().item() == 0
            assert lazy.penalties == {}
            assert len(calls) == 1  # and it costs nothing


@pytest.mark.parametrize(
    "options",
    [
        {"every": 0},
        {"ratio": 0.0},
        {"ratio": -1.0},
        {"batch_norm": "freeze"},
        {"nodes": "chebychev"},
        {"spline": "cubic"},
        {"decoder_kind": "pinv"},
        {"smoothing": -1.0},
    ],
)
def test_impossible_options_are_refused_when_attached(options):
    block, _ = network()
    with pytest.raises(CodeError):
        CodedSmoothing(block, [""], **options)
    CodedSmoothing(block, [""])  # and nothing was attached


@pytest.mark.parametrize("arguments", [(-1, 10), (0, 0), (100, 3), ("1", 3), (None, 3)])
def test_impossible_steps_are_refused(arguments):
    block, _ = network()
    with pytest.raises(CodeError, match="set_step"):
        CodedSmoothing(block, [""]).set_step(*arguments)


class TestRandomNodes:
    def series(self, steps, seed=0, per_step=2):
        """The penalties of two calls in each of ``per_step`` contexts of each step."""
        torch.manual_seed(3)
        block, x = network()
        coded = CodedSmoothing(block, [""], 1.5, nodes="random", seed=seed)
        values = []
        for step in steps:
            coded.set_step(step, 100)
            for _ in range(per_step):
                values.append(observed(coded, lambda: block(x)).item())
        return values

    def test_every_call_draws_anew(self):
        assert len(set(self.series(range(4)))) == 8

    def test_draws_follow_from_seed_and_step_alone(self):
        undisturbed, resumed = self.series(range(5)), self.series(range(3, 5))
        assert resumed == undisturbed[6:]
        assert self.series(range(5), seed=1) != undisturbed

    def test_draws_differ_without_set_step_too(self):
        block, x = network()
        coded = CodedSmoothing(block, [""], 1.5, nodes="random")
        assert len({observed(coded, lambda: block(x)).item() for _ in range(4)}) == 4

    def test_global_random_state_does_not_move(self):
        block, x = network()
        before = torch.get_rng_state()
        observed(CodedSmoothing(block, [""], 1.5, nodes="random"), lambda: block(x))
        assert torch.equal(torch.get_rng_state(), before)


NUMBERLESS = [float("nan"), float("inf"), -1.0, "1.5", None, True, torch.tensor(1.5)]


@pytest.mark.parametrize("value", [*NUMBERLESS, 0, 1e12])
def test_a_ratio_that_is_none_is_refused_at_once_and_in_a_schedule_when_it_comes(value):
    with pytest.raises(CodeError, match=r"ratio=.*: N/K must be a number above 0, at most 1000"):
        CodedSmoothing(nn.Linear(3, 3), [""], value)
    coded = CodedSmoothing(nn.Linear(3, 3), [""], lambda progress: value if progress else 1.0)
    coded.set_step(0, 2)
    assert coded.code(8).N == 8
    coded.set_step(1, 2)
    with pytest.raises(CodeError, match="ratio="):
        coded.code(8)


@pytest.mark.parametrize("value", NUMBERLESS)
def test_a_weight_that_is_none_is_refused_at_once_and_in_a_schedule_when_it_comes(value):
    with pytest.raises(CodeError, match=r"weight=.*: the penalty's weight must be a finite number of at least 0"):
        CodedSmoothing(nn.Linear(3, 3), [""], weight=value)
    coded = CodedSmoothing(block := nn.Linear(3, 3), [""], weight=lambda progress: value if progress else 1.0)
    coded.set_step(0, 2)
    observed(coded, lambda: block(torch.randn(6, 3)))
    with pytest.raises(CodeError, match="weight="):
        coded.set_step(1, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None])
def test_the_ends_of_a_line_are_numbers(value):
    for ends in ((value, 1.0), (1.0, value), (1.0, 1.5, value)):
        with pytest.raises(CodeError, match="start, end and until must be finite numbers"):
            Linear(*ends)
