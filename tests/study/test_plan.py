"""Points: their product, and folders that no two of them share."""

import itertools
import subprocess
import sys

import pytest

from cs_gan.study import plan, read_study

from .conftest import ROOT


def planned(bench, **content):
    bench.write(**content)
    return plan(read_study(bench.file), bench.folder)


def settings(run):
    """What the run is told, from its command."""
    return dict(word.removeprefix("--").split("=", 1) for word in run.command[2:])


def test_a_grid_is_the_product_over_points_and_seeds(bench):
    runs = planned(bench, grid={"mu": [0.1, 0.3], "spline": ["linear", "natural", "quintic"]}, seeds=[3, 5])
    found = [(settings(run)["mu"], settings(run)["spline"], settings(run)["seed"]) for run in runs]
    expected = itertools.product(("3", "5"), ("0.1", "0.3"), ("linear", "natural", "quintic"))
    assert found == [(mu, spline, seed) for seed, mu, spline in expected]
    assert runs[0].name == "mu=0.1,spline=linear-seed3"
    assert settings(runs[0])["output_dir"] == str(bench.folder / "runs" / runs[0].name)


def test_cases_are_multiplied_out_within_and_with_the_grid(bench):
    cases = {"ERM": {}, "mixup": {"alpha": [0.2, 1.0], "fail": "no"}, "coded": {"blocks": [[""]]}}
    runs = planned(bench, cases=cases, grid={"mu": [0.1, 0.3]}, seeds=1, fixed={"steps": 7})
    assert [run.name for run in runs] == [
        "erm,mu=0.1-seed0",
        "erm,mu=0.3-seed0",
        *(f"mixup,alpha={alpha},mu={mu}-seed0" for alpha in ("0.2", "1.0") for mu in ("0.1", "0.3")),
        "coded,mu=0.1-seed0",
        "coded,mu=0.3-seed0",
    ]
    assert {settings(run)["steps"] for run in runs} == {"7"}
    assert "alpha" not in settings(runs[0])
    assert settings(runs[2])["fail"] == "no"
    assert settings(runs[-1])["blocks"] == '[""]'


def test_keys_are_shortened_to_what_tells_them_apart(bench):
    (run,) = planned(bench, grid={"training.batch_size": [8], "metrics.batch_size": [9], "coded.mu": [1]}, seeds=1)
    assert run.name == "training.batch_size=8,metrics.batch_size=9,mu=1-seed0"


def test_another_case_does_not_rename_the_points_of_a_case(bench):
    cases = {"coded": {"coded.weight": [1, 2]}}
    before = [run.name for run in planned(bench, cases=cases, seeds=1)]
    after = [run.name for run in planned(bench, cases=cases | {"gan": {"gan.weight": [1]}}, seeds=1)]
    assert before == ["coded,weight=1-seed0", "coded,weight=2-seed0"]
    assert after == [*before, "gan,weight=1-seed0"]


def test_a_time_limit_of_the_recipe_does_not_end_the_runs_of_a_study(bench, tmp_path):
    (tmp_path / "recipe.yaml").write_text("training: {max_minutes: 5}")
    (run,) = planned(bench, grid={"mu": [1]}, seeds=1, config=str(tmp_path / "recipe.yaml"))
    assert settings(run)["training.max_minutes"] == "null"


def test_odd_and_long_values_never_share_a_folder_and_are_safe(bench):
    odd = ["a/b", "a_b", "a b", "A_B", "a,b", "a=b", "..", "../..", "-x", "$HOME", "ü", "é", "a\nb", "a_b-seed1"]
    odd += ["x" * 300, "x" * 299 + "y", [1, 2], [12], "null", None, True, "1~2", 0.1, 0.10000001]
    runs = planned(bench, cases={"a b": {}, "a_b": {}, "a,v=1": {}}, grid={"v": odd[:18] + odd[20:], "w": [1, "a,w=1"]})
    names = [run.name for run in runs]
    assert len({name.casefold() for name in names}) == len(names) == 3 * 22 * 2 * 2
    for run in runs:
        assert len(run.name) < 200
        assert run.folder.parent == bench.folder / "runs"
        assert set(run.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._+-=,~")
    assert names == [run.name for run in plan(read_study(bench.file), bench.folder)]  # another time as well


def test_values_that_the_command_line_cannot_tell_apart_are_refused(bench, capsys):
    assert bench.study(grid={"v": ["null", None]}) == 2
    assert "two points have the same name" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["nobody", "recipe", "fixed"])
def test_trackers_are_none_unless_somebody_says(bench, tmp_path, where):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("tracking: {trackers: wandb}" if where == "recipe" else "seed: 4")
    fixed = {"tracking.trackers": "mlflow"} if where == "fixed" else {}
    run = planned(bench, config=str(recipe), grid={"mu": [1]}, fixed=fixed)[0]
    told = {"nobody": "none", "recipe": None, "fixed": "mlflow"}[where]
    assert settings(run).get("tracking.trackers") == told
    assert settings(run)["config"] == str(recipe)


def test_a_study_and_its_jobs_start_without_torch():
    script = """
import sys
import cs_gan.study.__main__, cs_gan.study.process, cs_gan.study.on_ray, cs_gan.study.on_slurm
assert not {"torch", "scipy"} & set(sys.modules)
from cs_gan import *
import cs_gan
assert SplineCode is cs_gan.SplineCode is sys.modules["cs_gan.core"].SplineCode  # it comes when it is used
assert "torch" in sys.modules and not {"torchvision", "sklearn", "jsonargparse"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_dry_run_lists_commands_and_runs_nothing(bench, capsys):
    assert bench.study("--dry-run", grid={"mu": [0.1, 0.3]}) == 0
    out = capsys.readouterr().out
    assert "mu=0.3-seed1 (to run)" in out
    assert "--mu=0.3 --seed=1" in out
    assert "2 points x 2 seeds = 4 runs, 0 done" in out
    assert not bench.folder.exists()
