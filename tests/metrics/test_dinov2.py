"""DINOv2 by torch-fidelity, with a stand-in for the repository and the weights that torch.hub would hold."""

from pathlib import Path

import pytest
import torch

from cs_gan.errors import MetricError
from cs_gan.metrics import Evaluator
from cs_gan.metrics.dinov2 import FILE_NAME, REPOSITORY

HUBCONF = """
import torch

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3 * 7 * 7, 1024)
    def forward(self, x):
        return self.layer(torch.nn.functional.adaptive_avg_pool2d(x, 7).flatten(1))

def dinov2_vitl14(pretrained=True):
    network = Network()
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return network
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "hub"


def fill(hub: Path) -> None:
    weights = hub / "checkpoints" / FILE_NAME
    weights.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torch.nn.Linear(3 * 7 * 7, 1024).state_dict(prefix="layer."), weights)
    repository = hub / REPOSITORY
    repository.mkdir()
    (repository / "hubconf.py").write_text(HUBCONF.replace("WEIGHTS", repr(str(weights))))


class Noise(torch.nn.Module):
    latent_dim = 4

    def forward(self, z):
        return torch.tanh(z[:, :1, None, None].expand(-1, 3, 16, 16))


def evaluator(tmp_path: Path, **options: Path) -> Evaluator:
    real = torch.randint(0, 256, (24, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Evaluator("dinov2", real, reference_about={}, num_samples=20, cache_dir=tmp_path / "cache", **options)


def test_without_weights_it_is_refused_and_says_what_belongs_where(tmp_path: Path, hub: Path) -> None:
    with pytest.raises(MetricError) as error:
        evaluator(tmp_path)
    assert str(hub / "checkpoints" / FILE_NAME) in str(error.value)
    assert str(hub / REPOSITORY) in str(error.value)


def test_a_path_for_the_weights_is_refused(tmp_path: Path, hub: Path) -> None:
    fill(hub)
    with pytest.raises(MetricError, match=r"reads DINOv2 from .* only"):
        evaluator(tmp_path, weights=tmp_path / "elsewhere.pth")


def test_scores_go_by_its_name_and_have_no_inception_score(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(hub)
    monkeypatch.setattr(torch.hub, "_validate_not_a_forked_repo", lambda *_: None)
    scores = evaluator(tmp_path)(Noise(), seed=0)
    assert scores.primary == "FD, DINOv2 ViT-L/14"
    assert scores.values[scores.primary] > 0
    kinds = {name.split(",")[0].split(" ")[0] for name in scores.values}
    assert kinds == {"FD", "KID", "precision", "recall", "density", "coverage"}
    assert len(scores.provenance["weights_sha256"]) == 64
