import copy
import json

import pytest
import torch
from torch import nn

import cs_gan.training.checkpoint as checkpoint_module
from cs_gan.errors import CheckpointError
from cs_gan.training import list_checkpoints, read_checkpoint, restore, save_checkpoint

FILES = ["manifest.json", "state.json", "tensors.safetensors"]


def network(width=6):
    """Convolutions and batch norm, channels last as train_gan.py has them."""
    layers = [nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 2, 3)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=2e-4, betas=(0.5, 0.9))


def train(module, optimizer, steps, seed=0):
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.randn(4, 3, 7, 7, generator=draw)).square().mean().backward()
        optimizer.step()


def trained(width=6):
    module = network(width)
    optimizer = adam(module)
    train(module, optimizer, 3)
    return module, optimizer


def save(folder, step=3, module=None, optimizer=None, **options):
    """A checkpoint of one network and, where given, its optimiser."""
    modules = {"net": module if module is not None else network()}
    optimizers = {"net": optimizer} if optimizer is not None else {}
    return save_checkpoint(folder, step, modules, optimizers, {"config": {"seed": 0}}, **options)


def assert_same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype
        assert torch.equal(one[key], other[key]), key


class TestRoundTrip:
    def test_training_goes_on_to_the_bit(self, tmp_path):
        module, optimizer = trained()
        path = save(tmp_path, 3, module, optimizer)
        resumed = network()
        resumed_optimizer = torch.optim.Adam(resumed.parameters(), lr=1.0)  # the saved one's settings come back
        tensors, state = read_checkpoint(path)
        assert state["step"] == 3
        assert state["config"] == {"seed": 0}
        restore(tensors, state, {"net": resumed}, {"net": resumed_optimizer})
        assert_same_state(module, resumed)
        weight = resumed[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert resumed_optimizer.state[weight]["exp_avg"].stride() == weight.stride()
        for network_, optimizer_ in ((module, optimizer), (resumed, resumed_optimizer)):
            train(network_, optimizer_, 5, seed=1)
        assert_same_state(module, resumed)
        for ours, theirs in zip(optimizer.state.values(), resumed_optimizer.state.values(), strict=True):
            assert ours.keys() == theirs.keys() == {"step", "exp_avg", "exp_avg_sq"}
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)

    def test_tied_weights_come_back_tied(self, tmp_path):
        def tied():
            first, second = nn.Linear(4, 4), nn.Linear(4, 4)
            second.weight = first.weight
            return nn.Sequential(first, second)

        module, resumed = tied(), tied()
        restore(*read_checkpoint(save(tmp_path, 1, module)), {"net": resumed}, {})
        assert_same_state(module, resumed)
        assert resumed[0].weight is resumed[1].weight

    def test_views_of_one_storage_come_back(self, tmp_path):
        def views():
            module, storage = nn.Module(), torch.randn(6)
            module.register_buffer("head", storage[:4])
            module.register_buffer("tail", storage[2:])
            return module

        module, resumed = views(), nn.Module()
        resumed.register_buffer("head", torch.zeros(4))
        resumed.register_buffer("tail", torch.zeros(4))
        restore(*read_checkpoint(save(tmp_path, 1, module)), {"net": resumed}, {})
        assert_same_state(module, resumed)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.bool])
    def test_every_dtype_comes_back(self, dtype, tmp_path):
        module, resumed = nn.Module(), nn.Module()
        module.register_buffer("x", torch.tensor([0.0, 1.0, 2.5]).to(dtype))
        resumed.register_buffer("x", torch.zeros(3, dtype=dtype))
        restore(*read_checkpoint(save(tmp_path, 1, module)), {"net": resumed}, {})
        assert_same_state(module, resumed)


class TestFiles:
    def test_are_safetensors_and_json_and_nothing_pickled(self, tmp_path):
        path = save(tmp_path, 12, *trained())
        assert path == tmp_path / "step-00000012"
        assert sorted(file.name for file in path.iterdir()) == FILES
        for name in ("state.json", "manifest.json"):
            json.loads((path / name).read_text())
        assert sorted(json.loads((path / "manifest.json").read_text())) == ["format", *FILES[1:]]

    def test_saving_changes_nothing_in_the_live_network(self, tmp_path):
        module, optimizer = trained()
        before = copy.deepcopy(module)
        save(tmp_path, 3, module, optimizer)
        assert_same_state(module, before)
        assert all(p.requires_grad for p in module.parameters())


class TestDamage:
    @pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
    @pytest.mark.parametrize("left", [0, 10])
    def test_a_truncated_file_is_found(self, name, left, tmp_path):
        path = save(tmp_path, 1)
        (path / name).write_bytes((path / name).read_bytes()[:left])
        with pytest.raises(CheckpointError, match="no other checkpoint") as error:
            read_checkpoint(path)
        assert str(path / name) in str(error.value)

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"state.json": "0"}'])
    def test_a_manifest_of_nonsense_is_found(self, content, tmp_path):
        path = save(tmp_path, 1)
        (path / "manifest.json").write_text(content)
        with pytest.raises(CheckpointError) as error:
            read_checkpoint(path)
        assert str(path) in str(error.value)

    def test_only_a_whole_checkpoint_is_offered_in_place_of_a_damaged_one(self, tmp_path):
        whole, *damaged = [save(tmp_path, step, keep=3) for step in (1, 2, 3)]
        for path in damaged:
            (path / "manifest.json").unlink()
        with pytest.raises(CheckpointError, match=f"--resume={whole}"):
            read_checkpoint(damaged[-1])


class TestRefusal:
    @staticmethod
    def missing_layer():
        return nn.Sequential(*list(network())[:-1])

    @staticmethod
    def another_width():
        return network(width=7)

    @staticmethod
    def another_layer():
        return nn.Sequential(*network(), nn.Conv2d(2, 2, 1))

    @pytest.mark.parametrize(
        ("another", "differs"),
        [("missing_layer", r"3\.bias, 3\.weight"), ("another_width", r"0\.bias, 0\.weight"), ("another_layer", "4")],
    )
    def test_another_network_is_refused_and_stays_as_it_was(self, another, differs, tmp_path):
        tensors, state = read_checkpoint(save(tmp_path, 1))
        matching, other = network(), getattr(self, another)()
        before = [copy.deepcopy(matching), copy.deepcopy(other)]
        tensors |= {key.replace("modules.net", "modules.first"): value for key, value in tensors.items()}
        with pytest.raises(CheckpointError, match=f"net is another network.*{differs}"):
            restore(tensors, state, {"first": matching, "net": other}, {})
        assert_same_state(matching, before[0])
        assert_same_state(other, before[1])

    def test_a_network_that_the_checkpoint_lacks_is_refused(self, tmp_path):
        with pytest.raises(CheckpointError, match="critic is another network"):
            restore(*read_checkpoint(save(tmp_path, 1)), {"critic": network()}, {})

    @pytest.mark.parametrize("stored", ["none", "of fewer parameters"])
    def test_another_optimisers_state_is_refused_and_the_network_stays_as_it_was(self, stored, tmp_path):
        module = network()
        optimizer = None if stored == "none" else torch.optim.Adam(module[0].parameters())
        resumed = network()
        before = copy.deepcopy(resumed)
        with pytest.raises(CheckpointError, match="optimiser of the net"):
            restore(*read_checkpoint(save(tmp_path, 1, module, optimizer)), {"net": resumed}, {"net": adam(resumed)})
        assert_same_state(resumed, before)


class TestPruning:
    @pytest.mark.parametrize("keep", [1, 2, 3, 10])
    def test_keeps_the_last_ones(self, keep, tmp_path):
        for step in range(1, 6):
            save(tmp_path, step, keep=keep)
        expected = [f"step-{step:08d}" for step in range(1, 6)][-keep:]
        assert [path.name for path in list_checkpoints(tmp_path)] == expected

    @pytest.mark.parametrize("keep", [1, 2])
    def test_keeps_what_was_just_written_beside_later_checkpoints(self, keep, tmp_path):
        """A run that went on from an older checkpoint writes before the end of the one it left."""
        for step in (1, 2, 3, 4):
            save(tmp_path, step, keep=4)
        written = save(tmp_path, 2, keep=keep)
        assert written in list_checkpoints(tmp_path)
        assert len(list_checkpoints(tmp_path)) == keep

    def test_a_step_written_again_holds_the_newer_weights(self, tmp_path):
        first, second = network(), network()
        save(tmp_path, 1, first)
        path = save(tmp_path, 1, second)
        resumed = network()
        restore(*read_checkpoint(path), {"net": resumed}, {})
        assert_same_state(resumed, second)


class TestFailureToWrite:
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("I/O error")])
    @pytest.mark.parametrize("stage", ["save_file", "_sync"])
    def test_leaves_the_older_checkpoints_and_no_partial_folder(self, stage, error, tmp_path, monkeypatch):
        earlier = [save(tmp_path, 1), save(tmp_path, 2)]

        def fail(*_args, **_kwargs):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_module, stage, fail)
            with pytest.raises(CheckpointError, match="can't write the checkpoint") as raised:
                save(tmp_path, 3)
        assert str(error) in str(raised.value)
        assert sorted(tmp_path.iterdir()) == earlier
        for path in earlier:
            read_checkpoint(path)
        assert save(tmp_path, 3) in list_checkpoints(tmp_path)

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(CheckpointError, match="file/checkpoints"):
            save(tmp_path / "file" / "checkpoints", 1)

    def test_what_a_kill_left_behind_is_removed_by_the_next_checkpoint(self, tmp_path):
        for name in (".partial-00000001", ".pruned-step-00000000"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "tensors.safetensors").write_bytes(b"half")
        assert list_checkpoints(tmp_path) == []
        path = save(tmp_path, 2)
        assert list(tmp_path.iterdir()) == [path]
