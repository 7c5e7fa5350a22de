"""The GAN study packs: each point is a recipe whose blocks exist, and the first and the last arm run at toy size."""

from pathlib import Path

import pytest
import yaml

from cs_gan import CodedSmoothing
from cs_gan.flat_keys import flatten
from cs_gan.study import read_study
from cs_gan.study.plan import plan
from cs_gan.training import parse_config
from models import build_gan
from tasks.gan.recipe import GanConfig

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("configs/studies/gan_*.yaml"))
TOY = {
    "data": {"name": "digits", "image_size": 32, "channels": 3, "limit": 40, "limit_seed": 0},
    "model.width": 4,
    "training": {"steps": 2, "batch_size": 4, "generator_batch_size": 4, "n_critic": 1, "checkpoint_every": 0},
    "metrics": {"extractor": "digits", "num_samples": 20, "final_samples": 20, "num_reference": 40},
    "tracking.trackers": "none",
}


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_point_is_a_recipe_and_its_blocks_exist(path, tmp_path):
    study = read_study(path)
    for run in plan(study, tmp_path)[: len(plan(study, tmp_path)) // len(study.seeds)]:
        config = parse_config(GanConfig, run.command[2:])
        networks = build_gan(**config.model.arguments())
        for network, part in zip(networks, (config.coded.generator, config.coded.critic), strict=True):
            if part.blocks:
                CodedSmoothing(network, part.blocks).detach()
        assert config.critic.feature_norm.block in dict(networks[1].named_modules())


@pytest.mark.parametrize("name", ["gan_cifar10", "gan_cifar10_paper32"])
def test_the_first_and_the_last_arm_run_on_digits(name, bench, in_this_process, monkeypatch):
    monkeypatch.setattr("cs_gan.report.save_curve", lambda *_, **__: None)  # most of the time of such a run
    content = yaml.safe_load((ROOT / f"configs/studies/{name}.yaml").read_text())
    cases = list(content["cases"].items())
    content |= {"cases": dict([cases[0], cases[-1]]), "seeds": 1, "fixed": flatten(TOY)}
    content["score"] = ["FD, digits classifier", "best FD, digits classifier"]
    assert bench.study(**{"plots": None} | content) == 0
    assert "Differences" in bench.markdown or "difference" in bench.markdown
    assert [row["case"] for row in bench.table] == [cases[0][0], cases[-1][0]]
    assert all(float(row["FD, digits classifier"]) > 0 for row in bench.table)
