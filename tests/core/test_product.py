"""Multiplying by blocks must be what the dense product is, in every way torch can use it."""

import pytest
import torch

from cs_gan import CodedSmoothing, SplineCode
from cs_gan.core import code as code_module
from cs_gan.core import product
from cs_gan.core.bands import natural
from cs_gan.core.nodes import coded_nodes, data_nodes

CPU = torch.device("cpu")


def batch(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def placed(K, N, dtype=torch.float64, blocked=True):
    return product.place(natural(-data_nodes("chebyshev", K), -coded_nodes("chebyshev", N)), dtype, CPU, blocked)


@pytest.fixture
def by_blocks(monkeypatch):
    """A function of x by blocks of 3 rows, small enough for numerical derivatives, and its dense matrix."""
    monkeypatch.setattr(product, "HEIGHT", 3)
    pair, dense = placed(8, 11), placed(8, 11, blocked=False)[0].weights
    assert len(pair[0].blocks) == 4
    return lambda x: product.multiply_batch(*pair, x), dense


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
@pytest.mark.parametrize(("K", "N"), [(8, 11), (130, 130), (256, 384), (300, 150)])
def test_blocks_equal_the_dense_product(K, N, dtype, tolerance, transposed):
    # float32: some 80 terms of weights below 1 and x below 5, each rounded by 6e-8, and 2e-9 of tails left out.
    blocks, dense = (placed(K, N, dtype, blocked)[transposed] for blocked in (True, False))
    x = batch((K, N)[transposed], 5, dtype=dtype)
    assert blocks.blocks
    torch.testing.assert_close(blocks @ x, dense.weights @ x, rtol=0, atol=tolerance)


class TestDerivatives:
    def test_gradcheck_to_second_order_and_forward(self, by_blocks):
        function = lambda x: by_blocks[0](x.sin())
        x = batch(8, 2).requires_grad_()
        assert torch.autograd.gradcheck(function, x, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(function, x, check_fwd_over_rev=True)

    def test_function_transforms_agree_with_the_matrix(self, by_blocks):
        function, matrix = by_blocks
        for jacobian in (torch.func.jacfwd, torch.func.jacrev):
            torch.testing.assert_close(jacobian(function)(batch(8)), matrix, rtol=0, atol=1e-14)
        stack = batch(8, 3, 4)
        for axis in (1, 2):
            mapped = torch.func.vmap(function, in_dims=axis, out_dims=axis)(stack)
            torch.testing.assert_close(mapped, function(stack), rtol=0, atol=1e-14)
        hessian = torch.func.hessian(lambda x: function(x).sin().sum())(batch(8))
        expected = matrix.T @ torch.diag(-(matrix @ batch(8)).sin()) @ matrix
        torch.testing.assert_close(hessian, expected, rtol=0, atol=1e-13)


class TestLargeBatches:
    """On a CPU codes from 128 samples on go by blocks by themselves."""

    CODE = SplineCode(128, 192)

    def test_they_do_and_small_or_wide_ones_do_not(self):
        assert all(code_module._placed(self.CODE, which, torch.float32, CPU)[0].blocks for which in (0, 1))
        for code in (SplineCode(127, 192), SplineCode(128, 192, spline="berrut"), SplineCode(128, 64)):
            assert not code_module._placed(code, 0, torch.float32, CPU)[0].blocks
        forced = SplineCode(128, 192, decoder_kind="zero-forcing")
        assert [bool(code_module._placed(forced, which, torch.float32, CPU)[0].blocks) for which in (0, 1)] == [
            True,
            False,
        ]

    def test_encode_and_decode_are_the_matrices(self):
        x, y = batch(128, 3, 2), batch(192, 4)
        expected = torch.einsum("nk,kab->nab", self.CODE.encoder, x)
        torch.testing.assert_close(self.CODE.encode(x), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(self.CODE.decode(y), self.CODE.decoder @ y, rtol=0, atol=1e-12)

    def test_a_permutation_reorders_samples_and_gradients(self):
        order = torch.randperm(128, generator=torch.Generator().manual_seed(1))
        x, y = batch(128, 4).requires_grad_(), batch(192, 4)
        coded = self.CODE.encode(x, order)
        torch.testing.assert_close(coded, self.CODE.encode(x[order]), rtol=0, atol=0)
        torch.testing.assert_close(self.CODE.decode(y, order)[order], self.CODE.decode(y), rtol=0, atol=0)
        (grad,) = torch.autograd.grad(coded, x, y)
        torch.testing.assert_close(grad[order], self.CODE.encoder.T @ y, rtol=0, atol=1e-12)

    def test_memory_layout_and_half_precision_are_kept(self):
        x = batch(128, 3, 4, 5, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        coded = self.CODE.encode(x)
        assert coded.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(coded, self.CODE.encode(x.float()).bfloat16())

    def test_autocast_changes_no_bit(self):
        x = batch(128, 5, dtype=torch.float32).requires_grad_()
        results = []
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                coded = self.CODE.decode(self.CODE.encode(x).sin())
                results.append((coded, *torch.autograd.grad(coded.square().sum(), x)))
        for plain, inside in zip(*results, strict=True):
            assert inside.dtype == torch.float32
            assert torch.equal(plain, inside)

    def test_a_batch_of_4096_is_coded_without_a_dense_matrix(self):
        code, ones = SplineCode(4096, 6144), torch.ones(4096, 2)
        torch.testing.assert_close(code.decode(code.encode(ones)), ones, rtol=0, atol=1e-5)
        assert sum(tensor.numel() for tensor in code.placed("cpu")) < 0.02 * 4 * 4096 * 6144


class TestPlaced:
    @pytest.mark.parametrize(("K", "N"), [(15, 23), (150, 230)])
    def test_these_are_the_tensors_that_the_hot_path_reads(self, K, N):
        code = SplineCode(K, N, nodes="random", seed=99)  # nobody else's: it is spoilt below
        held = code.placed("cpu")
        assert all(a is b for a, b in zip(held, code.placed(torch.device("cpu")), strict=True))
        x, y = torch.randn(K, 3, requires_grad=True), torch.randn(N, 3, requires_grad=True)
        coded, decoded = code.encode(x), code.decode(y)
        for tensor in held:
            assert tensor.dtype == torch.float32
            tensor.zero_()
        results = [code.encode(x), code.decode(y)]
        results += torch.autograd.grad([coded, decoded], [x, y], [torch.ones_like(coded), torch.ones_like(decoded)])
        assert all(result.eq(0).all() for result in results)

    def test_a_code_dropped_from_the_cache_is_not_needed_by_who_holds_its_tensors(self):
        code = SplineCode(16, 23)
        before = code.placed("cpu")
        code_module._placed.cache_clear()
        after = code.placed("cpu")
        for old, new in zip(before, after, strict=True):
            assert old is not new
            assert torch.equal(old, new)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("K", "N"), [(16, 24), (1024, 1536)])
def test_a_cuda_graph_replays_encode_and_decode_after_the_cache_is_gone(K, N):
    code, x = SplineCode(K, N), torch.randn(K, 8, device="cuda", requires_grad=True)
    held = code.placed("cuda")

    def run():
        coded = code.decode(code.encode(x).sin())
        return coded, *torch.autograd.grad(coded.square().sum(), x)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    code_module._placed.cache_clear()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    for found, expected in zip(results, run(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert held


def test_the_penalty_of_a_large_batch_is_the_dense_one():
    block, x = torch.nn.Tanh(), batch(256, 3)
    coded = CodedSmoothing(block, [""], 1.5)
    with coded.observe():
        y = block(x)
    code = coded.code(256)
    expected = (code.decoder @ torch.tanh(code.encoder @ x) - y).square().mean()
    torch.testing.assert_close(coded.penalty(), expected, rtol=1e-10, atol=0)
