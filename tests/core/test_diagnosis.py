"""coded.diagnose: its figures against naive loops and closed forms, and a test that provokes each warning."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cs_gan import CodedSmoothing, HeldShare, SplineCode
from cs_gan.core.diagnosis.measure import code_condition
from cs_gan.errors import BatchError, BlockError, CodeError
from tests.core.helpers import Function, hook_count, mlp, observed
from tests.core.oracles import naive_decode, naive_encode


class Scaled(nn.Module):
    """Its input, by a trained factor of 1."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.factor


def signatures(report):
    return {finding.signature for finding in report.findings}


class TestFigures:
    def test_parts_are_those_of_the_splines_done_feature_by_feature(self):
        block, x, code = mlp().double(), torch.randn(8, 3).double(), SplineCode(8, 12)
        with torch.no_grad():
            Y, decoded = block(x), naive_decode(code, block(naive_encode(code, x)))
        affine = naive_decode(code, naive_encode(code, Y)) - Y
        curved = decoded - naive_decode(code, naive_encode(code, Y))
        parts = CodedSmoothing(block, [""], 1.5).diagnose(lambda: block(x)).blocks[""].parts
        ours = [parts.error, parts.affine, parts.curvature, parts.cross, parts.variance, parts.power]
        cross = 2 * (affine * curved).mean()
        expected = [(decoded - Y).square().mean(), affine.square().mean(), curved.square().mean(), cross]
        expected += [(Y - Y.mean(0)).square().mean(), Y.square().mean()]
        # Two ways to fit one spline in float64: norms below 2.1 leave a few dozen roundings of 1e-16.
        torch.testing.assert_close(ours, [value.item() for value in expected], rtol=1e-9, atol=1e-13)

    def test_shares_are_those_of_gradients_computed_apart_and_proposed_weights_give_them(self):
        model, x, y = mlp().double(), torch.randn(32, 3).double(), torch.randint(2, (32,))
        coded = CodedSmoothing(model, ["0", "2", ""], 1.25)
        loss = lambda logits: F.cross_entropy(logits, y)

        def norm(scalar):
            slopes = torch.autograd.grad(scalar, list(model.parameters()), retain_graph=True, allow_unused=True)
            return slopes

        def share(factor, penalty, task):
            both = [(p, t) for p, t in zip(norm(penalty), norm(task), strict=True) if p is not None]
            over, under = (sum(each.square().sum() for each in side).sqrt() for side in zip(*both, strict=True))
            return (factor * over / under).item()

        with coded.observe():
            task = loss(model(x))
        for mu in (None, 0.3):
            report = coded.diagnose(lambda: model(x), loss, mu=mu, weight=0.7)
            graph = coded.diagnose(lambda: model(x), task, mu=mu, weight=0.7)
            factor = 0.7 if mu is None else 0.7 * 0.3 / 0.7
            terms = coded.penalties | {"all blocks": sum(coded.penalties.values())}
            for name, penalty in terms.items():
                if name in report.blocks:
                    expected = pytest.approx(share(factor, penalty, task), rel=1e-6)  # ours are summed in float32
                    assert report.blocks[name].gradient_share == expected
                    assert graph.blocks[name].gradient_share == expected
                for wanted, value in report.proposals()[name].items():
                    factor_then = value if mu is None else 0.7 * value / (1 - value)
                    assert share(factor_then, penalty, task) == pytest.approx(wanted, rel=1e-5)
            key = "weight" if mu is None else "mu"
            assert f"all blocks: {key} " in str(report)
            assert " for 1%, 5%, 10% of the gradient" in str(report)
        (task + coded.penalty()).backward()  # the graph is still there

    @pytest.mark.parametrize("mu", [None, 0.3])
    def test_a_held_share_that_was_not_measured_yet_is_shown_with_the_weight_it_jumps_to(self, mu):
        model, x, y = mlp(), torch.randn(32, 3), torch.randint(2, (32,))
        coded = CodedSmoothing(model, [""], 1.0, weight=HeldShare(0.03))
        report = coded.diagnose(lambda: model(x), lambda logits: F.cross_entropy(logits, y), mu=mu)
        assert report.blocks[""].gradient_share == pytest.approx(0.03, rel=1e-4)
        assert "plain training" not in str(report)
        given = coded.diagnose(lambda: model(x), lambda logits: F.cross_entropy(logits, y), mu=mu, weight=1e-6)
        assert "plain training" in str(given)

    def test_a_block_that_did_not_run_is_named(self):
        model, x = mlp(), torch.randn(32, 3)
        model.unused = nn.Linear(3, 3)
        coded = CodedSmoothing(model, ["0", "unused"])
        report = coded.diagnose(lambda: model[:3](x))
        assert "no effect, block 'unused': it did not run in this call" in str(report)

    def test_an_affine_block_with_more_features_than_samples_is_all_affine_part(self):
        block = nn.Linear(50, 40).double()
        report = CodedSmoothing(block, [""], 1.0).diagnose(lambda: block(torch.randn(16, 50).double()))
        assert report.blocks[""].affine_share == pytest.approx(1, abs=1e-9)
        assert report.blocks[""].curvature_share == pytest.approx(0, abs=1e-9)

    def test_zero_forcing_leaves_the_curvature_part_alone(self):
        block, x = mlp().double(), torch.randn(16, 3).double()
        report = CodedSmoothing(block, [""], 1.0, decoder_kind="zero-forcing").diagnose(lambda: block(x))
        assert report.blocks[""].affine_share == pytest.approx(0, abs=1e-9)
        assert report.blocks[""].curvature_share == pytest.approx(1, abs=1e-6)
        assert report.blocks[""].penalty > 1e-6

    def test_penalty_adds_up_over_calls_outputs_and_blocks_as_observe_does(self):
        block = Function(lambda x: {"a": x.tanh(), "b": (x.square(), x[:, 0])})
        model, x = nn.Sequential(nn.Linear(3, 3), block), torch.randn(16, 3)
        coded = CodedSmoothing(model, ["0", "1"], 1.25)
        call = lambda: (model(x), model(2 * x))
        report = coded.diagnose(call)
        observed(coded, call)
        assert {name: block.penalty for name, block in report.blocks.items()} == {
            name: value.item() for name, value in coded.penalties.items()
        }
        for figures in report.blocks.values():
            assert figures.calls == 2
            # The penalty is summed in float32, the parts in float64.
            assert figures.parts.error == pytest.approx(figures.penalty, rel=1e-5)

    def test_share_is_of_the_objective(self):
        block, x = mlp(), torch.randn(16, 3)
        coded = CodedSmoothing(block, [""], 1.0, weight=3.0)
        P = coded.diagnose(lambda: block(x)).blocks[""].penalty
        assert coded.diagnose(lambda: block(x), -2.0).blocks[""].share == pytest.approx(3 * P / (2 + 3 * P))
        share = coded.diagnose(lambda: block(x), torch.tensor(2.0), mu=0.25, weight=1.0).blocks[""].share
        assert share == pytest.approx(0.25 * P / (0.75 * 2 + 0.25 * P))

    def test_headroom_is_what_doubled_outputs_take_off_the_task_loss(self):
        x = torch.linspace(-1, 1, 16).double()[:, None]
        block = Function(lambda x: 0.5 * x + 3)
        report = CodedSmoothing(block, [""]).diagnose(lambda: block(x), lambda y: (y - x - 3).square().mean())
        # (1/2 - 1)^2, (1 - 1)^2 and (0 - 1)^2 times the mean square of x.
        assert report.blocks[""].headroom == pytest.approx(0.25)

    @pytest.mark.parametrize(
        ("loss", "bounded"),
        [
            (lambda scores: 5 - scores.mean(), False),
            (lambda scores: 5 - scores.mean() + torch.rand(()), False),  # a gradient penalty at random points
            (lambda scores: (1 - scores).relu().mean(), True),
            (lambda scores: (5 - scores).square().mean(), True),
            (lambda scores: nn.functional.binary_cross_entropy(scores.sigmoid(), torch.ones_like(scores)), True),
        ],
        ids=["wgan", "wgan with noise", "hinge", "squares", "bce"],
    )
    def test_a_loss_without_lower_bound_has_no_headroom(self, loss, bounded):
        """5 - mean has a headroom between 0 and 1 that only says where its zero is."""
        block, x = mlp(), torch.randn(16, 3)
        found = CodedSmoothing(block, [""]).diagnose(lambda: block(x), loss).blocks[""]
        assert (found.headroom is not None) == bounded

    def test_a_report_without_a_loss_says_that_strength_was_not_measured(self):
        block, x = mlp(), torch.randn(16, 3)
        coded = CodedSmoothing(block, [""])
        assert "strength not measured" in str(coded.diagnose(lambda: block(x)))
        assert "strength not measured" in str(coded.diagnose(lambda: block(x), 2.0))
        assert "strength not measured" not in str(coded.diagnose(lambda: block(x), lambda y: y.square().mean()))

    def test_figures_follow_the_batch_wherever_the_block_has_it(self):
        front, back = mlp().double(), Function(lambda x: front(x.movedim(1, 0)).movedim(0, 1))
        back.front = front  # its parameters are the model's
        x = torch.randn(16, 3).double()
        loss = lambda y: y.square().mean()
        one = CodedSmoothing(front, [""]).diagnose(lambda: front(x), loss)
        other = CodedSmoothing(back, [""], batch_axis=1).diagnose(lambda: back(x.movedim(0, 1)), loss)
        assert str(one) == str(other)
        assert one.blocks[""].headroom == pytest.approx(other.blocks[""].headroom, rel=1e-9)

    def test_condition_of_the_code_against_numpys_norms(self):
        E, D = SplineCode(16, 24).encoder, SplineCode(16, 24).decoder
        condition = code_condition(SplineCode(16, 24))
        assert condition.encoder_norm == pytest.approx(torch.linalg.matrix_norm(E, torch.inf).item())
        assert condition.decoder_norm == pytest.approx(torch.linalg.matrix_norm(D, torch.inf).item())
        assert condition.condition == pytest.approx(torch.linalg.cond(E).item())
        assert condition.bias == pytest.approx(torch.dist(D @ E, torch.eye(16)).item() ** 2 / 16)

    def test_under_autocast_penalty_is_near_the_float32_one(self):
        block, x = mlp(16), torch.randn(32, 3)
        coded = CodedSmoothing(block, [""], 1.0)

        def call():
            with torch.autocast("cpu", torch.bfloat16):
                return block(x)

        exact, rounded = coded.diagnose(lambda: block(x)).blocks[""], coded.diagnose(call).blocks[""]
        # bfloat16 has 8 bits; outputs of order 1 are off by about 2^-8.
        assert abs(rounded.penalty**0.5 - exact.penalty**0.5) < 4 * 2**-8


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x


class TestNothingIsLeftBehind:
    def test_model_gradients_random_state_and_penalties_are_what_they_were(self):
        norm = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5))
        model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), norm, nn.Dropout(0.5), Counting())
        x = torch.randn(16, 3)
        coded = CodedSmoothing(model, ["0", "2"], 1.0, nodes="random")
        with coded.observe():
            loss = model(x).square().mean()
        (loss + coded.penalty()).backward(retain_graph=True)
        state, grads = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
        buffers, penalty = [id(buffer) for buffer in model.buffers()], coded.penalty()
        random, drawn, versions = torch.get_rng_state(), coded._drawn, [b._version for b in model.buffers()]
        coded.diagnose(lambda: model(x), lambda y: y.square().mean(), mu=0.5)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))
        assert [id(buffer) for buffer in model.buffers()] == buffers
        assert [buffer._version for buffer in model.buffers()] == versions
        assert torch.equal(torch.get_rng_state(), random)
        assert torch.equal(coded.penalty(), penalty)
        assert (model[4].calls, coded._drawn, model.training, hook_count(model)) == (1, drawn, True, 0)
        (loss + coded.penalty()).backward()

    def test_model_and_hooks_are_as_before_after_an_exception(self):
        model, x = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), torch.randn(16, 3)
        before = copy.deepcopy(model.state_dict())
        coded = CodedSmoothing(model, ["1"])

        def call():
            model(x)
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            coded.diagnose(call)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert hook_count(model) == 0
        coded.diagnose(lambda: model(x))


class TestWarnings:
    """Blocks and losses made to show one signature each; the healthy one shows none."""

    def report(self, block, K=32, ratio=1.0, loss=1.0, **options):
        x = torch.linspace(-1, 1, K)[torch.randperm(K)][:, None]
        model = nn.Sequential(Scaled(), block)  # something to train, else that is a signature too
        return CodedSmoothing(model, ["1"], ratio).diagnose(lambda: model(x), loss, **options)

    def test_a_healthy_block_shows_nothing_and_says_so(self):
        report = self.report(Function(lambda x: x.tanh()))
        assert signatures(report) == set()
        assert "no failure signature" in str(report)

    @pytest.mark.parametrize(
        ("block", "loss", "options"),
        [
            (lambda x: x, 1e-3, {"weight": 10.0}),
            (lambda x: 30 + x, 1e-2, {}),
            (lambda x: x / 4, lambda y: (F.softplus(-4 * y.abs())).mean(), {"weight": 100.0}),
        ],
        ids=["share", "spread", "headroom"],
    )
    def test_a_penalty_that_dominates_is_reported_as_over_smoothing(self, block, loss, options):
        report = self.report(Function(block), loss=loss, **options)
        assert signatures(report) - {"only shrinks"} == {"over-smoothing"}
        assert "Lower mu or the weight" in str(report)

    def test_outputs_that_shrink_by_much_are_reported_as_over_smoothing(self):
        before = self.report(Function(lambda x: x))
        assert signatures(self.report(Function(lambda x: 0.6 * x), loss=0.1, earlier=before)) == {
            "over-smoothing",
            "only shrinks",
        }
        assert signatures(self.report(Function(lambda x: 0.9 * x), loss=0.1, earlier=before)) == {"only shrinks"}

    def test_a_penalty_without_influence_is_reported_as_collapse_to_erm(self):
        for ratio, loss in [(4.0, 1e-6), (1.0, 1e3), (4.0, None)]:
            report = self.report(Function(lambda x: x), ratio=ratio, loss=loss)
            assert signatures(report) == {"collapse to ERM", "only shrinks"}

    def test_a_batch_of_8_is_reported_as_small(self):
        assert signatures(self.report(Function(lambda x: x.tanh()), K=8, loss=0.1)) == {"small batch"}

    def test_a_block_with_nothing_to_train_has_no_effect(self):
        x = torch.linspace(-1, 1, 32)[:, None]
        block, frozen = Function(torch.tanh), mlp().requires_grad_(False)
        for model, loss in (
            (block, None),
            (block, 1.0),
            (nn.Sequential(block, nn.Linear(1, 2)), lambda y: y.square().mean()),
        ):
            name = "0" if isinstance(model, nn.Sequential) else ""
            report = CodedSmoothing(model, [name], 1.0, replace=True).diagnose(lambda m=model: m(x), loss)
            assert "no effect" in signatures(report)
            assert "nothing in the block or before it is trained" in str(report)
        report = CodedSmoothing(frozen, [""], 1.0).diagnose(lambda: frozen(torch.randn(32, 3)))
        assert signatures(report) == {"no effect"}

    def test_a_last_layer_that_starts_at_0_is_neither_affine_nor_without_training(self):
        model, x = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(32, 3)
        for parameter in model[2].parameters():
            nn.init.zeros_(parameter)
        coded = CodedSmoothing(model, [""], 1.0)
        report = coded.diagnose(lambda: model(x), lambda y: (y - 1).square().mean())
        assert signatures(report) == {"no effect"}
        assert "all outputs are 0, and so is the penalty" in str(report)
        nn.init.normal_(model[2].weight)
        assert signatures(coded.diagnose(lambda: model(x))) == set()

    def test_a_block_whose_penalty_is_0_at_this_ratio_is_trained_all_the_same(self):
        model, x = mlp(), torch.randn(8, 3)
        report = CodedSmoothing(model, [""], 17 / 8).diagnose(lambda: model(x), lambda y: y.square().mean())
        assert "is trained" not in str(report)

    def test_proposals_at_mu_0_are_for_the_weight(self):
        model, x, loss = mlp(), torch.randn(32, 3), lambda y: (y - 1).square().mean()
        coded = CodedSmoothing(model, [""], 1.0, weight=10.0)
        at_0, at_half = (coded.diagnose(lambda: model(x), loss, mu=mu).proposals()[""] for mu in (0, 0.5))
        assert at_0 == pytest.approx(at_half)

    def test_an_affine_block_only_shrinks(self):
        for block in (nn.Linear(3, 5), nn.Conv1d(3, 5, 3), nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))):
            x = torch.randn(32, 3, *[4] * isinstance(block, nn.Conv1d))
            report = CodedSmoothing(block, [""], 1.25).diagnose(lambda block=block, x=x: block(x))
            assert signatures(report) == {"only shrinks"}
            assert "Take a block that contains its activation" in str(report)
        block = nn.Sequential(nn.Linear(3, 5), nn.LeakyReLU(0.9))
        assert signatures(CodedSmoothing(block, [""], 1.0).diagnose(lambda: block(torch.randn(32, 3)))) == set()

    @pytest.mark.parametrize(
        ("share", "message"),
        [
            (5e-4, "diagnose again after some hundred. If it stays, raise mu or the weight"),
            (2.0, "is 200% of the task loss"),
        ],
    )
    def test_a_share_of_the_gradient_that_is_tiny_or_above_all(self, share, message):
        model, x = mlp(), torch.randn(32, 3)
        coded, loss = CodedSmoothing(model, [""], 1.0), lambda y: (y - 1).square().mean()
        at_10 = coded.diagnose(lambda: model(x), loss).proposals()[""][0.1]
        report = coded.diagnose(lambda: model(x), loss, weight=10 * share * at_10)
        assert report.blocks[""].gradient_share == pytest.approx(share, rel=1e-4)
        assert message in str(report)
        assert signatures(report) == {"no effect" if share < 1 else "over-smoothing"}

    def test_a_penalty_that_is_not_finite_is_reported(self):
        assert signatures(self.report(Function(lambda x: x / 0))) == {"not finite"}

    def test_the_bound_on_the_batch_is_where_the_bias_settles(self):
        for r in (1, 1.25, 1.5, 2, 2.5, 3):
            bias = {K: code_condition(SplineCode(K, round(r * K))).bias for K in (16, 17, 19, 23, 24, 32, 47, 64, 128)}
            assert all(0.5 < value / bias[128] < 2 for value in bias.values())


class TestErrors:
    def test_a_loss_with_a_gradient_penalty_is_a_function_like_any_other(self):
        model, x = mlp(), torch.randn(16, 3).requires_grad_()

        def loss(scores):
            (slope,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
            return (slope.norm(dim=1) - 1).square().mean() - scores.mean()

        report = CodedSmoothing(model, [""]).diagnose(lambda: model(x), loss)
        assert report.task_loss == pytest.approx(loss(model(x)).item(), rel=1e-6)
        assert report.blocks[""].gradient_share > 0

    @pytest.mark.filterwarnings("error")  # torch warns if a tensor with a graph becomes a number
    def test_a_loss_with_a_graph_is_a_number(self):
        block, x = mlp(), torch.randn(16, 3)
        loss = block(x).square().mean()
        assert loss.requires_grad
        assert CodedSmoothing(block, [""]).diagnose(lambda: block(x), loss).task_loss == loss.item()

    @pytest.mark.parametrize(
        ("arguments", "options", "error", "message"),
        [
            (lambda block, x: (block(x),), {}, CodeError, "lambda: model"),
            (lambda block, x: (), {}, CodeError, r"diagnose\(\): give a function that runs the model"),
            (lambda block, x: (lambda: None,), {}, BlockError, r"diagnose\(\) was given. Run the model inside it"),
            (lambda block, x: (lambda: block(x), lambda y: y), {}, CodeError, "reduce it to one number"),
            (lambda block, x: (lambda: block(x), "1 of them"), {}, CodeError, "task_loss is a str"),
            (lambda block, x: (lambda: block(x), 1.0), {"mu": 1}, CodeError, "mu=1"),
            (lambda block, x: (lambda: block(x[:1]),), {}, BatchError, "at least 2"),
        ],
    )
    def test_arguments_that_can_not_be_used_are_refused_with_what_to_do(self, arguments, options, error, message):
        block, x = mlp(), torch.randn(16, 3)
        coded = CodedSmoothing(block, [""])
        with pytest.raises(error, match=message):
            coded.diagnose(*arguments(block, x), **options)

    def test_a_diagnosis_inside_a_context_is_refused(self):
        block, x = mlp(), torch.randn(16, 3)
        coded = CodedSmoothing(block, [""])
        with coded.observe(), pytest.raises(BlockError, match="inside observe"):
            coded.diagnose(lambda: block(x))

    def test_a_diagnosis_after_detach_is_refused(self):
        block, x = mlp(), torch.randn(16, 3)
        coded = CodedSmoothing(block, [""])
        coded.detach()
        with pytest.raises(BlockError, match="after detach"):
            coded.diagnose(lambda: block(x))
