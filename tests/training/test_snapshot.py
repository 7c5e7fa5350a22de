import json
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cs_gan.errors import CheckpointError, ConfigError
from cs_gan.training.snapshot import find_snapshot, read_snapshot, save_snapshot

ABOUT = {"kind": "gan", "model": {"name": "dcgan16", "width": 4}, "config": {"seed": 3}, "step": 70}
AS_JSON = {key: json.dumps(value) for key, value in (ABOUT | {"scores": None}).items()}


def generator():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    module(torch.randn(2, 3, 5, 5))
    return module.eval()


class TestSnapshot:
    def test_weights_and_all_that_is_said_of_them_come_back(self, tmp_path):
        path, module = tmp_path / "snapshot.safetensors", generator()
        save_snapshot(path, module, **ABOUT, scores={"FD": 1.5})
        read = read_snapshot(path)
        assert (read.kind, read.model, read.config, read.step) == tuple(ABOUT.values())
        assert read.scores == {"FD": 1.5}
        assert read.tensors.keys() == module.state_dict().keys()
        assert all(torch.equal(read.tensors[key], value) for key, value in module.state_dict().items())
        fresh = generator()
        fresh.load_state_dict(read.tensors)
        x = torch.randn(2, 3, 5, 5)
        assert torch.equal(fresh(x), module(x))

    def test_without_scores_is_one_that_was_not_scored(self, tmp_path):
        save_snapshot(tmp_path / "s.safetensors", generator(), **ABOUT)
        assert read_snapshot(tmp_path / "s.safetensors").scores is None

    def test_is_one_file_that_replaces_the_one_before(self, tmp_path):
        path = tmp_path / "snapshot.safetensors"
        for step in (1, 2):
            save_snapshot(path, generator(), **ABOUT | {"step": step})
        assert list(tmp_path.iterdir()) == [path]
        assert read_snapshot(path).step == 2

    def test_tied_weights_are_kept(self, tmp_path):
        module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        module[1].weight = module[0].weight
        save_snapshot(tmp_path / "s.safetensors", module, **ABOUT)
        tensors = read_snapshot(tmp_path / "s.safetensors").tensors
        assert torch.equal(tensors["0.weight"], module[0].weight)
        assert torch.equal(tensors["1.weight"], module[0].weight)


class TestWhatCantBeWritten:
    def unchanged(self, path, match, module=None, **about):
        """A second save is refused, and the first one is as it was and alone."""
        save_snapshot(path, generator(), **ABOUT | {"step": 1})
        before = path.read_bytes()
        with pytest.raises(CheckpointError, match=match):
            save_snapshot(path, module or generator(), **ABOUT | {"step": 2} | about)
        assert list(path.parent.iterdir()) == [path]
        assert path.read_bytes() == before

    def test_a_full_disk_leaves_the_older_snapshot_and_no_partial_file(self, tmp_path, monkeypatch):
        calls = []

        def full(descriptor):
            calls.append(descriptor)
            if len(calls) > 1:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        self.unchanged(tmp_path / "s.safetensors", "No space left")
        assert len(calls) == 2

    def test_content_is_synced_before_it_gets_its_name(self, tmp_path, monkeypatch):
        done = []
        replace = os.replace
        monkeypatch.setattr(os, "fsync", lambda _: done.append("sync"))
        monkeypatch.setattr(os, "replace", lambda *names: done.append("rename") or replace(*names))
        save_snapshot(tmp_path / "s.safetensors", generator(), **ABOUT)
        assert done == ["sync", "rename"]

    def test_weights_that_are_not_finite(self, tmp_path):
        module = generator()
        module[0].bias.data[1] = torch.nan
        self.unchanged(tmp_path / "s.safetensors", r"NaN or infinite numbers in 0\.bias", module)

    def test_what_json_does_not_know(self, tmp_path):
        self.unchanged(tmp_path / "s.safetensors", "JSON", scores={"FD": float("nan")})
        self.unchanged(tmp_path / "s.safetensors", "JSON", config={"root": tmp_path})

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"nowhere.*s\.safetensors"):
            save_snapshot(tmp_path / "nowhere" / "s.safetensors", generator(), **ABOUT)


class TestWhatIsNoSnapshot:
    @pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x04 a pickle", bytes(200), b"\xff" * 64, "truncated"])
    def test_a_file_of_junk_is_named(self, content, tmp_path):
        path = tmp_path / "junk.safetensors"
        save_snapshot(path, generator(), **ABOUT)
        path.write_bytes(path.read_bytes()[:-1] if content == "truncated" else content)
        with pytest.raises(CheckpointError, match=r"junk\.safetensors is not a snapshot"):
            read_snapshot(path)

    def test_a_missing_file_and_a_folder_are_named(self, tmp_path):
        for path in (tmp_path / "nowhere.safetensors", tmp_path):
            with pytest.raises(CheckpointError, match="not a snapshot"):
                read_snapshot(path)

    @pytest.mark.parametrize(
        ("metadata", "said"),
        [
            (None, "lacks config, kind, model, scores, step"),
            ({"config": "{}", "step": "1"}, "lacks kind, model, scores"),  # what versions before 0.2 wrote
            (AS_JSON | {"config": "{"}, "not a snapshot"),
            (AS_JSON | {"step": '"1"'}, "its step is '1'"),
            (AS_JSON | {"model": "[]"}, "its model is"),
            (AS_JSON | {"model": "[" * 100_000}, "not a snapshot"),
        ],
    )
    def test_safetensors_of_something_else_is_named(self, metadata, said, tmp_path):
        path = tmp_path / "other.safetensors"
        save_file({"x": torch.zeros(2)}, path, metadata=metadata)
        with pytest.raises(CheckpointError, match=r"other\.safetensors is not a snapshot") as caught:
            read_snapshot(path)
        assert said in str(caught.value)

    def test_weights_that_are_not_finite_are_named(self, tmp_path):
        path = tmp_path / "s.safetensors"
        save_file({"x": torch.tensor([1.0, torch.inf])}, path, metadata=AS_JSON)
        with pytest.raises(CheckpointError, match=r"s\.safetensors is not a snapshot.*infinite numbers in x"):
            read_snapshot(path)


class TestFindSnapshot:
    def test_a_folder_means_its_newest_or_its_best(self, tmp_path):
        for name in ("snapshot", "best"):
            (tmp_path / f"{name}.safetensors").touch()
        assert find_snapshot(tmp_path, best=False) == tmp_path / "snapshot.safetensors"
        assert find_snapshot(tmp_path, best=True) == tmp_path / "best.safetensors"
        assert find_snapshot(tmp_path / "best.safetensors", best=False) == tmp_path / "best.safetensors"

    def test_what_is_missing_is_told_with_what_is_near(self, tmp_path):
        with pytest.raises(CheckpointError, match="contains no snapshot"):
            find_snapshot(tmp_path, best=True)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "snapshot.safetensors").touch()
        with pytest.raises(CheckpointError, match=r"contains run/snapshot\.safetensors"):
            find_snapshot(tmp_path / "rum", best=False)
        with pytest.raises(CheckpointError, match=r"contains snapshot\.safetensors"):
            find_snapshot(tmp_path / "run", best=True)

    def test_the_best_of_a_file_is_refused(self, tmp_path):
        (tmp_path / "s.safetensors").touch()
        with pytest.raises(ConfigError, match="--best needs a run folder"):
            find_snapshot(tmp_path / "s.safetensors", best=True)
