"""Run folders as training leaves them."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cs_gan.report import save_grid

FD, IS = "FD, EfficientNet-Lite0", "IS, EfficientNet-Lite0"


def provenance(**changes):
    found = {
        "extractor": "efficientnet_lite0",
        "weights": "/somewhere/weights.pt",
        "weights_sha256": "702b1ec2",
        "num_samples": 2000,
        "num_reference": 5000,
        "reference": {"data": "cifar10", "split": "train", "preparation": "none"},
        "image_size": [3, 32, 32],
        "notes": [],
        "seed": 0,
        "seconds": 70.25,
    }
    return found | changes


def evaluation(step, scores, **changes):
    """A line of metrics.jsonl; ``changes`` go into its provenance."""
    return {
        "step": step,
        "scores": scores,
        "primary": next(iter(scores)),
        "better": "lower",
        "provenance": provenance(**changes),
    }


def config(folder, **changes):
    recipe = {
        "seed": 0,
        "output_dir": str(folder),
        "resume": "auto",
        "data": {"name": "cifar10"},
        "model": {"name": "dcgan32"},
        "training": {"steps": 1000, "n_critic": 5},
        "coded": {"critic": {"blocks": []}},
    }
    return recipe | changes


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def frames(page):
    """The pictures of a page, decoded."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def text_of(page):
    """What is between the tags, in one line."""
    body = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def default_metrics():
    return [
        evaluation(step, {FD: fd, IS: 2.0 + step / 1000, f"{IS} std": 0.125})
        for step, fd in ((0, 304.5), (500, 117.25), (1000, 123.0))
    ]


@pytest.fixture
def make_run(tmp_path):
    """Writes a run folder and gives its path; each part can be replaced, or left out by None."""

    def make(name="run", *, recipe=(), metrics=default_metrics, log=True, grids=(0, 500, 1000), scores=None):
        folder = tmp_path / name
        (folder / "grids").mkdir(parents=True)
        if recipe is not None:
            (folder / "config.yaml").write_text(yaml.safe_dump(config(folder, **dict(recipe)), sort_keys=False))
        if metrics is not None:
            (folder / "metrics.jsonl").write_text(lines(*(metrics() if callable(metrics) else metrics)))
        if log:
            rows = [{"step": step, "critic_loss": -step / 100, "images_per_second": 800.0} for step in (50, 100, 150)]
            (folder / "log.jsonl").write_text(lines(*rows))
        for shade, step in enumerate(grids):
            images = torch.full((4, 3, 32, 32), 255 * shade // max(len(grids) - 1, 1), dtype=torch.uint8)
            save_grid(folder / "grids" / f"step-{step:08d}.png", images)
            save_grid(folder / "grid.png", images)
        if scores is not None:
            (folder / "scores.json").write_text(json.dumps(scores))
        return folder

    return make
