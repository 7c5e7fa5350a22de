import math

import numpy as np
import pytest
import torch

from cs_gan import SplineCode
from cs_gan.core import code as code_module
from cs_gan.errors import BatchError, CodeError
from tests.core.oracles import DECODERS, NODES, SPLINES, naive_decode, naive_encode

SIZES = [(8, 8), (9, 14), (24, 36), (12, 7)]  # N = K, N > K with K odd, larger, N < K


def batch(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("nodes", NODES)
@pytest.mark.parametrize("spline", SPLINES)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("K", "N"), SIZES)
class TestEveryChoice:
    def test_encode_and_decode_equal_scipys_spline_per_feature(self, nodes, spline, decoder, K, N):
        code = SplineCode(K, N, nodes, spline, decoder, smoothing=1e-3, seed=5)
        x, y = batch(K, 2, 3), batch(N, 5, seed=1)
        # Both sides are float64; condition numbers here stay below 1e4, so 1e-10 leaves two digits spare.
        torch.testing.assert_close(code.encode(x), naive_encode(code, x), rtol=0, atol=1e-10)
        torch.testing.assert_close(code.decode(y), naive_decode(code, y), rtol=0, atol=1e-10)

    def test_matrices_are_float64_on_cpu_and_the_callers_own(self, nodes, spline, decoder, K, N):
        code = SplineCode(K, N, nodes, spline, decoder, smoothing=1e-3, seed=5)
        assert code.encoder.shape == (N, K)
        assert code.decoder.shape == (K, N)
        assert code.encoder.dtype == code.decoder.dtype == torch.float64
        before = code.encoder
        code.encoder.zero_()
        assert torch.equal(code.encoder, before)


@pytest.mark.parametrize(("degree", "kind"), [(3, "natural"), (5, "quintic")])
def test_natural_splines_equal_their_radial_basis_form(degree, kind):
    # s(t) = polynomial of degree m-1 + sum_i c_i |t - t_i|^(2m-1), with sum_i c_i t_i^j = 0 for j < m:
    # the textbook form of the natural spline of degree 2m-1, valid between the nodes.
    code, m = SplineCode(7, 10, spline=kind), (degree + 1) // 2
    beta, alpha, y = code.beta, code.alpha, batch(10).numpy()
    powers = np.vander(beta, m)
    system = np.block([[np.abs(beta[:, None] - beta) ** degree, powers], [powers.T, np.zeros((m, m))]])
    solution = np.linalg.solve(system, np.concatenate([y, np.zeros(m)]))
    expected = np.hstack([np.abs(alpha[:, None] - beta) ** degree, np.vander(alpha, m)]) @ solution
    # The system's condition number is about 1e5 (cubic) to 1e7 (quintic).
    np.testing.assert_allclose(code.decode(torch.from_numpy(y)).numpy(), expected, rtol=0, atol=1e-8)


def test_chebyshev_nodes_are_the_papers():
    code = SplineCode(5, 7)
    np.testing.assert_allclose(code.alpha, [math.cos((2 * k - 1) * math.pi / 10) for k in range(1, 6)], atol=1e-15)
    np.testing.assert_allclose(code.beta, [math.cos((n - 1) * math.pi / 6) for n in range(1, 8)], atol=1e-15)


@pytest.mark.parametrize("nodes", NODES)
def test_nodes_decrease_and_data_nodes_lie_inside_the_coded_interval(nodes):
    for K, N in [(2, 2), (7, 12), (64, 96)]:
        code = SplineCode(K, N, nodes, seed=K)
        for points in (code.alpha, code.beta):
            assert (np.diff(points) < 0).all()
        assert code.beta[0] == 1
        assert code.beta[-1] == -1
        assert np.abs(code.alpha).max() < 1


def test_random_nodes_follow_the_seed_alone():
    first, again, other = (SplineCode(8, 12, "random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.encoder, again.encoder)
    assert not torch.allclose(first.encoder, other.encoder)


# METHOD.md, natural spline on Chebyshev nodes at K = 128; figures there carry two digits.
@pytest.mark.parametrize(("N", "figure"), [(128, 0.073), (160, 0.011), (192, 0.0021), (256, 2.6e-4), (512, 5.5e-6)])
def test_distance_of_de_from_identity_is_the_documented_one(N, figure):
    code = SplineCode(128, N)
    distance = (code.decoder @ code.encoder - torch.eye(128).double()).square().sum() / 128
    assert distance.item() == pytest.approx(figure, rel=0.05)


@pytest.mark.parametrize("K", [8, 32, 128])
def test_row_sums_of_absolute_values_stay_near_two(K):
    # METHOD.md: "about 1.75", and "about 2.0 at N = K, 1.8 at N = 1.5 K" for the decoder, at K = 128.
    equal, more = SplineCode(K, K), SplineCode(K, K * 3 // 2)
    sums = [matrix.abs().sum(1).max().item() for matrix in (equal.encoder, equal.decoder, more.decoder)]
    if K == 128:
        assert sums == pytest.approx([1.75, 2.04, 1.80], abs=0.01)
    assert max(sums) < 2.1


@pytest.mark.parametrize("K", [8, 16])
def test_decoding_error_of_a_smooth_function_falls_as_the_cube_of_n(K):
    x = batch(K, 64)
    sizes = [round(4 * K * 8 ** (i / 12)) for i in range(13)]  # 4 K to 32 K
    errors = []
    for N in sizes:
        code = SplineCode(K, N)
        errors.append((code.decode(torch.tanh(code.encode(x))) - torch.tanh(x)).square().mean().sqrt().item())
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope < -3


class TestCache:
    def test_equal_codes_share_matrices_and_are_built_once(self, monkeypatch):
        SplineCode(11, 17)
        monkeypatch.setattr(code_module, "spline_matrix", lambda *_, **__: pytest.fail("built a second time"))
        assert code_module._matrices(SplineCode(11, 17))[0] is code_module._matrices(SplineCode(11, 17))[0]

    def test_placed_matrices_are_kept_per_dtype(self):
        code, cpu = SplineCode(11, 17), torch.device("cpu")
        single = code_module._placed(code, 0, torch.float32, cpu)
        assert code_module._placed(SplineCode(11, 17), 0, torch.float32, cpu) is single
        assert code_module._placed(code, 0, torch.float64, cpu)[0].weights.dtype == torch.float64
        assert single[0].weights.dtype == torch.float32

    def test_smoothing_is_part_of_the_key(self):
        first, second = (SplineCode(11, 17, spline="smoothing", smoothing=s) for s in (1e-4, 1e-2))
        assert not torch.allclose(first.encoder, second.encoder)

    def test_a_code_first_used_in_inference_mode_still_trains(self):
        with torch.inference_mode():
            code = SplineCode(13, 19)
            code.encode(batch(13, 2))
        x = batch(13, 2).requires_grad_()
        code.encode(x).sum().backward()
        torch.testing.assert_close(x.grad, code.encoder.sum(0)[:, None].expand(13, 2))


class TestShapes:
    @pytest.mark.parametrize("trailing", [(), (3,), (3, 4), (2, 3, 4), (2, 3, 2, 2), (0,), (3, 0, 2)])
    def test_inputs_of_any_trailing_shape_are_encoded_like_rows(self, trailing):
        code, x = SplineCode(6, 9), batch(6, *trailing)
        expected = torch.einsum("nk,k...->n...", code.encoder, x)
        torch.testing.assert_close(code.encode(x), expected, rtol=0, atol=1e-13)
        assert code.decode(code.encode(x)).shape == x.shape

    def test_channels_last_stays_channels_last(self):
        code, x = SplineCode(6, 9), batch(6, 3, 4, 5).contiguous(memory_format=torch.channels_last)
        coded = code.encode(x)
        assert coded.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(coded, code.encode(x.contiguous()), rtol=0, atol=1e-13)

    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x.transpose(1, 2),
            lambda x: x[:, ::2],
            lambda x: x[:, :1].expand(-1, 4, -1),
            lambda x: x.permute(1, 0, 2).contiguous().permute(1, 0, 2),  # the batch is not the slowest axis
        ],
    )
    def test_strided_inputs_equal_their_copies(self, view):
        code, x = SplineCode(6, 9), view(batch(6, 4, 5))
        torch.testing.assert_close(code.encode(x), code.encode(x.contiguous()), rtol=0, atol=1e-13)


class TestDtypes:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
    def test_result_keeps_dtype_and_is_as_exact_as_it_allows(self, dtype, tolerance):
        # Rounding of a dot product of 8 terms with row sums below 2: about 8 eps * 2 * max|x|.
        code, x = SplineCode(8, 12), batch(8, 5)
        coded = code.encode(x.to(dtype))
        assert coded.dtype == dtype
        torch.testing.assert_close(coded.double(), code.encoder @ x, rtol=0, atol=6 * tolerance)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_the_float32_product_rounded_once(self, dtype):
        code, x = SplineCode(8, 12), batch(8, 5, dtype=dtype)
        assert torch.equal(code.encode(x), code.encode(x.float()).to(dtype))

    def test_autocast_changes_no_bit_of_float32_nor_of_two_backwards(self):
        code, x = SplineCode(8, 12), batch(8, 5, dtype=torch.float32)

        def all_results():
            leaf = x.clone().requires_grad_()
            coded = code.decode(code.encode(leaf).sin())
            (first,) = torch.autograd.grad(coded.square().sum(), leaf, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), leaf)
            return coded, first, second

        plain = all_results()
        with torch.autocast("cpu", torch.bfloat16):
            inside = all_results()
        for expected, result in zip(plain, inside, strict=True):
            assert result.dtype == torch.float32
            assert torch.equal(result, expected)


class TestDerivatives:
    @pytest.mark.parametrize("decoder", DECODERS)
    @pytest.mark.parametrize("permuted", [False, True])
    def test_gradcheck_of_both_directions(self, decoder, permuted):
        code, order = SplineCode(5, 7, decoder_kind=decoder), torch.tensor([3, 1, 4, 0, 2]) if permuted else None
        function = lambda x: code.decode(code.encode(x, order).sin(), order)
        x = batch(5, 2, 2).requires_grad_()
        assert torch.autograd.gradcheck(function, x, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, x, check_fwd_over_rev=True)

    def test_function_transforms_agree_with_the_matrix(self):
        code, x = SplineCode(5, 7), batch(5)
        for jacobian in (torch.func.jacfwd, torch.func.jacrev):
            torch.testing.assert_close(jacobian(code.encode)(x), code.encoder, rtol=0, atol=1e-14)
        stack = batch(5, 3, 4)  # mapped over the last axis
        mapped = torch.func.vmap(code.encode, in_dims=2, out_dims=2)(stack)
        torch.testing.assert_close(mapped, code.encode(stack), rtol=0, atol=1e-13)


def test_permutation_lays_the_permuted_batch_on_the_nodes_and_decode_undoes_it():
    code, x = SplineCode(6, 9), batch(6, 4)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    torch.testing.assert_close(code.encode(x, order), code.encode(x[order]), rtol=0, atol=1e-14)
    y = batch(9, 4)
    torch.testing.assert_close(code.decode(y, order)[order], code.decode(y), rtol=0, atol=1e-14)


def test_nearest_is_the_data_sample_of_the_closest_node():
    code = SplineCode(6, 9)
    for n, index in enumerate(code.nearest().tolist()):
        assert abs(code.beta[n] - code.alpha[index]) == np.abs(code.beta[n] - code.alpha).min()
    assert SplineCode(7, 7).nearest().tolist() == list(range(7))


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"K": 1, "N": 4}, "K = 2"),
            ({"K": 4, "N": 1}, "N must be at least 2"),
            ({"K": 4, "N": 4.5}, "round them"),
            ({"K": 4, "N": 6, "nodes": "chebychev"}, "chebyshev"),
            ({"K": 4, "N": 6, "spline": "cubic"}, "natural"),
            ({"K": 4, "N": 6, "decoder_kind": "pinv"}, "zero-forcing"),
            ({"K": 8, "N": 8, "smoothing": -1.0}, "smoothing"),
            ({"K": 8, "N": 8, "smoothing": math.nan}, "smoothing"),
            ({"K": 4, "N": 8, "spline": "smoothing"}, "at least 5"),
            ({"K": 8, "N": 4, "spline": "smoothing"}, "at least 5"),
            ({"K": 2, "N": 8, "spline": "quintic"}, "at least 3"),
        ],
    )
    def test_unusable_codes_are_refused_when_made(self, arguments, message):
        with pytest.raises(CodeError, match=message):
            SplineCode(**arguments)

    @pytest.mark.parametrize(
        ("call", "tensor", "message"),
        [
            ("encode", torch.zeros(9, 6), r"\(9, 6\).*K = 6"),
            ("decode", torch.zeros(6, 9), r"\(6, 9\).*N = 9"),
            ("encode", torch.tensor(1.0), "K = 6"),
            ("encode", torch.zeros(6, dtype=torch.int64), "int64"),
            ("decode", torch.zeros(9, dtype=torch.bool), "bool"),
        ],
    )
    def test_tensors_that_do_not_fit_are_refused(self, call, tensor, message):
        with pytest.raises(BatchError, match=message):
            getattr(SplineCode(6, 9), call)(tensor)

    @pytest.mark.parametrize("spline", SPLINES)
    def test_smallest_batches_work_or_are_refused_by_name(self, spline):
        for K in range(2, 7):
            try:
                code = SplineCode(K, K, spline=spline)
            except CodeError as error:
                assert "nodes" in str(error)  # noqa: PT017
            else:
                assert torch.isfinite(code.encoder).all()
                assert torch.isfinite(code.decoder).all()
