"""The averaged network in checkpoints and snapshots, where its state is more than that of the network."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from cs_gan.gan import averaged
from cs_gan.training import read_checkpoint, read_snapshot, restore, save_checkpoint, save_snapshot
from tests.gan.networks import TinyGenerator


def normalised():
    generator = TinyGenerator()
    spectral_norm(generator.head)
    return generator


@pytest.mark.parametrize("make", [lambda: TinyGenerator().bfloat16(), lambda: TinyGenerator().half(), normalised])
def test_a_resumed_average_goes_on_to_the_bit_and_its_snapshot_is_the_network(make, tmp_path):
    def move(network: nn.Module, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=draw).to(parameter.dtype), alpha=0.1)

    live = make()
    average = averaged(live)
    for seed in range(5):
        move(live, seed)
        average.update_parameters(live)
    save_checkpoint(tmp_path, 5, {"generator": live, "ema": average}, {}, {})
    other = make()
    resumed = averaged(other)
    restore(*read_checkpoint(tmp_path / "step-00000005"), {"generator": other, "ema": resumed}, {})
    for seed in range(5, 8):
        for network, its in ((live, average), (other, resumed)):
            move(network, seed)
            its.update_parameters(network)
    for name, value in average.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name

    save_snapshot(tmp_path / "snapshot.safetensors", average.module, kind="gan", model={}, config={}, step=8)
    sampler = copy.deepcopy(make()).eval()
    sampler.load_state_dict(read_snapshot(tmp_path / "snapshot.safetensors").tensors)
    z = torch.randn(2, 5).to(next(live.parameters()).dtype)
    assert torch.equal(sampler(z), average.module(z))
