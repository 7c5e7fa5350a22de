"""What else PyTorch does with a model: DataParallel, torch.export and ONNX, attached or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from cs_gan import CodedSmoothing
from cs_gan.errors import BlockError
from models import build_gan

BATCH = ({0: Dim.DYNAMIC},)  # the first axis may be of any length


@pytest.fixture
def critic() -> nn.Module:
    return build_gan("dcgan16", width=4)[1]


def example(network: nn.Module, batch: int = 4) -> Tensor:
    """A batch of what a generator or a critic takes."""
    shape = (network.latent_dim,) if hasattr(network, "latent_dim") else network.image_shape
    return torch.randn(batch, *shape)


def exported(network: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(network, (x,), dynamic_shapes=BATCH)


class TestDataParallel:
    @pytest.mark.parametrize("around", ["model", "wrapper"])
    def test_on_one_device_it_observes_what_the_bare_model_does(self, around, critic):
        x = example(critic)
        bare = CodedSmoothing(critic, ["blocks.1"])
        with bare.observe():
            scores = critic(x)
        expected = bare.penalty()
        bare.detach()
        wrapper = nn.DataParallel(critic.to("cpu"))
        wrapper.device_ids = wrapper.device_ids[:1]
        if wrapper.device_ids:
            pytest.skip("with a GPU DataParallel wants the model there")
        coded = CodedSmoothing(critic, ["blocks.1"])
        if around == "wrapper":
            coded = CodedSmoothing(wrapper, ["module.blocks.1"], replace=True)
        with coded.observe():
            assert torch.equal(wrapper(x), scores)
        assert torch.equal(coded.penalty(), expected)

    def test_blocks_that_it_would_copy_to_several_devices_are_refused(self, critic):
        wrapper = nn.DataParallel(critic)
        wrapper.device_ids = [0, 1]  # as it has on a machine with two
        for model, blocks in ((wrapper, ["module.blocks.*"]), (nn.Sequential(wrapper), [critic])):
            with pytest.raises(BlockError, match=r"copies blocks .* to 2 devices.*DistributedDataParallel"):
                CodedSmoothing(model, blocks)
        CodedSmoothing(critic, ["blocks.1"])  # nothing was attached


class TestExport:
    @pytest.mark.parametrize("name", ["dcgan16", "paper32", "mimicry32"])
    def test_generator_exports_for_any_batch(self, name):
        generator, _ = build_gan(name, width=4)
        generator.eval()
        program = exported(generator, example(generator)).module()
        for batch in (2, 5):
            z = example(generator, batch)
            torch.testing.assert_close(program(z), generator(z), rtol=0, atol=1e-6)  # float32 of tanh

    @pytest.mark.parametrize("state", ["bare", "attached", "observed before", "detached"])
    def test_the_exported_program_is_that_of_the_bare_model(self, state, critic):
        x = example(critic)
        expected = [str(node) for node in exported(critic, x).graph.nodes]
        if state != "bare":
            coded = CodedSmoothing(critic, ["blocks.1"])
        if state in ("observed before", "detached"):
            with coded.observe():
                critic(x)
        if state == "detached":
            coded.detach()
        program = exported(critic, x)
        assert [str(node) for node in program.graph.nodes] == expected
        torch.testing.assert_close(program.module()(x), critic(x))

    def test_inside_observe_the_coded_pass_is_exported_too(self, critic):
        """So that the documentation's advice, export outside the contexts, has a reason."""
        x = example(critic)
        coded = CodedSmoothing(critic, ["blocks.1"])
        bare = len(exported(critic, x).graph.nodes)
        with coded.observe():
            assert len(torch.export.export(critic, (x,)).graph.nodes) > bare
        assert len(exported(critic, x).graph.nodes) == bare  # and nothing of it stays


class TestOnnx:
    @pytest.fixture(autouse=True)
    def _installed(self):
        for package in ("onnx", "onnxscript"):
            pytest.importorskip(package, reason=f'{package} comes with pip install -e ".[dev]"')

    def outputs(self, network: nn.Module, x: Tensor, others: list[Tensor]) -> list[Tensor]:
        """What ONNX's reference evaluator gives for other batches, after an export with ``x``."""
        from onnx import checker
        from onnx.reference import ReferenceEvaluator

        program = torch.onnx.export(network, (x,), dynamo=True, dynamic_shapes=BATCH, verbose=False)
        assert program is not None
        checker.check_model(program.model_proto)
        (name,) = [one.name for one in program.model_proto.graph.input]
        evaluator = ReferenceEvaluator(program.model_proto)
        return [torch.from_numpy(evaluator.run(None, {name: other.numpy()})[0]) for other in others]

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
    @pytest.mark.parametrize("name", ["dcgan16", "paper32"])
    def test_generator(self, name):
        generator, _ = build_gan(name, width=4)
        generator.eval()
        batches = [example(generator, 2), example(generator, 5)]
        for z, images in zip(batches, self.outputs(generator, example(generator), batches), strict=True):
            # float32 sums in another order: 3e-6 seen, of images in [-1, 1]
            torch.testing.assert_close(images, generator(z), rtol=0, atol=1e-4)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
    @pytest.mark.parametrize("state", ["attached", "detached"])
    def test_critic_that_was_observed(self, state, critic):
        x = example(critic)
        coded = CodedSmoothing(critic, ["blocks.1"])
        with coded.observe():
            scores = critic(x)
        if state == "detached":
            coded.detach()
        torch.testing.assert_close(self.outputs(critic, x, [x])[0], scores, rtol=0, atol=1e-4)
