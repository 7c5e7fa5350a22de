"""A generator from a snapshot and from the Hub's format, and the way between two latents."""

from __future__ import annotations

import json
import math
from pathlib import Path

import huggingface_hub.hub_mixin
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from models import PretrainedGenerator, build_gan
from models.latents import slerp

MODEL = {"name": "dcgan16", "channels": 1, "width": 4, "latent_dim": 8}


def write_snapshot(path: Path, **changed: object) -> torch.nn.Module:
    """A snapshot as safetensors alone, since models/ knows nothing of who writes it."""
    generator, _ = build_gan(**MODEL)
    generator(torch.randn(16, 8))  # running statistics that are not the initial ones
    metadata = {key: json.dumps(value) for key, value in ({"kind": "gan", "model": MODEL} | changed).items()}
    save_file(generator.state_dict(), path, metadata=metadata)
    return generator.eval()


@pytest.fixture
def snapshot(tmp_path):
    path = tmp_path / "snapshot.safetensors"
    write_snapshot(path)
    return path


class TestFromSnapshot:
    def test_two_lines_give_images(self, tmp_path):
        path = tmp_path / "snapshot.safetensors"
        generator = write_snapshot(path)
        images = PretrainedGenerator.from_snapshot(str(path)).sample(6, seed=0)
        assert images.shape == (6, 1, 16, 16)
        assert images.abs().max() <= 1
        assert not images.requires_grad
        with torch.no_grad():
            z = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
            assert torch.equal(images, generator(z))

    def test_same_seed_same_bits_and_another_seed_others(self, snapshot):
        pretrained = PretrainedGenerator.from_snapshot(snapshot)
        torch.manual_seed(5)  # which is not what latents are drawn from
        assert torch.equal(pretrained.sample(4, seed=1), PretrainedGenerator.from_snapshot(snapshot).sample(4, seed=1))
        assert not torch.equal(pretrained.sample(4, seed=1), pretrained.sample(4, seed=2))

    def test_batches_do_not_change_the_latents(self, snapshot):
        pretrained = PretrainedGenerator.from_snapshot(snapshot)
        # Other batch sizes may take other kernels, so only up to rounding.
        torch.testing.assert_close(pretrained.sample(7, batch_size=3), pretrained.sample(7), rtol=0, atol=1e-5)

    def test_is_in_evaluation_mode_with_latent_dim_and_image_shape(self, snapshot):
        pretrained = PretrainedGenerator.from_snapshot(snapshot)
        assert not any(module.training for module in pretrained.modules())
        assert pretrained.latent_dim == 8
        assert pretrained.image_shape == (1, 16, 16)

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"kind": "classifier"}, "kind"),
            ({"model": {"name": "dcgan17"}}, "did you mean 'dcgan16'"),
            ({"model": MODEL | {"width": 5}}, "tensors don't fit its arguments"),
            ({"model": []}, "no snapshot"),
        ],
    )
    def test_a_snapshot_of_something_else_is_named(self, changed, said, tmp_path):
        path = tmp_path / "other.safetensors"
        write_snapshot(path, **changed)
        with pytest.raises(ValueError, match=r"other\.safetensors is no snapshot of a generator") as caught:
            PretrainedGenerator.from_snapshot(path)
        assert said in str(caught.value)

    def test_junk_and_missing_files_are_named(self, tmp_path):
        (tmp_path / "junk.safetensors").write_bytes(b"\x80\x04 a pickle")
        with pytest.raises(ValueError, match=r"junk\.safetensors is no snapshot"):
            PretrainedGenerator.from_snapshot(tmp_path / "junk.safetensors")
        with pytest.raises(FileNotFoundError, match=r"nowhere.*doesn't exist"):
            PretrainedGenerator.from_snapshot(tmp_path / "nowhere")


class TestHub:
    def test_a_local_folder_gives_back_the_same_bits(self, snapshot, tmp_path):
        pretrained = PretrainedGenerator.from_snapshot(snapshot)
        pretrained.save_pretrained(tmp_path / "saved")
        assert json.loads((tmp_path / "saved" / "config.json").read_text()) == MODEL
        again = PretrainedGenerator.from_pretrained(str(tmp_path / "saved"))
        assert not again.training
        assert torch.equal(again.sample(5, seed=3), pretrained.sample(5, seed=3))
        for key, value in pretrained.state_dict().items():
            assert torch.equal(again.state_dict()[key], value), key

    def test_samples_are_images_of_seed_0_in_a_grid(self, snapshot, tmp_path):
        pretrained = PretrainedGenerator.from_snapshot(snapshot)
        pretrained.save_pretrained(tmp_path / "saved")
        with Image.open(tmp_path / "saved" / "samples.png") as picture:
            pixels = torch.from_numpy(np.array(picture))[..., 0]
        assert pixels.shape == (8 * 18 + 2, 8 * 18 + 2)  # 16 pixels and a gap of 2
        # Rounded to the nearest of 256 levels.
        expected = (pretrained.sample(64, seed=0)[:, 0] + 1) * 127.5
        for number, image in enumerate(expected):
            top, left = (2 + 18 * place for place in divmod(number, 8))
            assert (pixels[top : top + 16, left : left + 16] - image).abs().max() <= 0.501

    def test_a_folder_that_lacks_a_tensor_is_refused(self, snapshot, tmp_path):
        PretrainedGenerator.from_snapshot(snapshot).save_pretrained(tmp_path / "saved")
        weights = tmp_path / "saved" / "model.safetensors"
        tensors = load_file(weights)
        save_file({key: value for key, value in tensors.items() if key != "generator.head.0.bias"}, weights)
        with pytest.raises(RuntimeError, match="Missing key"):
            PretrainedGenerator.from_pretrained(str(tmp_path / "saved"))

    def test_a_pickle_is_refused(self):
        with pytest.raises(ValueError, match="never read"):
            PretrainedGenerator._load_as_pickle(None, "pytorch_model.bin", "cpu", True)

    def test_push_hands_weights_config_and_card_to_the_hub(self, snapshot, tmp_path, monkeypatch):
        """The Hub itself is not asked: HfApi is replaced, and what it is handed is loaded again."""
        uploaded = tmp_path / "uploaded"

        class Api:
            def __init__(self, token=None):
                pass

            def create_repo(self, repo_id, **_):
                return type("Repository", (), {"repo_id": repo_id})

            def upload_folder(self, *, repo_id, folder_path, **_):
                Path(folder_path).rename(uploaded)
                return f"https://huggingface.co/{repo_id}"

        monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", Api)
        pretrained = PretrainedGenerator.from_snapshot(snapshot)
        assert pretrained.push_to_hub("someone/digits").endswith("someone/digits")
        names = {"config.json", "model.safetensors", "README.md", "samples.png"}
        assert {path.name for path in uploaded.iterdir()} == names
        assert "unconditional-image-generation" in (uploaded / "README.md").read_text()
        again = PretrainedGenerator.from_pretrained(str(uploaded))
        assert torch.equal(again.sample(2), pretrained.sample(2))

    def test_networks_alone_need_no_hub(self, after_torch):
        code = (
            "import sys; sys.modules['huggingface_hub'] = None\n"
            "from models import build_gan; build_gan('dcgan16', width=4); print('built')"
        )
        assert after_torch(code).strip() == "built"


class TestSlerp:
    t = torch.linspace(0, 1, 9)

    def test_equals_shoemakes_formula_for_equal_lengths(self):
        first, last = torch.nn.functional.normalize(torch.randn(2, 16, dtype=torch.float64), dim=1)
        omega = math.acos(first @ last)
        t = self.t.double()[:, None]
        expected = (torch.sin((1 - t) * omega) * first + torch.sin(t * omega) * last) / math.sin(omega)
        torch.testing.assert_close(slerp(first, last, self.t), expected, rtol=0, atol=1e-7)  # t is float32's ninths

    def test_ends_are_the_ends_and_lengths_go_linearly(self):
        first, last = torch.randn(2, 128) * torch.tensor([[1.0], [3.0]])
        way = slerp(first, last, self.t)
        assert way.dtype == torch.float32
        torch.testing.assert_close(way[[0, -1]], torch.stack([first, last]))
        torch.testing.assert_close(way.norm(dim=1), torch.lerp(first.norm(), last.norm(), self.t))

    def test_parallel_vectors_are_joined_straight(self):
        first = torch.randn(8)
        torch.testing.assert_close(slerp(first, first, self.t), first.expand(9, -1))
        torch.testing.assert_close(slerp(first, 2 * first, self.t), torch.outer(1 + self.t, first))

    @pytest.mark.parametrize("first", [torch.randn(8), torch.tensor([0.0, 1.0]), torch.ones(3)])
    def test_opposite_vectors_are_joined_by_a_half_circle(self, first):
        way = slerp(first, -first, self.t)
        torch.testing.assert_close(way[[0, -1]], torch.stack([first, -first]))
        torch.testing.assert_close(way.norm(dim=1), first.norm().expand(9))
        torch.testing.assert_close(way @ first, first.norm() ** 2 * torch.cos(math.pi * self.t), rtol=0, atol=1e-5)

    def test_a_vector_of_zeros_gives_finite_points(self):
        assert torch.isfinite(slerp(torch.zeros(4), torch.randn(4), self.t)).all()
        assert torch.equal(slerp(torch.zeros(4), torch.zeros(4), self.t), torch.zeros(9, 4))
