"""Which tensors a coded pass mixes. Expected penalties are computed with the role of each tensor stated by hand."""

import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing, RandomizedCodedInference, SplineCode
from cs_gan.core.conventions import KINDS
from cs_gan.core.nestings import axes_of
from cs_gan.core.roles import CallHistory, roles_of
from cs_gan.errors import BatchError, BlockError, CodeError
from cs_gan.supervised import ManifoldMixUp, MixDraw
from tests.core.helpers import Function, observed

K, L, D = 6, 6, 8  # the length is that of the batch
N = 9
EXACT = {"rtol": 1e-9, "atol": 1e-14}  # float64, a few products
LOWEST = torch.finfo(torch.float64).min


def by_hand(function, *arguments, kinds):
    """The penalty of a function whose arguments have these roles."""
    code, nearest = SplineCode(K, N), SplineCode(K, N).nearest()
    change = {"encode": code.encode, "nearest": lambda x: x[nearest], "plain": lambda x: x}
    coded = function(*(change[kind](x) for kind, x in zip(kinds, arguments, strict=True)))
    return (code.decode(coded) - function(*arguments)).square().mean()


def attend(x, scores):
    """Attention with x as queries, keys and values."""
    return (x @ x.mT + scores).softmax(-1) @ x


class Named(nn.Module):
    """A block whose second argument has a name."""

    def __init__(self, function, name):
        super().__init__()
        self.function = function
        exec(f"def forward(x, {name}): return function(x, {name})", {"function": function}, made := {})
        self.forward = made["forward"]


def tokens(seed=0, length=L):
    return torch.randn(K, length, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def padding(low):
    """(K, 1, L), another one for each sample."""
    return (
        torch.stack([torch.arange(L) > k % 3 + 2 for k in range(K)]).double().mul(-1).mul(-low)[:, None].clamp(min=low)
    )


class TestAdditiveMasks:
    @pytest.mark.parametrize("low", [LOWEST, -1e9, -1e4])
    @pytest.mark.parametrize("named", [True, False])
    def test_one_that_differs_between_samples_is_refused_or_that_of_the_nearest_sample(self, low, named):
        block, x, mask = Named(attend, "mask") if named else Function(attend), tokens(), padding(low)
        assert mask.unique().tolist() == [low, 0]
        with pytest.raises(BatchError, match=rf"torch.float64 tensor .*{'mask' if named else 1}.*can't be mixed"):
            observed(CodedSmoothing(block, [""], replace=True), lambda: block(x, mask))
        coded = CodedSmoothing(block, [""], discrete="nearest", replace=True)
        expected = by_hand(attend, x, mask, kinds=("encode", "nearest"))
        torch.testing.assert_close(observed(coded, lambda: block(x, mask)), expected, **EXACT)

    def test_minus_infinity_too_with_the_old_name_of_the_option(self):
        block, x, mask = Function(attend), tokens(), padding(-1e9).masked_fill(padding(-1e9) < 0, -torch.inf)
        coded = CodedSmoothing(block, [""], integers="nearest")
        expected = by_hand(attend, x, mask, kinds=("encode", "nearest"))
        torch.testing.assert_close(observed(coded, lambda: block(x, mask)), expected, **EXACT)

    @pytest.mark.parametrize("expanded", [True, False])
    def test_one_that_is_the_same_for_all_samples_is_passed_on(self, expanded):
        causal = torch.full((L, L), LOWEST, dtype=torch.float64).triu(1).expand(K, L, L)
        block, x, mask = Function(attend), tokens(), causal if expanded else causal.clone()
        expected = by_hand(attend, x, mask, kinds=("encode", "nearest"))
        torch.testing.assert_close(observed(CodedSmoothing(block, [""]), lambda: block(x, mask)), expected, **EXACT)

    def test_very_low_data_is_still_data(self):
        # depths of the sea in metres: many values, not two
        block, x, depth = Function(lambda x, y: (x * y).sin()), tokens(), tokens(1) * 1e4
        assert depth.min() < -1e4
        expected = by_hand(block.function, x, depth, kinds=("encode", "encode"))
        torch.testing.assert_close(observed(CodedSmoothing(block, [""]), lambda: block(x, depth)), expected, **EXACT)

    def test_masked_scores_among_the_outputs_are_left_out_as_integers_are(self):
        mask = torch.full((L, L), LOWEST, dtype=torch.float64).triu(1)
        block, x = Function(lambda x: (x.tanh(), {"scores": x @ x.mT + mask})), tokens()
        expected = by_hand(torch.tanh, x, kinds=("encode",))
        coded = CodedSmoothing(block, [""])
        torch.testing.assert_close(observed(coded, lambda: block(x)), expected, **EXACT)
        with (
            pytest.raises(BatchError, match="gives a tensor of masked scores, which can't be decoded"),
            coded.substitute(),
        ):
            block(x)

    @pytest.mark.parametrize("train", [True, False])
    def test_torchs_encoder_hands_its_layers_a_float_mask_in_training_and_nested_tensors_in_eval(self, train):
        layer = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0, batch_first=True)
        model = nn.TransformerEncoder(layer, 2).double().train(train)
        x, mask = tokens(), padding(-1.0)[:, 0].bool()
        coded = CodedSmoothing(model, ["layers.0"], discrete="nearest")

        def call():
            with torch.set_grad_enabled(train):
                model(x, src_key_padding_mask=mask)

        if not train:
            with pytest.raises(BatchError, match=r"nested tensor, .*enable_nested_tensor=False"):
                observed(coded, call)
            return
        floats = torch.zeros(K, L, dtype=torch.float64).masked_fill(mask, -torch.inf)
        alone = model.layers[0]
        expected = by_hand(lambda x, m: alone(x, src_key_padding_mask=m), x, floats, kinds=("encode", "nearest"))
        torch.testing.assert_close(observed(coded, call), expected, **EXACT)
        with pytest.raises(BatchError, match="'src_key_padding_mask': integers, labels and masks can't be mixed"):
            observed(CodedSmoothing(model, ["layers.0"], replace=True), call)

    def test_three_dimensional_scores_of_torchs_attention_have_heads_along_the_batch(self):
        attention = nn.MultiheadAttention(D, 2, batch_first=True).double()
        mask = padding(-torch.inf).nan_to_num(0, neginf=-torch.inf).expand(K, L, L)
        block = Function(lambda x, m: attention(x, x, x, attn_mask=m.repeat_interleave(2, 0))[0])
        x = tokens()
        coded = CodedSmoothing(attention, [""], discrete="nearest")
        expected = by_hand(block.function, x, mask, kinds=("encode", "nearest"))
        call = lambda: attention(x, x, x, attn_mask=mask.repeat_interleave(2, 0), need_weights=False)
        torch.testing.assert_close(observed(coded, call), expected, **EXACT)


class TestWithoutABatch:
    """A table (L, d), or a mask (L, L), with as many rows as the batch has samples."""

    @pytest.mark.parametrize("ratio", [1.0, 1.5])
    def test_a_table_as_long_as_the_batch_is_refused_until_somebody_says_what_it_is(self, ratio):
        block, x, table = Function(lambda x, table: (x + table).tanh()), tokens(), tokens(1)[0]
        with pytest.raises(BatchError, match=r'argument 1 \(6, 8\) may be one entry .*arguments=\{1: "encode"\}'):
            observed(CodedSmoothing(block, [""], ratio, replace=True), lambda: block(x, table))
        plain = observed(
            CodedSmoothing(block, [""], ratio, arguments={1: "plain"}, replace=True), lambda: block(x, table)
        )
        as_one = observed(CodedSmoothing(block, [""], ratio, replace=True), lambda: block(x, table[None]))
        torch.testing.assert_close(plain, as_one, **EXACT)

    def test_it_may_also_be_a_style_of_each_sample(self):
        block, x, style = Named(lambda x, style: (x * style[:, None]).tanh(), "style"), tokens(), tokens(1)[:, 0]
        coded = CodedSmoothing(block, [""], arguments={"": {"style": "encode"}})
        expected = by_hand(block.function, x, style, kinds=("encode", "encode"))
        torch.testing.assert_close(observed(coded, lambda: block(x, style)), expected, **EXACT)

    def test_an_earlier_batch_of_another_size_tells(self):
        table = tokens(1)[0]
        block = Function(lambda x, table, style: (x + table + style[:, None]).tanh())
        coded, x, style = CodedSmoothing(block, [""]), tokens(), tokens(2)[:, 0]
        observed(coded, lambda: block(x[:4], table, style[:4]))
        expected = by_hand(block.function, x, table, style, kinds=("encode", "plain", "encode"))
        torch.testing.assert_close(observed(coded, lambda: block(x, table, style)), expected, **EXACT)

    @pytest.mark.parametrize("boolean", [True, False])
    def test_a_causal_mask_is_plain_where_torch_or_its_name_says_so(self, boolean):
        causal = torch.ones(L, L).triu(1).bool()
        causal = causal if boolean else torch.zeros(L, L, dtype=torch.float64).masked_fill(causal, -torch.inf)
        layer, x = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0, batch_first=True).double(), tokens()
        expected = by_hand(lambda x: layer(x, causal), x, kinds=("encode",))
        assert observed(CodedSmoothing(layer, [""]), lambda: layer(x, causal)) == expected
        assert observed(CodedSmoothing(layer, [""], replace=True), lambda: layer(src_mask=causal, src=x)) == expected

        def own(x, mask):
            scores = torch.zeros(L, L, dtype=torch.float64).masked_fill(mask, -torch.inf) if boolean else mask
            return attend(x, scores)

        block = Named(own, "causal_mask")
        expected = by_hand(own, x, causal, kinds=("encode", "plain"))
        torch.testing.assert_close(observed(CodedSmoothing(block, [""]), lambda: block(x, causal)), expected, **EXACT)
        block = Named(own, "mask")  # of padding, or of scores?
        with pytest.raises(BatchError, match=r"'mask'.* may be one entry for each sample"):
            observed(CodedSmoothing(block, [""]), lambda: block(x, causal))

    @pytest.mark.parametrize(
        ("name", "shape", "integer", "kind"),
        [
            ("cache_position", (L,), True, "plain"),
            ("position_ids", (1, L), True, "plain"),
            ("position_ids", (K, L), True, "nearest"),
            ("position_embeddings", (L, D), False, "plain"),
            ("position_embeddings", (K, L, D), False, "nearest"),
            ("position_bias", (1, 2, L, L), False, "plain"),
            ("attention_mask", (K, L), False, "nearest"),
            ("attention_mask", (K, 1, L, L), False, "nearest"),
            ("attention_mask", (1, 1, L, L), False, "plain"),
            ("src_key_padding_mask", (K, L), False, "nearest"),
            ("rope", (L, D), False, "plain"),
            ("labels", (K,), True, "nearest"),
            ("temb", (K, D), False, "encode"),
            ("given", (K,), True, None),
            ("given", (K, D), False, None),
            ("given", (K, 3), False, "encode"),  # can't be added to (L, D)
            ("masked_image", (K, L, D), False, "encode"),
        ],
    )
    def test_names_of_transformers_arguments_are_known(self, name, shape, integer, kind):
        given = torch.zeros(shape, dtype=torch.int64) if integer else torch.zeros(shape)
        block = Function(None)
        inputs = ((tokens(),), {name: given})
        if kind is None:  # no such name, and K = L: anything of fewer axes may be a table
            with pytest.raises(BatchError, match=f"'{name}'"):
                roles_of("b", block, inputs, axes_of(block, 0), {}, CallHistory())
            return
        found, roles = roles_of("b", block, inputs, axes_of(block, 0), {}, CallHistory())
        assert (found, roles[0].kind, roles[1].kind) == (K, "encode", kind)

    @pytest.mark.parametrize(
        ("first", "other", "kind"),
        [
            ((64, 64, 8, 8), (64,), "encode"),  # a time for each image, and 64 channels
            ((64, 64, 8, 8), (64, 64), "encode"),  # a gain for each image and channel
            ((64, 64, 8, 8), (64, 64, 8, 8), "encode"),  # a skip connection
            ((64, 64, 8, 8), (64, 8, 8), None),  # a bias of each pixel, or a map of each image
            ((64, 3, 64, 64), (64, 64), None),  # a table of pixels
            ((64, 64), (64, 10), "encode"),  # a label's vector
            ((64, 64), (64,), None),  # a scale of each feature, or of each sample
            ((64, 32), (64,), "encode"),
            ((64, 32), (32,), "plain"),
        ],
    )
    def test_only_what_would_fit_into_a_sample_is_in_doubt(self, first, other, kind):
        block, seen = Function(None), CallHistory()
        inputs = ((torch.zeros(first), torch.ones(other)), {})
        if kind is None:
            with pytest.raises(BatchError, match="may be one entry for each sample"):
                roles_of("b", block, inputs, axes_of(block, 0), {}, seen)
        else:
            assert roles_of("b", block, inputs, axes_of(block, 0), {}, seen)[1][1].kind == kind

    def test_labels_of_a_batch_as_large_as_the_channels_are_labels(self):
        block = Function(None)
        for first in ((64, 64), (64, 64, 8, 8)):
            inputs = ((torch.zeros(first), torch.zeros(64, dtype=torch.int64)), {})
            assert roles_of("b", block, inputs, axes_of(block, 0), {}, CallHistory())[1][1].kind == "nearest"

    def test_manifold_mixup_mixes_what_coding_would_encode(self):
        table, x = tokens(1)[0], tokens()
        block = Function(lambda x, table: (x, table))
        model = Function(lambda x: model.block(x, table))
        model.block, labels = block, torch.zeros(K, dtype=torch.int64)
        draw = MixDraw(torch.tensor(0.3, dtype=torch.float64), block="block")
        with (
            pytest.raises(BatchError, match="may be one entry"),
            ManifoldMixUp(1.0, ["block"]).mixing(model, x, labels, 2, draw),
        ):
            model(x)
        mix = ManifoldMixUp(1.0, ["block"], arguments={1: "plain"})
        with mix.mixing(model, x, labels, 2, draw):
            mixed, same = model(x)
        torch.testing.assert_close(mixed, 0.3 * x + 0.7 * x.roll(1, 0), rtol=1e-12, atol=1e-12)
        assert same is table

    def test_manifold_mixup_mixes_the_batch_of_torchs_recurrent_layers(self):
        model = Function(lambda x: model.gru(x)[0])
        model.gru, x = nn.GRU(D, 3).double(), tokens()  # (L, K, D)
        draw = MixDraw(torch.tensor(0.3, dtype=torch.float64), block="gru")
        with ManifoldMixUp(1.0, ["gru"]).mixing(model, x, torch.zeros(K, dtype=torch.int64), 2, draw):
            output = model(x)
        torch.testing.assert_close(output, model(0.3 * x + 0.7 * x.roll(1, 1)), **EXACT)


class TestFirst:
    def test_keywords_count_in_the_order_of_the_signature(self):
        block, x, scale = (
            Named(lambda x, scale: (x * scale).tanh(), "scale"),
            tokens(),
            torch.arange(1.0, 1 + D).double(),
        )
        expected = by_hand(block.function, x, scale, kinds=("encode", "plain"))
        coded = CodedSmoothing(block, [""])
        torch.testing.assert_close(observed(coded, lambda: block(scale=scale, x=x)), expected, **EXACT)

    def test_one_that_is_said_to_be_plain_does_not_give_the_size_of_the_batch(self):
        block, x, query = Function(lambda query, x: (x @ query.mT).tanh()), tokens(), torch.randn(1, 4, D).double()
        with pytest.raises(BatchError, match=r'batch of 1: .*arguments=\{0: "plain"\}'):
            observed(CodedSmoothing(block, [""], replace=True), lambda: block(query, x))
        coded = CodedSmoothing(block, [""], arguments={0: "plain"}, replace=True)
        expected = by_hand(block.function, query, x, kinds=("plain", "encode"))
        torch.testing.assert_close(observed(coded, lambda: block(query, x)), expected, **EXACT)

    def test_torchs_containers_have_their_layers_batch_axis(self):
        layers = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0), nn.TransformerDecoderLayer(D, 2, 16, dropout=0.0)
        x, memory = tokens(0, 5), tokens(1, 4)
        for model, given in (
            (nn.TransformerEncoder(layers[0], 1), (x,)),
            (nn.TransformerDecoder(layers[1], 1), (x, memory)),
            (nn.Transformer(D, 2, 1, 1, 16, dropout=0.0), (memory, x)),
        ):
            model.double()
            expected = by_hand(
                lambda *g, model=model: model(*(each.transpose(0, 1) for each in g)).transpose(0, 1),
                *given,
                kinds=("encode",) * len(given),
            )
            coded = CodedSmoothing(model, [""])
            found = observed(coded, lambda model=model, given=given: model(*(each.transpose(0, 1) for each in given)))
            torch.testing.assert_close(found, expected, **EXACT)


class TestForms:
    @pytest.mark.filterwarnings("ignore")  # of torch: nested and quantised tensors are a beta or deprecated
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda x: torch.nested.nested_tensor(list(x)), "nested tensor"),
            (lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged), "nested tensor"),
            (torch.Tensor.to_sparse, "layout torch.sparse_coo.*to_dense"),
            (torch.Tensor.to_sparse_csr, "layout torch.sparse_csr.*to_dense"),
            (torch.Tensor.to_mkldnn, "layout torch._mkldnn.*to_dense"),
            (lambda x: x.to("meta"), "meta device, which has no values"),
            (lambda x: x.to(torch.float8_e4m3fn), "float8_e4m3fn, whose numbers can't be mixed"),
            (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "qint8, whose numbers can't be mixed"),
        ],
    )
    def test_a_tensor_that_can_not_be_mixed_is_refused_by_its_form(self, make, message):
        block = Function(lambda *x: torch.zeros(K))
        given = make(torch.randn(K, 3))
        for arguments in ((given,), (torch.randn(K, 3), given)):
            with pytest.raises(BatchError, match=f"{message}.*another block"):
                observed(CodedSmoothing(block, [""], discrete="nearest", replace=True), lambda a=arguments: block(*a))

    def test_complex_numbers_are_coded_as_their_real_and_imaginary_parts(self):
        x = torch.randn(K, 5, dtype=torch.complex128)
        block = Function(lambda z: (z * z, z.abs()))
        code = SplineCode(K, N)
        coded_z = torch.complex(code.encode(x.real), code.encode(x.imag))
        assert torch.equal(code.encode(x), coded_z)
        assert torch.equal(code.encode(x.conj()), coded_z.conj())
        parts = torch.complex(code.decode((coded_z**2).real), code.decode((coded_z**2).imag)) - x**2
        expected = torch.view_as_real(parts).square().mean() + (code.decode(coded_z.abs()) - x.abs()).square().mean()
        torch.testing.assert_close(observed(CodedSmoothing(block, [""]), lambda: block(x)), expected, **EXACT)
        served = RandomizedCodedInference(Function(torch.fft.fft), 1.0, decoder_kind="zero-forcing")
        torch.testing.assert_close(served(x), torch.fft.fft(x), rtol=1e-9, atol=1e-9)  # it is linear, and D E = I

    def test_complex_half_precision_is_coded_in_single(self):
        x = torch.randn(K, 5, dtype=torch.complex64)
        found = observed(CodedSmoothing(block := Function(torch.sin), [""]), lambda: block(x))
        assert found.dtype == torch.float32
        assert found > 0

    def test_without_features_there_is_nothing_to_code(self):
        block = Function(lambda x, *rest: x)
        with pytest.raises(BatchError, match="only tensors without features"):
            observed(CodedSmoothing(block, [""], replace=True), lambda: block(torch.randn(K, 0)))
        block = Function(lambda x, *rest: x[:, :0])
        with pytest.raises(BatchError, match="no floating-point tensor with features"):
            observed(CodedSmoothing(block, [""], replace=True), lambda: block(torch.randn(K, 3)))

    def test_an_empty_member_adds_nothing(self):
        x = tokens()
        block = Function(lambda x, nothing: (x.tanh(), nothing, x[:, :0]))
        found = observed(CodedSmoothing(block, [""]), lambda: block(x, x[:, :, :0]))
        torch.testing.assert_close(found, by_hand(torch.tanh, x, kinds=("encode",)), **EXACT)

    def test_a_block_that_returns_nothing_is_told_so(self):
        block = Function(lambda x: None)
        with pytest.raises(BatchError, match="no floating-point tensor with features but NoneType"):
            observed(CodedSmoothing(block, [""], replace=True), lambda: block(torch.randn(K, 3)))
        coded = CodedSmoothing(block, [""], replace=True)
        with pytest.raises(BatchError, match="no tensor that can be decoded but NoneType"), coded.substitute():
            block(torch.randn(K, 3))
        try:
            raise ValueError
        except ValueError:  # a call from a handler of exceptions is not an exception itself
            block.function = torch.tanh
            assert observed(CodedSmoothing(block, [""], replace=True), lambda: block(torch.randn(K, 3))) > 0


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"y": "ignore"}, f"'y' is 'ignore': choose one of {', '.join(KINDS)}"),
            ({"table": "plain"}, r"'table', but block '' takes \['x', 'y'\]"),
            ({2: "plain"}, r"names 2, but block '' takes"),
            ({"0": {"y": "plain"}}, r"names \['0'\], not coded: the coded blocks are \[''\]"),
        ],
    )
    def test_a_word_that_fits_nothing_is_refused_at_once(self, arguments, message):
        with pytest.raises(BlockError, match=message):
            CodedSmoothing(Named(torch.add, "y"), [""], arguments=arguments)

    def test_data_that_is_not_as_long_as_the_batch_is_refused(self):
        block = Named(torch.add, "y")
        coded = CodedSmoothing(block, [""], arguments={"y": "encode"})
        with pytest.raises(BatchError, match=r"says that 'y' \(1, 8\) is data, but it is not K = 6 long"):
            observed(coded, lambda: block(tokens()[:, 0], torch.ones(1, 8).double()))

    def test_labels_of_one_argument_may_follow_the_nearest_sample_alone(self):
        block, x, labels = Named(lambda x, y: x * y[:, None], "y"), tokens()[:, 0], torch.arange(K)
        expected = by_hand(block.function, x, labels, kinds=("encode", "nearest"))
        for name in ("y", 1):
            coded = CodedSmoothing(block, [""], arguments={name: "nearest"}, replace=True)
            torch.testing.assert_close(observed(coded, lambda: block(x, labels)), expected, **EXACT)


class TestDivisibleBatches:
    """A block like the minibatch standard deviation of StyleGAN's critic, in groups of 4."""

    @staticmethod
    def groups(x):
        deviation = x.unflatten(0, (4, -1)).std(0).mean(1)
        return torch.cat([x, deviation.repeat(4)[:, None]], 1)

    def test_a_batch_that_it_refuses_is_told_with_block_size_and_what_was_encoded(self):
        block, x = Function(self.groups), torch.randn(64, 3)
        coded = CodedSmoothing(block, [""], 65 / 64)
        for context in ("observe", "substitute"):
            with pytest.raises(BlockError) as raised, getattr(coded, context)():
                block(x)
            assert raised.match(
                r"block '' fails in its coded pass, at N = 65 coded samples for K = 64: RuntimeError: .*\n"
                r"Called with \(encoded: 0 \(65, 3\)\)\. .*multiple=4.*levels"
            )
            assert isinstance(raised.value.__cause__, RuntimeError)

    def test_multiple_rounds_N_up(self):
        block, x = Function(self.groups), torch.randn(64, 3)
        coded = CodedSmoothing(block, [""], 65 / 64, multiple=4)
        assert [CodedSmoothing(Function(None), [""], r, multiple=4).code(64).N for r in (0.99, 1.0, 1.04, 1.5)] == [
            *(64, 64, 68, 96)
        ]
        assert coded.code(64).N == 64
        assert observed(coded, lambda: block(x)) > 0
        with pytest.raises(CodeError, match="multiple=0: N is rounded to a multiple"):
            CodedSmoothing(Function(None), [""], multiple=0)

    def test_a_shortage_of_memory_stays_what_it_is(self):
        # callers catch it to try a smaller batch
        def short(x):
            if len(x) == N:
                raise torch.OutOfMemoryError("out of memory")
            return x

        block = Function(short)
        with pytest.raises(torch.OutOfMemoryError):
            observed(CodedSmoothing(block, [""]), lambda: block(torch.randn(K, 3)))


class TestMemory:
    """What a call shows of an argument counts in later calls."""

    def test_a_mask_among_learned_biases_is_one(self):
        bias = torch.randn(L, L, dtype=torch.float64) + padding(-1e9)
        with pytest.raises(BatchError, match="can't be mixed"):
            observed(CodedSmoothing(block := Function(attend), [""]), lambda: block(tokens(), bias))

    def test_a_mask_stays_one_where_its_values_can_not_be_read_again(self, monkeypatch):
        block, x, mask = Function(attend), tokens(), padding(-1e9)
        coded = CodedSmoothing(block, [""], discrete="nearest")
        expected = by_hand(attend, x, mask, kinds=("encode", "nearest"))
        torch.testing.assert_close(observed(coded, lambda: block(x, mask)), expected, **EXACT)
        monkeypatch.setattr("cs_gan.core.roles.readable", lambda *_: False)  # as on a GPU after the first call
        torch.testing.assert_close(observed(coded, lambda: block(x, mask)), expected, **EXACT)

    def test_a_mask_is_recognised_inside_torch_func(self):
        block, x, mask = Function(attend), tokens(), padding(-1e9)

        def penalty(x):
            with (coded := CodedSmoothing(block, [""], discrete="nearest", replace=True)).observe():
                block(x, mask)
            return coded.penalty()

        value = torch.func.grad_and_value(penalty)(x)[1]
        torch.testing.assert_close(value, by_hand(attend, x, mask, kinds=("encode", "nearest")), **EXACT)

    def test_a_length_of_1_says_nothing(self):
        block = Function(lambda x, extra: (x + extra[:, None]).tanh())
        coded = CodedSmoothing(block, [""])
        observed(coded, lambda: block(tokens(), torch.zeros(1, D).double()))
        with pytest.raises(BatchError, match="may be one entry"):
            observed(coded, lambda: block(tokens(), tokens(1)[:, 0]))

    def test_a_table_that_was_as_long_as_a_batch_by_accident_is_told_by_the_next_one(self):
        block, table = Function(lambda x, table: (x + table[: x.shape[1]]).tanh()), torch.randn(K, D).double()
        coded = CodedSmoothing(block, [""], 1.0)
        observed(coded, lambda: block(tokens(0, 5), table))  # K is no length of the sample: taken for data
        with pytest.raises(BatchError, match="an earlier batch was as long as it, and this one has K = 4"):
            observed(coded, lambda: block(tokens(0, 5)[:4], table))

    def test_a_table_that_was_longer_than_a_batch_stays_a_table(self):
        block, table = Function(lambda x, table: (x + table[: x.shape[1]]).tanh()), torch.randn(K, D).double()
        coded, x = CodedSmoothing(block, [""]), tokens(0, 5)
        observed(coded, lambda: block(x[:4], table))
        expected = by_hand(block.function, x, table, kinds=("encode", "plain"))
        torch.testing.assert_close(observed(coded, lambda: block(x, table)), expected, **EXACT)


def test_arguments_apply_to_a_single_positional_tensor_and_typos_to_no_block_are_refused():
    block = nn.Linear(D, D).double()
    with pytest.raises(BatchError, match="no floating-point tensor"):
        observed(CodedSmoothing(block, [""], arguments={"input": "plain"}), lambda: block(tokens()[:, 0]))
    with pytest.raises(BlockError, match=r"names \['tabel'\], which no coded block takes"):
        CodedSmoothing(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ["0", "1"], arguments={"tabel": "plain"})
    labelled = Named(lambda x, y: x, "y")
    coded = CodedSmoothing(labelled, [""], arguments={"y": "encode"})
    with pytest.raises(BatchError, match=r"says that 'y' .* is data, but torch.int64 can't be mixed"):
        observed(coded, lambda: labelled(tokens()[:, 0], torch.arange(K)))


def test_an_error_before_the_coded_pass_stays_what_it_is():
    block = nn.Linear(D, D)
    with pytest.raises(TypeError, match="randperm"), CodedSmoothing(block, [""]).substitute(generator=0):
        block(torch.randn(K, D))


@pytest.mark.parametrize("give", [lambda a, b: (a - b).square().mean(1), lambda a, b: 0.5, lambda a, b: None])
def test_a_discrepancy_gives_a_scalar(give):
    block = nn.Linear(D, D)
    with pytest.raises(BatchError, match=r"the discrepancy gave .* it must give a scalar tensor"):
        observed(CodedSmoothing(block, [""], discrepancy=give), lambda: block(torch.randn(K, D)))


def test_images_of_integers_are_said_to_need_floats():
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    coded = CodedSmoothing(model, [""])
    told = r"images of integers can't be mixed\. Give floats, such as x\.float\(\)"
    with pytest.raises(BatchError, match=told), coded.observe():
        model(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
