"""What must hold for every kind of block. Each property is a function that checks one kind."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace

import pytest
import torch
import torch._dynamo.guards
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from cs_gan import RandomizedCodedInference
from cs_gan.errors import BlockError
from tests.contract.blocks import Holder
from tests.contract.by_hand import RATIO, ByHand, freeze, freeze_power_iteration, rebuilt, tensors
from tests.contract.helpers import (
    NeedsMathKernel,
    TorchRefuses,
    assert_same_state,
    attach,
    close,
    gradients,
    observe,
    observe_once,
    replace_block,
    run,
    same,
    state,
    total,
)
from tests.core.helpers import hook_count

# For a debug log it times what it has compiled, after it has emptied the processor's caches: 30 ms each.
torch._dynamo.guards.profile_guard_manager = lambda *_: 0.0


def untouched(kind):
    """After attach, observe and detach the model is identical to one that ran the same number of times uncoded."""
    model, batch = kind.model(), kind.batch()
    with torch.no_grad():
        run(model, batch)  # what the first call leaves on a module (a compiled one, an old spectral norm) is not ours
        twin = copy.deepcopy(model)
        bare = run(twin, batch)
        before, expected = state(model), state(twin)[1]
        coded = attach(kind, model)
        assert hook_count(model) == before[0]
        with coded.observe():
            inside = run(model, batch)
        assert same(inside, bare)
        with pytest.raises(BlockError, match="detach"):
            attach(kind, model)
        coded.detach()
        assert_same_state([before[0], expected, *before[2:]], state(model))
        freeze(model), freeze(twin)
        assert same(run(model, batch), run(twin, batch))


def observed(kind):
    """The penalty is above 0 and equals the one computed by hand. Outputs are bit-identical to the plain ones."""
    model, batch = kind.model(), kind.batch()
    output, penalty = observe(kind, model, batch)
    assert penalty.isfinite()
    assert penalty > 0
    twin = kind.model()
    by_hand = ByHand(kind, twin)
    assert same(output, run(twin, batch))
    if not kind.random:
        close([penalty, *gradients(penalty, model)], [by_hand.penalty, *gradients(by_hand.penalty, twin)])


def substituted(kind):
    """Permuted, encoded, run, decoded, put back in order: equal to the same by hand. So is RandomizedCodedInference."""
    model, twin, batch = kind.model(), kind.model(), kind.batch()
    coded = attach(kind, model)
    with coded.substitute(torch.Generator().manual_seed(4)):
        output = run(model, batch)
    ByHand(kind, twin, torch.Generator().manual_seed(4))
    expected = run(twin, batch)
    assert not same(output, run(kind.model(), batch))
    close([output, *gradients(total(output), model)], [expected, *gradients(total(expected), twin)])
    options = {name: value for name, value in kind.options.items() if name != "share_dropout"}
    served = RandomizedCodedInference(kind.model(), RATIO, blocks=[kind.name], seed=4, **options)
    torch.manual_seed(3)
    assert same(served(*rebuilt(batch, torch.Tensor.clone)), output)


def twice_differentiated(kind):
    """A gradient penalty through observe() and through substitute() has the gradient computed by hand."""

    def slopes(model, batch, scalar):
        leaves = [x.requires_grad_() for x in tensors(batch) if x.is_floating_point()] or [next(model.parameters())]
        slope = torch.autograd.grad(scalar(), leaves, create_graph=True)
        return gradients(sum(x.square().sum() for x in slope), model)

    def ours(context):
        model, batch, coded = kind.model(), kind.batch(), None
        coded = attach(kind, model)

        def scalar():
            with getattr(coded, context)(*[torch.Generator().manual_seed(4)][: context == "substitute"]):
                output = run(model, batch)
            return total(output) + (coded.penalty() if context == "observe" else 0)

        return slopes(model, batch, scalar)

    def by_hand(context):
        model, batch = kind.model(), kind.batch()
        coding = ByHand(kind, model, torch.Generator().manual_seed(4) if context == "substitute" else None)
        return slopes(model, batch, lambda: total(run(model, batch)) + coding.penalty)

    def check():
        for context in ("observe", "substitute"):
            mine = ours(context)
            assert all(x.isfinite().all() for x in mine)
            assert max(x.abs().max() for x in mine) > 0
            if not (kind.random and context == "observe"):
                close(mine, by_hand(context))

    def bare():
        model, batch = kind.model(), kind.batch()
        return slopes(model, batch, lambda: total(run(model, batch)))

    if not fused_attention(bare):
        check()
        return
    with pytest.raises(RuntimeError, match=FUSED):
        check()
    with sdpa_kernel(SDPBackend.MATH):
        check()
    raise NeedsMathKernel


FUSED = "derivative for aten::_scaled_dot_product_\\w+_backward is not implemented"


def fused_attention(call):
    """Whether a call differentiates twice through one of torch's fused attention kernels, which can't do that."""
    try:
        call()
    except RuntimeError as error:
        return re.search(FUSED, str(error)) is not None
    except Exception:  # a refusal of ours comes out of the check
        return False
    return False


def autocast(kind):
    """In bfloat16 outputs are bit-identical to the plain ones. The penalty is float32 and close to the exact one."""
    model, batch = kind.model().float(), rebuilt(kind.batch(), lambda x: x.float() if x.is_floating_point() else x)
    exact = observe(kind, kind.model(), kind.batch())[1]
    with torch.autocast("cpu", torch.bfloat16):
        try:
            bare = run(kind.model().float(), batch)
        except RuntimeError as error:  # oneDNN has no bfloat16 LSTM for processors without AVX-512
            if "primitive descriptor" not in str(error):
                raise
            pytest.skip(f"torch can't run the bare block on this processor: {error}")
        output, penalty = observe(kind, model, batch)
        assert same(output, bare)
    assert penalty.dtype == torch.float32
    (total(output) + penalty).backward()
    assert all(x.grad.isfinite().all() for x in model.parameters() if x.requires_grad and x.grad is not None)
    if not kind.random:
        # 8 bits: outputs of order 1 are off by 2^-8 after each of a few layers, and their root mean square,
        # summed over a few outputs, by some of that.
        assert abs(penalty.sqrt() - exact.sqrt()) < 16 * 2**-8


def compiled(kind):
    """With the block under torch.compile(backend="eager") output and penalty are the same as without."""
    compiled_by("eager", kind)


def compiled_ahead_of_time(kind):
    """The same and first gradients with aot_eager, which differentiates as inductor does. Slow, so no column."""
    (output, penalty), (expected, exact), models = compiled_by("aot_eager", kind)
    scalars = total(output) + penalty, total(expected) + exact
    close(*(gradients(scalar, model) for scalar, model in zip(scalars, models, strict=True)))


def compiled_by(backend, kind):
    """Output and penalty of the model with a compiled block, those of the plain model, and the two models."""
    plain, model, batch = kind.model(), kind.model(), kind.batch()
    expected = observe(kind, plain, batch)
    torch._dynamo.reset()
    block = model.get_submodule(kind.name)
    if hasattr(block, "_orig_mod"):
        plain.set_submodule(kind.name, block._orig_mod)
        expected, block = observe(kind, plain, batch), block._orig_mod
    replace_block(model, model.get_submodule(kind.name), torch.compile(block, backend=backend))
    output, penalty = observe(kind, model, batch)
    close([output, penalty], list(expected))
    return (output, penalty), expected, (model, plain)


def state_dict(kind):
    """You can save and load inside or outside a context. The keys are the same."""
    source, batch = kind.model(), kind.batch()
    coded = attach(kind, source)
    with torch.no_grad():
        observe_once(coded, source, batch)
        outside = copy.deepcopy(source.state_dict())
        with coded.observe():
            run(source, batch)
            inside = copy.deepcopy(source.state_dict())
        assert list(inside) == list(outside) == list(kind.model().state_dict())
        freeze(source)
        expected = run(source, batch)
        target = kind.model(seed=9)
        into = attach(kind, target)
        freeze(target)
        assert not same(run(target, batch), expected)
        with into.observe():
            target.load_state_dict(inside)
            assert same(run(target, batch), expected)
        assert same(run(target, batch), expected)


def copied(kind):
    """A deep copy of an attached model gives the same results, and can be coded itself."""
    model, batch = kind.model(), kind.batch()
    coded = attach(kind, model)
    with torch.no_grad():
        observe_once(coded, model, batch)
        twin = copy.deepcopy(model)
        freeze(model), freeze(twin)
        assert hook_count(twin) == hook_count(model)
        assert same(run(twin, batch), run(model, batch))
        other = observe(kind, twin, batch)[1]
        observe_once(coded, model, batch)
        assert torch.equal(other, coded.penalty())


def pickled(kind):
    """After detach() the model can be pickled, and the loaded copy gives the same results."""
    model, batch = kind.model(), kind.batch()
    with torch.no_grad():
        observe(kind, model, batch)
        try:
            twin = pickle.loads(pickle.dumps(model))
        except RuntimeError as error:
            with pytest.raises(RuntimeError, match="state_dict"):
                pickle.dumps(kind.model())
            raise TorchRefuses from error
        freeze(model), freeze(twin)
        assert same(run(twin, batch), run(model, batch))


def in_eval_mode(kind):
    """In eval mode the penalty also equals the one computed by hand. Running statistics and flags do not change."""
    model, twin, batch = kind.model().eval(), kind.model().eval(), kind.batch()
    before = state(model)
    output, penalty = observe(kind, model, batch)
    by_hand = ByHand(kind, twin)
    assert same(output, run(twin, batch))
    assert_same_state(before, state(model))
    assert penalty > 0
    close(penalty, by_hand.penalty)  # dropout drops nothing here


def without_grad(kind):
    """Under no_grad the penalty has the same value, without a graph."""
    batch = kind.batch()
    expected, penalty = observe(kind, kind.model(), batch)
    with torch.no_grad():
        output, bare = observe(kind, kind.model(), batch)
    assert not bare.requires_grad
    close([output, bare], [expected, penalty])


def checkpointed_around(kind):
    """With a checkpoint around the block the gradient is the same as without, for a backward inside or outside."""
    batch, results = kind.batch(), []
    bare = [kind.model(), kind.model()]
    for model, around in zip(bare, (False, True), strict=True):
        freeze_power_iteration(model)
        torch.manual_seed(3)
        given = rebuilt(batch, torch.Tensor.clone)
        scalar = total(checkpoint(model, *given, use_reentrant=False) if around else model(*given))
        if isinstance(scalar, torch.Tensor):  # some give nothing that has a gradient
            scalar.backward()
    first, second = ([x.grad for x in model.parameters() if x.grad is not None] for model in bare)
    if first and not same(first, second):
        raise TorchRefuses  # its recomputation starts from the state that the forward left
    for around, inside in ((False, False), (True, False), (True, True)):
        model = kind.model()
        freeze_power_iteration(model)  # recomputing steps it again, coded or not
        coded = attach(kind, model)
        torch.manual_seed(3)
        given = rebuilt(batch, torch.Tensor.clone)
        with coded.observe():
            output = checkpoint(model, *given, use_reentrant=False) if around else model(*given)
            penalty = coded.penalty()
            if inside:
                (total(output) + penalty).backward()
        if not inside:
            (total(output) + penalty).backward()
        assert torch.equal(penalty, coded.penalty())  # nothing was added by the recomputation
        results.append([output, penalty, *(x.grad for x in model.parameters())])
    assert same(results[0], results[1])
    assert same(results[0], results[2])


class Checkpointing(Holder):
    """A block that uses a checkpoint inside."""

    def forward(self, *args, **kwargs):
        return checkpoint(self.block, *args, use_reentrant=False, **kwargs)


def checkpointed_inside(kind):
    """A block that uses a checkpoint inside has the same gradient as one that does not."""
    batch, results = kind.batch(), []
    for wrapper in (Holder, Checkpointing):
        model = kind.model()
        block = model.get_submodule(kind.name)
        replace_block(model, block, wrapper(block))
        if kind.name == "block" and kind.takes[0] == 1:  # nobody knows it of a module of one's own
            kind = replace(kind, options={**kind.options, "batch_axis": 1})
        freeze_power_iteration(model)
        if wrapper is Checkpointing:
            try:
                total(run(copy.deepcopy(model), batch)).backward()
            except RuntimeError as error:
                raise TorchRefuses from error
        output, penalty = observe(kind, model, batch)
        (total(output) + penalty).backward()
        results.append([output, penalty, *(x.grad for x in model.parameters())])
    assert same(*results)


def called_functionally(kind):
    """functional_call with other parameters gives the penalty and gradient of a model with those parameters."""
    model, other, batch = kind.model(), kind.model(seed=9), kind.batch()
    freeze_power_iteration(model), freeze_power_iteration(other)
    values = {name: x.detach().clone().requires_grad_(x.requires_grad) for name, x in other.named_parameters()}
    trained = [value for value in values.values() if value.requires_grad]
    buffers = {name: value.clone() for name, value in other.named_buffers()}
    bare, expected = observe(kind, other, batch)
    coded = attach(kind, model)
    torch.manual_seed(3)
    with coded.observe():
        output = torch.func.functional_call(model, {**values, **buffers}, rebuilt(batch, torch.Tensor.clone))
    close([output, coded.penalty()], [bare, expected])
    ours = torch.autograd.grad(coded.penalty(), trained, allow_unused=True)
    close([torch.zeros(()) if x is None else x for x in ours], gradients(expected, other))


PROPERTIES = {
    "untouched": untouched,
    "observe": observed,
    "substitute (RCI)": substituted,
    "gradient penalty": twice_differentiated,
    "autocast": autocast,
    "eval mode": in_eval_mode,
    "no_grad": without_grad,
    "torch.compile (eager)": compiled,
    "checkpoint around": checkpointed_around,
    "checkpoint inside": checkpointed_inside,
    "functional_call": called_functionally,
    "state dict": state_dict,
    "deepcopy": copied,
    "pickle": pickled,
}
