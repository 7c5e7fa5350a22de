"""train_gan.py and evaluate.py with networks of someone's own: they are tried at once, and no file can name code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import evaluate
from cs_gan.runs import read_lines
from cs_gan.training import as_plain, read_checkpoint, read_snapshot, save_snapshot
from models import PretrainedGenerator, build_gan
from models.own import ForeignCode, own_class
from tasks.gan.recipe import GanConfig
from tests.scripts import assert_resumes, last
from tests.test_train_gan import refused, run

pytestmark = pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")

# view() and a score (B, 1), as most people's networks have them.
NETWORKS = """
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self, hidden=8, size=16, classes=0):
        super().__init__()
        self.size = size
        self.body = nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, size * size)
        self.classes = nn.Embedding(classes, hidden) if classes else None
    def forward(self, z, labels=None):
        h = self.body(z)
        h = h if self.classes is None else h + self.classes(labels)
        return torch.tanh(self.head(h)).view(-1, 1, self.size, self.size)

class WithLatents(Generator):
    latent_dim = 6

class Critic(nn.Module):
    def __init__(self, hidden=8, size=16, classes=0):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, hidden, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(hidden * size * size, 1)
        self.classes = nn.Embedding(classes, hidden * size * size) if classes else None
    def forward(self, x, labels=None):
        h = self.body(x).view(len(x), -1)
        return self.head(h) if self.classes is None else self.head(h) + (self.classes(labels) * h).sum(1, keepdim=True)

class Masked(WithLatents):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
    def forward(self, z):
        return super().forward(z) + 0 * self.mask.softmax(1).sum()

class Pair(Critic):
    def forward(self, x):
        return super().forward(x), x

class OneScore(Critic):
    def forward(self, x):
        return super().forward(x).mean()

class Broken(Critic):
    def forward(self, x):
        raise RuntimeError("two\\nlines")

def function():
    pass
"""
OWN = ["--model.generator=someones_gan:WithLatents", "--model.critic=someones_gan:Critic"]
CODED_BODY = ["--coded.critic.blocks=body", "--coded.generator.blocks=body"]
SCORED = ["--metrics.extractor=digits", "--metrics.num_samples=20"]


@pytest.fixture(autouse=True)
def _beside(tmp_path, monkeypatch):
    """The current folder holds someone's module, and Python forgets it after the test."""
    (tmp_path / "someones_gan.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("someones_gan", None)


@pytest.mark.usefixtures("pictures")
def test_own_networks_are_trained_coded_scored_and_reported(tmp_path):
    more = [*OWN, *CODED_BODY, *SCORED, "--model.options.hidden=5"]
    assert run(tmp_path / "run", *more) == 0
    assert read_lines(tmp_path / "run" / "metrics.jsonl")[-1]["scores"]
    assert all(row["critic_coded"] > 0 and row["generator_coded"] > 0 for row in read_lines(tmp_path / "run/log.jsonl"))
    assert "someones_gan:WithLatents" in (tmp_path / "run" / "report.html").read_text()
    snapshot = read_snapshot(tmp_path / "run" / "snapshot.safetensors")
    assert snapshot.tensors["head.weight"].shape == (256, 5)
    assert snapshot.model == {
        "name": "someones_gan:WithLatents",
        "options": {"hidden": 5},
        "image_shape": [1, 16, 16],
        "latent_dim": 6,
    }


def test_a_resumed_run_of_own_networks_equals_an_undisturbed_one_to_the_bit(tmp_path):
    assert_resumes(run, tmp_path, *OWN, *CODED_BODY)


def test_a_buffer_that_is_a_mask_of_infinity_is_no_divergence(tmp_path):
    own = ["--model.generator=someones_gan:Masked", OWN[1]]
    assert run(tmp_path / "run", *own, "--training.checkpoint_every=1") == 0
    assert torch.isneginf(read_snapshot(tmp_path / "run" / "snapshot.safetensors").tensors["mask"]).any()


def test_own_networks_take_the_place_of_a_recipes_name_and_width(tmp_path, capsys):
    assert run(tmp_path / "run", *OWN, "--dry-run") == 0  # the test's recipe has both
    assert "someones_gan:WithLatents: generator" in capsys.readouterr().out


def test_options_can_be_of_one_network_alone(tmp_path):
    options = '--model.options={"hidden": 5, "critic": {"hidden": 3}}'
    assert run(tmp_path / "run", *OWN, options, "--training.steps=1") == 0
    tensors = read_checkpoint(last(tmp_path / "run"))[0]
    found = {key: value.shape[0] for key, value in tensors.items() if key.endswith(".body.0.weight")}
    assert sorted(set(found.values())) == [3, 5]


def test_latent_dim_of_the_recipe_is_used_where_the_class_has_none(tmp_path, capsys):
    plain = ["--model.generator=someones_gan:Generator", OWN[1], "--training.steps=1"]
    assert "--model.latent_dim=<n>" in refused(capsys, tmp_path / "run", *plain)
    assert run(tmp_path / "run", *plain, *SCORED, "--model.latent_dim=6") == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (OWN[:1], ["model.generator", "without model.critic"]),
        (OWN[1:], ["model.critic", "without model.generator"]),
        (["--model.options.hidden=3"], ["model.options", "model.width"]),
        ([*OWN, "--model.generator=someones_gan"], ["model.generator", "package.module:Class"]),
        ([*OWN, "--model.generator=someones_gna:Generator"], ["model.generator", "No module named", "current folder"]),
        ([*OWN, "--model.critic=someones_gan:Critik"], ["model.critic", "someones_gan.py has no class Critik"]),
        ([*OWN, "--model.critic=someones_gan:function"], ["model.critic", "torch.nn.Module"]),
        ([*OWN, "--model.critic=os:system", "--model.options.command=false"], ["model.critic", "torch.nn.Module"]),
        ([*OWN, "--model.options.hiden=3"], ["model.options", "hiden", "options.generator.<name>"]),
        ([*OWN, "--model.options.size=8"], ["model.generator", "(2, 1, 8, 8)", "(2, 1, 16, 16)", "model.options"]),
        ([*OWN, "--model.options.critic.size=8"], ["model.critic", "failed on images of shape (2, 1, 16, 16)"]),
        ([*OWN, "--model.latent_dim=7"], ["model.latent_dim = 7", "latent_dim = 6"]),
        (["--model.critic=someones_gan:Pair", OWN[0]], ["model.critic", "a tuple of 2"]),
        (["--model.critic=someones_gan:OneScore", OWN[0]], ["model.critic", "for 2 images"]),
        (["--model.critic=someones_gan:Broken", OWN[0]], ["model.critic", "RuntimeError: two lines"]),
        ([*OWN, "--model.conditional=true", "--data.name=folder"], ["--data.root"]),
        ([*OWN, "--model.conditional=true", "--model.critic=someones_gan:Pair"], ["model.critic", "and their classes"]),
        (["--model.width=0"], ["model.width = 0"]),
        (["--model.name=resnet", "--data.image_size=48"], ["data.image_size = 48", "128"]),
        (["--model.conditional=true"], ["model.name = 'dcgan16'", "resnet"]),
    ],
)
def test_networks_that_cannot_be_used_are_refused_before_a_step_by_their_key(given, said, tmp_path, capsys):
    error = refused(capsys, tmp_path / "run", *given)
    assert all(words in error for words in said), error
    assert "build_gan" not in error


def test_own_networks_get_the_classes_where_the_recipe_says_so(tmp_path):
    more = [*OWN, "--model.conditional=true", "--model.options.classes=10", *CODED_BODY, *SCORED]
    assert run(tmp_path / "run", *more) == 0
    folder, asked = tmp_path / "run", ["--model.generator=someones_gan:WithLatents", "--class=3"]
    assert evaluate.main(["sample", str(folder), *asked, "--count=4", f"--folder={tmp_path / 'threes'}"]) == 0
    assert len(list((tmp_path / "threes").iterdir())) == 4


# -- files name no code ----------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path) -> Path:
    """A run folder of someone else's, whose class writes a file when it is imported, and that module."""
    (tmp_path / "foreign_gan.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n" + NETWORKS)
    config = as_plain(GanConfig(output_dir="x"))
    config["model"] |= {"name": "foreign_gan:WithLatents", "generator": "foreign_gan:WithLatents"}
    config["model"] |= {"critic": "foreign_gan:Critic"}
    exec(NETWORKS, space := {"__name__": "here"})
    about = {"name": "foreign_gan:WithLatents", "options": {}, "latent_dim": 6, "image_shape": [1, 16, 16]}
    (tmp_path / "theirs").mkdir()
    path = tmp_path / "theirs" / "snapshot.safetensors"
    save_snapshot(path, space["WithLatents"](), kind="gan", model=about, config=config, step=1)
    yield tmp_path / "theirs"
    sys.modules.pop("foreign_gan", None)


@pytest.mark.parametrize("command", ["sample", "interpolate", "score", "nearest", "publish"])
def test_no_command_imports_what_a_snapshot_names(command, foreign, tmp_path, capsys):
    more = [f"--folder={tmp_path / 'hub'}"] if command == "publish" else []
    assert evaluate.main([command, str(foreign), *more]) == 2
    error = capsys.readouterr().err
    assert "foreign_gan:WithLatents" in error
    if command != "publish":
        assert "--model.generator=foreign_gan:WithLatents" in error
    assert not (tmp_path / "imported").exists()


def test_the_option_given_again_imports_it(foreign, tmp_path):
    given = "--model.generator=foreign_gan:WithLatents"
    assert evaluate.main(["sample", str(foreign), "--count=4", given]) == 0
    assert (tmp_path / "imported").exists()


def test_python_loads_a_class_that_is_handed_over_and_imports_none(foreign, tmp_path):
    WithLatents = own_class("someones_gan:WithLatents", "own")
    path = foreign / "snapshot.safetensors"
    with pytest.raises(ForeignCode, match="own=WithLatents"):
        PretrainedGenerator.from_snapshot(path)
    pretrained = PretrainedGenerator.from_snapshot(path, own=WithLatents)
    assert pretrained.sample(3).shape == (3, 1, 16, 16)
    pretrained.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["name"] == "foreign_gan:WithLatents"
    with pytest.raises(ForeignCode):
        PretrainedGenerator.from_pretrained(str(tmp_path / "saved"))
    again = PretrainedGenerator.from_pretrained(str(tmp_path / "saved"), own=WithLatents)
    assert torch.equal(again.sample(3), pretrained.sample(3))
    assert not (tmp_path / "imported").exists()


def test_a_run_that_begins_with_another_runs_weights_imports_only_its_own_recipes_class(foreign, tmp_path):
    theirs = ["--model.generator=foreign_gan:WithLatents", "--model.critic=foreign_gan:Critic"]
    assert run(tmp_path / "run", *theirs) == 0
    (tmp_path / "imported").unlink()
    sys.modules.pop("foreign_gan")
    assert run(tmp_path / "new", *OWN, f"--resume={tmp_path / 'run'}") == 0
    assert not (tmp_path / "imported").exists()


def test_a_recipes_options_build_no_class(foreign, tmp_path, capsys):
    """jsonargparse would import and build what a {"class_path": ...} names if the key were of any type."""
    options = '--model.options={"hidden": {"class_path": "foreign_gan.Critic"}}'
    assert "model.options" in refused(capsys, tmp_path / "run", *OWN, options)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    "section",
    [
        {"data": "foreign_gan.Critic"},
        {"data": {"class_path": "foreign_gan.Critic"}},
        {"critic": {"lecam": {"class_path": "foreign_gan.Critic", "init_args": {}}}},
        {"model": {"options": {"hidden": {"class_path": "foreign_gan.Critic"}}}},
    ],
)
def test_a_section_of_a_stored_recipe_names_no_class(section, foreign, tmp_path, capsys):
    """jsonargparse imports what stands in place of a section, and then refuses it."""
    path = foreign / "snapshot.safetensors"
    snapshot = read_snapshot(path)
    config = as_plain(GanConfig(output_dir="x")) | section
    model = {"name": "dcgan16", "channels": 1, "width": 4}
    save_snapshot(path, build_gan(**model)[0], kind="gan", model=model, config=config, step=snapshot.step)
    assert evaluate.main(["score", str(foreign)]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "imported").exists()
