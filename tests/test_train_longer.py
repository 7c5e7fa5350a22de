"""Training longer than was planned (--extend), and beginning a new run with the weights of another one."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from cs_gan.runs import read_lines
from cs_gan.training import list_checkpoints, read_checkpoint, read_snapshot
from tests import test_train_classifier as classifier
from tests import test_train_gan as gan
from tests import test_train_ssl as ssl
from tests.reliability.child import Fault
from tests.reliability.runs import assert_same, finish, kill
from tests.scripts import last, losses, refusal, states_equal
from tests.test_train_gan import run

pytestmark = pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")

# N/K and the weight depend on the number of steps, and every other step observes.
CODED = [
    *gan.CODED,
    "--coded.critic.weight=0.1",
    "--coded.critic.weight_end=0.3",
    "--coded.every=2",
    "--training.checkpoint_every=1",
]
KEPT = [*CODED, "--training.keep_checkpoints=9"]
SCORED = ["--metrics.extractor=digits", "--metrics.num_samples=40", "--training.evaluate_every=2"]
LONGER = ["--training.steps=6", "--extend"]


def config(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


def digests(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


# -- --extend --------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [2, 4])
def test_extended_run_with_held_schedules_equals_one_that_was_to_hold_them(tmp_path, done):
    """The oracle is a run that was told so from its first step; the extended one had ended, or not."""
    assert run(tmp_path / "planned", *KEPT, "--training.steps=6", "--training.schedule_steps=4") == 0
    assert run(tmp_path / "run", *KEPT) == 0
    for path in list_checkpoints(tmp_path / "run" / "checkpoints")[done:]:
        shutil.rmtree(path)
    assert run(tmp_path / "run", *KEPT, *LONGER) == 0
    assert last(tmp_path / "run").name == "step-00000006"
    assert states_equal(last(tmp_path / "planned"), last(tmp_path / "run"))
    assert losses(tmp_path / "planned") == losses(tmp_path / "run")
    assert [row["ratio"] for row in losses(tmp_path / "run")] == [1.0, 1.125, 1.25, 1.375, 1.5, 1.5]


def test_extended_run_with_stretched_schedules_has_those_of_the_longer_run(tmp_path):
    decay = "--training.decay=linear"
    assert run(tmp_path / "run", *KEPT, decay) == 0
    assert run(tmp_path / "run", *KEPT, decay, "--training.steps=6", "--extend=stretch") == 0
    ratios = [row["ratio"] for row in losses(tmp_path / "run")]
    assert ratios == pytest.approx([*(1 + 0.5 * step / 4 for step in range(4)), 1 + 0.5 * 4 / 6, 1 + 0.5 * 5 / 6])
    rate = read_checkpoint(last(tmp_path / "run"))[1]["optimizers"]["critic"][0]["lr"]
    assert rate == pytest.approx(2e-4 * (1 - 5 / 6))


@pytest.mark.parametrize("kept", [4, 5])
def test_extended_run_that_was_killed_ends_in_the_same_bits(tmp_path, kept):
    """With the first checkpoint of the longer run or without it; the same command goes on."""
    for name in ("whole", "parts"):
        assert run(tmp_path / name, *KEPT) == 0
        assert run(tmp_path / name, *KEPT, *LONGER) == 0
    for path in list_checkpoints(tmp_path / "parts" / "checkpoints")[kept:]:
        shutil.rmtree(path)
    assert run(tmp_path / "parts", *KEPT, *LONGER) == 0
    assert states_equal(last(tmp_path / "whole"), last(tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert config(tmp_path / "parts")["history"] == config(tmp_path / "whole")["history"]


def test_extended_run_under_sigkill_equals_the_undisturbed_extension(tmp_path):
    longer = ["--training.steps=12", "--extend=stretch"]
    for name in ("whole", "parts"):
        finish(tmp_path / name)
    finish(tmp_path / "whole", *longer)
    kill(tmp_path / "parts", Fault("tasks.gan.task:generator_step", call=2), *longer)
    assert_same(tmp_path / "whole", finish(tmp_path / "parts", *longer))


def test_saved_recipe_of_an_extended_run_goes_on_with_it(tmp_path):
    assert run(tmp_path / "run", *KEPT) == 0
    assert run(tmp_path / "run", *KEPT, *LONGER) == 0
    before = digests(last(tmp_path / "run"))
    shutil.rmtree(last(tmp_path / "run"))
    assert gan.train_gan.main([f"--config={tmp_path / 'run' / 'config.yaml'}"]) == 0
    assert digests(last(tmp_path / "run")) == before


def test_scores_config_and_snapshot_say_that_a_run_was_extended(tmp_path, capsys):
    assert run(tmp_path / "run", *CODED, *SCORED) == 0
    capsys.readouterr()
    assert run(tmp_path / "run", *CODED, *SCORED, *LONGER) == 0
    note = "extended at step 4 from 4 steps to 6, schedules held at their end: not one uninterrupted run"
    assert note in capsys.readouterr().out
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert {row["step"]: row["provenance"].get("history") for row in rows} == {0: None, 2: None, 4: None, 6: [note]}
    full = json.loads((tmp_path / "run" / "scores.json").read_text())
    best = full["best"]
    assert full["final"]["provenance"]["history"] == [note]
    assert best["provenance"].get("history") == ([note] if best["step"] == 6 else None)
    assert config(tmp_path / "run")["history"] == [note]
    assert read_snapshot(tmp_path / "run" / "snapshot.safetensors").config["history"] == [note]
    # Once more: both are told, and schedules stay where they have been held.
    assert run(tmp_path / "run", *CODED, *SCORED, "--training.steps=8", "--extend") == 0
    assert [text.split(",")[0] for text in config(tmp_path / "run")["history"]] == [
        "extended at step 4 from 4 steps to 6",
        "extended at step 6 from 6 steps to 8",
    ]
    assert config(tmp_path / "run")["training"]["schedule_steps"] == 4


def test_more_steps_that_no_schedule_depends_on_are_no_extension(tmp_path):
    assert run(tmp_path / "whole", "--training.steps=6") == 0
    assert run(tmp_path / "run") == 0
    for _ in range(2):  # the same command once more has nothing to do
        assert run(tmp_path / "run", *LONGER) == 0
        assert states_equal(last(tmp_path / "whole"), last(tmp_path / "run"))
        assert config(tmp_path / "run")["history"] == []


def test_what_cannot_be_extended_is_refused_and_told_what_to_do(tmp_path, capsys):
    assert "holds no checkpoint" in refusal(capsys, run, tmp_path / "none", *LONGER)
    assert run(tmp_path / "run", *CODED) == 0
    before = digests(tmp_path / "run" / "checkpoints")
    plain = refusal(capsys, run, tmp_path / "run", *CODED, "--training.steps=6")
    assert "training.steps: 4 -> 6" in plain
    assert "--extend trains longer" in plain
    assert "--extend=stretch" in plain
    assert "has 4 steps already" in refusal(capsys, run, tmp_path / "run", *CODED, "--extend")
    assert "has 4 steps already" in refusal(capsys, run, tmp_path / "run", *CODED, "--training.steps=3", "--extend")
    other = refusal(capsys, run, tmp_path / "run", *CODED, *LONGER, "--training.learning_rate=0.1")
    assert "training.learning_rate: 0.0002 -> 0.1" in other
    assert "leave one of them out" in refusal(
        capsys, run, tmp_path / "run", *CODED, *LONGER, "--training.schedule_steps=2"
    )
    assert digests(tmp_path / "run" / "checkpoints") == before
    assert run(tmp_path / "run", *CODED, *LONGER) == 0
    assert "--extend" in refusal(
        capsys, run, tmp_path / "run", *CODED, "--training.steps=6"
    )  # which it was extended with
    other = refusal(capsys, run, tmp_path / "run", *CODED, "--training.steps=6", "--extend=stretch")
    assert "already extended at step 4 from 4 steps to 6, schedules held" in other


def test_learning_rate_that_would_stay_at_zero_is_refused(tmp_path, capsys):
    decay = "--training.decay=linear"
    assert run(tmp_path / "run", decay) == 0
    error = refusal(capsys, run, tmp_path / "run", decay, *LONGER)
    assert "learning rate ends at 0" in error
    assert "--extend=stretch" in error
    error = refusal(capsys, run, tmp_path / "other", decay, "--training.schedule_steps=2")
    assert "training.schedule_steps = 2 must be null" in error


@pytest.mark.parametrize("script", [classifier, ssl])
def test_extend_of_the_other_scripts_equals_a_run_that_was_to_hold(tmp_path, script):
    coded = classifier.CODED if script is classifier else [*ssl.ENCODER, "--coded.weight_end=1"]
    coded = [*coded, "--training.decay=constant", "--training.warmup=0.5"]
    assert script.run(tmp_path / "planned", *coded, "--training.steps=6", "--training.schedule_steps=4") == 0
    assert script.run(tmp_path / "run", *coded) == 0
    assert script.run(tmp_path / "run", *coded, "--training.steps=6") == 2
    assert script.run(tmp_path / "run", *coded, *LONGER) == 0
    assert states_equal(last(tmp_path / "planned"), last(tmp_path / "run"))
    assert losses(tmp_path / "planned") == losses(tmp_path / "run")


def test_epochs_are_extended_as_steps_are(tmp_path, capsys):
    assert classifier.run(tmp_path / "run", "--training.epochs=0.9") == 0  # 40 images in batches of 8: 4.5, up
    assert classifier.run(tmp_path / "run", "--training.epochs=2") == 2
    assert "--extend" in capsys.readouterr().err
    assert classifier.run(tmp_path / "run", "--training.epochs=2", "--extend=stretch") == 0
    assert last(tmp_path / "run").name == "step-00000010"
    assert config(tmp_path / "run")["history"][0].startswith(
        "extended at step 5 from 5 steps to 10, schedules stretched"
    )


# -- a new run with another's weights --------------------------------------------------------------


def resumed(folder: Path) -> str:
    return f"--resume={folder}"


@pytest.mark.parametrize("of", ["run", "checkpoint"])
def test_new_run_begins_with_the_weights_of_another(tmp_path, capsys, of):
    assert run(tmp_path / "old", *CODED) == 0
    before, source = digests(tmp_path / "old"), last(tmp_path / "old")
    capsys.readouterr()
    changed = [*CODED, *SCORED, "--training.learning_rate=0.001", "--training.betas=[0.5,0.9]", "--training.steps=3"]
    given = resumed(tmp_path / "old" if of == "run" else source)
    assert run(tmp_path / "new", *changed, "--training.keep_checkpoints=9", given) == 0
    said = capsys.readouterr()
    assert "training.learning_rate: 0.0002 -> 0.001" in said.err
    assert digests(tmp_path / "old") == before

    start, *_, end = list_checkpoints(tmp_path / "new" / "checkpoints")
    assert (start.name, end.name) == ("step-00000000", "step-00000003")
    old, new = read_checkpoint(source)[0], read_checkpoint(start)[0]
    assert old.keys() == new.keys()
    assert all(torch.equal(old[key], new[key]) for key in old)  # moments of the optimisers too
    assert not states_equal(start, end)
    # The optimisers' settings are the new recipe's.
    settings = read_checkpoint(end)[1]["optimizers"]["generator"][0]
    assert (settings["lr"], settings["betas"]) == (0.001, [0.5, 0.9])

    note = f"began with the weights of old/{source.name} (step 4)"
    assert note in said.out
    assert config(tmp_path / "new")["history"] == [note]
    rows = read_lines(tmp_path / "new" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 3]
    assert all(row["provenance"]["history"] == [note] for row in rows)


def test_new_run_that_was_killed_at_once_still_begins_with_the_weights(tmp_path):
    assert run(tmp_path / "old", *CODED) == 0
    changed = [*CODED, "--training.learning_rate=0.001", "--training.keep_checkpoints=9"]
    for name in ("whole", "parts"):
        assert run(tmp_path / name, *changed, resumed(tmp_path / "old")) == 0
    for path in list_checkpoints(tmp_path / "parts" / "checkpoints")[1:]:
        shutil.rmtree(path)
    assert run(tmp_path / "parts", *changed) == 0
    assert states_equal(last(tmp_path / "whole"), last(tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert config(tmp_path / "parts")["history"] == config(tmp_path / "whole")["history"] != []


def test_other_circumstances_alone_begin_no_run(tmp_path, capsys, monkeypatch):
    assert run(tmp_path / "old") == 0
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    error = refusal(capsys, run, tmp_path / "new", resumed(tmp_path / "old"))
    assert "precision: no -> bf16" in error
    assert "new run begins" not in error
    assert not (tmp_path / "new" / "checkpoints").exists()


def test_optimiser_that_does_not_fit_begins_anew(tmp_path, capsys):
    assert classifier.run(tmp_path / "old") == 0
    adamw = ["--training.optimizer=adamw", "--training.learning_rate=0.001", resumed(tmp_path / "old")]
    assert classifier.run(tmp_path / "new", *adamw) == 0
    assert "(step 4), without the optimiser of the network" in capsys.readouterr().out
    decay = ["--training.weight_decay=0.25", "--data.limit=24", resumed(tmp_path / "old")]
    assert classifier.run(tmp_path / "decay", *decay) == 0
    assert read_checkpoint(last(tmp_path / "decay"))[1]["optimizers"]["network"][0]["weight_decay"] == 0.25


def test_averages_that_the_other_run_lacks_begin_anew(tmp_path, capsys):
    assert run(tmp_path / "old") == 0
    assert run(tmp_path / "new", "--critic.lecam.weight=0.1", resumed(tmp_path / "old")) == 0
    assert "(step 4), without the lecam" in capsys.readouterr().out


def test_what_cannot_begin_a_run_is_refused_and_told_what_to_do(tmp_path, capsys):
    assert run(tmp_path / "old", *CODED) == 0
    assert run(tmp_path / "held", *CODED) == 0
    assert classifier.run(tmp_path / "classifier") == 0
    before = digests(tmp_path)
    faster, source = "--training.learning_rate=0.001", last(tmp_path / "old")
    for given in (tmp_path / "old", source):
        error = refusal(capsys, run, tmp_path / "old", *CODED, faster, resumed(given))
        assert "another --output_dir" in error
    error = refusal(capsys, run, tmp_path / "held", *CODED, faster, resumed(source))
    assert "holds a run" in error
    assert "--resume=auto" in error
    error = refusal(capsys, run, tmp_path / "new", *CODED, "--model.width=8", resumed(source))
    assert "generator is another network" in error
    assert str(source) in error
    error = refusal(capsys, run, tmp_path / "new", *CODED, resumed(tmp_path / "classifier"))
    assert "holds network, and no generator" in error
    assert not (tmp_path / "new" / "checkpoints").exists()
    held = {path: digest for path, digest in digests(tmp_path).items() if path in before}
    assert held == before
