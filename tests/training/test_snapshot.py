import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import cs_gan.training.snapshot as snapshot_module
from cs_gan.errors import CheckpointError
from cs_gan.training import GanConfig, as_plain, read_snapshot, save_snapshot


def generator():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    module(torch.randn(2, 3, 5, 5))
    return module.eval()


class TestSnapshot:
    def test_weights_configuration_and_step_come_back(self, tmp_path):
        path, module, config = tmp_path / "snapshot.safetensors", generator(), as_plain(GanConfig())
        save_snapshot(path, module, config, 70)
        tensors, about = read_snapshot(path)
        assert about == {"config": config, "step": 70}
        assert tensors.keys() == module.state_dict().keys()
        assert all(torch.equal(tensors[key], value) for key, value in module.state_dict().items())
        fresh = generator()
        fresh.load_state_dict(tensors)
        x = torch.randn(2, 3, 5, 5)
        assert torch.equal(fresh(x), module(x))

    def test_is_one_file_that_replaces_the_one_before(self, tmp_path):
        path = tmp_path / "snapshot.safetensors"
        for step in (1, 2):
            save_snapshot(path, generator(), {}, step)
        assert list(tmp_path.iterdir()) == [path]
        assert read_snapshot(path)[1]["step"] == 2

    def test_tied_weights_are_kept(self, tmp_path):
        module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        module[1].weight = module[0].weight
        save_snapshot(tmp_path / "s.safetensors", module, {}, 1)
        tensors, _ = read_snapshot(tmp_path / "s.safetensors")
        assert torch.equal(tensors["0.weight"], module[0].weight)
        assert torch.equal(tensors["1.weight"], module[0].weight)

    def test_a_full_disk_leaves_the_older_snapshot_and_no_partial_file(self, tmp_path, monkeypatch):
        path = tmp_path / "snapshot.safetensors"
        save_snapshot(path, generator(), {}, 1)

        def full(_tensors, partial, **_kwargs):
            partial.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(snapshot_module, "save_file", full)
        with pytest.raises(CheckpointError, match="No space left"):
            save_snapshot(path, generator(), {}, 2)
        assert list(tmp_path.iterdir()) == [path]
        assert read_snapshot(path)[1]["step"] == 1


class TestWhatIsNoSnapshot:
    @pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x04 a pickle", bytes(200), b"\xff" * 64])
    def test_a_file_of_junk_is_named(self, content, tmp_path):
        path = tmp_path / "junk.safetensors"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"junk\.safetensors is no snapshot"):
            read_snapshot(path)

    def test_a_truncated_snapshot_is_named(self, tmp_path):
        path = tmp_path / "s.safetensors"
        save_snapshot(path, generator(), {}, 1)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(CheckpointError, match="no snapshot"):
            read_snapshot(path)

    def test_a_missing_file_and_a_folder_are_named(self, tmp_path):
        for path in (tmp_path / "nowhere.safetensors", tmp_path):
            with pytest.raises(CheckpointError, match="no snapshot"):
                read_snapshot(path)

    @pytest.mark.parametrize("metadata", [None, {"config": "{}"}, {"step": "1"}, {"config": "{", "step": "1"}])
    def test_safetensors_of_something_else_is_named(self, metadata, tmp_path):
        path = tmp_path / "other.safetensors"
        save_file({"x": torch.zeros(2)}, path, metadata=metadata)
        with pytest.raises(CheckpointError, match="no snapshot"):
            read_snapshot(path)
