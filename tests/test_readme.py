"""The README's Python blocks run as they stand, given the names that they take for granted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from cs_gan.training import save_snapshot
from models import build_gan

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_readme_has_python_blocks():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_block_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator, critic = build_gan("dcgan16", width=4, channels=1)
    snapshot = tmp_path / "samples" / "quickstart" / "snapshot.safetensors"
    snapshot.parent.mkdir(parents=True)
    model = {"name": "dcgan16", "width": 4, "channels": 1}
    save_snapshot(snapshot, generator, kind="gan", model=model, config={}, step=0)
    images = torch.randn(6, 1, 16, 16)
    given = {
        "torch": torch,
        "generator": generator,
        "critic": critic,
        "loader": [images],
        "classifier": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10)),
        "some_training_inputs": images,
        "x": images[:1],
    }
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), given)
    if "loss" in given:
        given["loss"].backward()
        assert all(p.grad is not None for p in critic.parameters())
    if "images" in given:
        assert len(given["images"]) in (6, 64)
    if "logits" in given:
        assert given["logits"].shape == (1, 10)


PAGES = ["README.md", "CONTRIBUTING.md", "examples/README.md", "samples/gallery/README.md"]
PAGES += [str(path.relative_to(README.parent)) for path in sorted((README.parent / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_exist_and_no_placeholder_is_left(page):
    path = README.parent / page
    text = path.read_text()
    assert "@@" not in text
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (path.parent / link).exists(), link
