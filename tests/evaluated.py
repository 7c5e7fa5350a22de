"""What the tests of evaluate.py share: a tiny generator that was never trained, and how the script is called."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
import torch

import evaluate
from cs_gan.training import as_plain, save_snapshot
from models import Generator, build_gan
from tasks.gan.recipe import GanConfig

MODEL = {"name": "dcgan16", "channels": 1, "width": 4, "latent_dim": 8}
# 1797 digits, of which 60 are enough here.
SETTINGS = {"data.limit": 60, "metrics.num_samples": 40, "metrics.batch_size": 32}


def config() -> dict:
    plain = as_plain(GanConfig(seed=5, output_dir="samples/run"))
    for key, value in SETTINGS.items():
        section, name = key.split(".")
        plain[section][name] = value
    return plain


def network(seed: int, **model: object) -> Generator:
    """A generator whose images have contrast and differ, as they don't before training."""
    return copy.deepcopy(_network(seed, **model))


@cache
def _network(seed: int, **model: object) -> Generator:
    torch.manual_seed(seed)
    generator, _ = build_gan(**model)
    for _ in range(50):
        generator(torch.randn(64, 8))  # gives batch norm its running statistics
    generator.head[0].weight.data *= 30
    return generator.eval()


def write_snapshot(path: Path, seed: int, **changed: object) -> None:
    about = {"kind": "gan", "model": MODEL, "config": config(), "step": 70}
    save_snapshot(path, network(seed, **MODEL), **about | changed)


def run(*words: object) -> int:
    return evaluate.main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error
