"""What is told of the runs: means, standard errors, plots, the best, and every run that is missing."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from cs_gan.study.outcome import Outcome
from cs_gan.study.pairs import Difference
from cs_gan.study.plan import Point, plan
from cs_gan.study.plots import against_strength
from cs_gan.study.results import Cell, Entry, Results, average, best_of, read_results
from cs_gan.study.spec import Case, Study, read_study
from cs_gan.study.tables import markdown


def entry(values, missing=0):
    outcomes = {seed: Outcome("done", scores={"a": value}) for seed, value in enumerate(values)}
    outcomes |= {seed + 100: Outcome("failed", "why") for seed in range(missing)}
    return Entry(Point("", {}, {}, "point"), outcomes)


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_left_out_and_said(lost):
    values = entry([1.0, lost, 3.0])
    assert values.values("a") == {0: 1.0, 2: 3.0}
    assert str(average([values], "a")) == "2.0 ± 1.0"
    assert values.problems == [f"seed 1 left out of a, which is {lost}"]
    plain = entry([0.0, 0.0, 0.0])
    difference = Difference({seed: value - plain.values("a")[seed] for seed, value in values.values("a").items()})
    assert difference.p == 0.5


def test_a_point_with_a_score_that_is_not_finite_is_not_chosen_as_best(tmp_path):
    cases = [Case("one", {}, {"mu": [1, 2]})]
    diverged, whole = (
        Entry(Point("one", {"mu": mu}, {"mu": mu}, f"mu={mu}"), entry(values).outcomes)
        for mu, values in ((1, [9.0, math.nan]), (2, [3.0, 5.0]))
    )
    study = Study(tmp_path, tmp_path, None, [0, 1], cases, best_of=True)
    results = Results(study, [diverged, whole], ["a"], "higher", [])
    [best] = best_of(results)
    assert (best.entry, best.tried, best.left_out) == (whole, 1, 1)
    assert not average([diverged], "a").complete
    assert "| 1 | 9 | 1 of 2 (1 not finite) |" in markdown(results)


def test_the_settings_of_each_case_are_told(tmp_path):
    cases = [Case("plain", {}, {}), Case("coded", {"blocks": [""], "mu": 0.5}, {})]
    study = Study(tmp_path, tmp_path, None, [0], cases, fixed={"epochs": 3})
    entries = [Entry(Point(case.name, {}, case.constant, case.name), {}) for case in cases]
    page = markdown(Results(study, entries, ["a"], "higher", []))
    assert "In all runs: epochs = 3." in page
    assert '## Settings of each case\n\n- coded: blocks = [""], mu = 0.5\n' in page


@pytest.mark.parametrize(
    ("settings", "fingerprints", "said"),
    [({}, "aab", True), ({}, "aaa", False), ({}, ("a", "a", ""), False), ({"data.image_size": 32}, "aab", True)],
)
def test_images_that_were_changed_between_runs_are_said(tmp_path, settings, fingerprints, said):
    cases = [Case("plain", settings, {}), Case("other data", {"data.image_size": 64}, {})]
    of_case = (fingerprints, "ccc")
    entries = [
        Entry(
            Point(case.name, {}, case.constant, case.name),
            {
                seed: Outcome("done", scores={"a": 1.0}, scored_on="b, test", images=each)
                for seed, each in enumerate(of)
            },
        )
        for case, of in zip(cases, of_case, strict=True)
    ]
    page = markdown(Results(Study(tmp_path, tmp_path, None, [0, 1, 2], cases), entries, ["a"], "higher", []))
    assert ("b, test had the fingerprint a in 2 runs and the fingerprint b in 1 runs" in page) == said
    assert ("The images were changed between runs" in page) == said


def test_mean_and_standard_error_against_numpy(bench):
    values = np.random.default_rng(0).normal(size=7)
    cell = average([entry(values)], "a")
    assert cell.mean == pytest.approx(values.mean())
    assert cell.error == pytest.approx(np.sqrt(values.var(ddof=1) / 7))
    table = np.random.default_rng(1).normal(size=(3, 5))  # points x seeds: what a cell of a heat map averages
    cell = average([entry(line) for line in table], "a")
    assert cell.mean == pytest.approx(table.mean())
    assert cell.error == pytest.approx(table.mean(0).std(ddof=1) / np.sqrt(5))
    assert cell.complete


def test_one_value_has_no_error_and_none_has_no_mean():
    assert average([entry([3.0])], "a") == Cell(3.0, None, True)
    assert average([entry([], missing=2)], "a") == Cell(None, None, False)
    assert not average([entry([1.0, 2.0], missing=1)], "a").complete


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (Cell(95.1234, 0.3123, True), "95.12 ± 0.31"),
        (Cell(1919.4, 25.2, True), "1919 ± 25"),
        (Cell(5.0, 0.0, True), "5.00 ± 0.00"),
        (Cell(95.1234, None, True), "95.12"),
        (Cell(None, None, False), "—"),
    ],
)
def test_a_mean_has_as_many_decimals_as_its_error_allows(cell, shown):
    assert str(cell) == shown


def test_table_has_a_row_for_every_point(bench):
    # The stub's score is mu + 10 * seed.
    assert bench.study(grid={"mu": [0.1, 0.3], "spline": ["linear", "natural"]}, seeds=[0, 1, 4]) == 0
    found = [(line["mu"], line["spline"], float(line["accuracy (%)"]), line["n"]) for line in bench.table]
    mean = 10 * 5 / 3
    expected = [("0.1", s, pytest.approx(mean + 0.1), "3") for s in ("linear", "natural")]
    assert found == expected + [("0.3", s, pytest.approx(mean + 0.3), "3") for s in ("linear", "natural")]
    error = np.std([0, 10, 40], ddof=1) / np.sqrt(3)
    assert [float(line["standard error"]) for line in bench.table] == pytest.approx([error] * 4)
    assert "| 0.1 | linear | 17 ± 12 | 3 | 0 |" in bench.markdown
    assert "Scored on stubs." in bench.markdown
    found = json.loads((bench.folder / "results.json").read_text())
    assert found["points"][0]["runs"][2] | {"seconds": 0} == {
        "seed": 4,
        "folder": "runs/mu=0.1,spline=linear-seed4",
        "status": "done",
        "reason": "",
        "step": None,
        "steps": None,
        "seconds": 0,
        "scores": {
            "accuracy (%)": 40.1,
            "loss": -0.1,
            "best accuracy (%)": pytest.approx(40.2),
            "best loss": -0.1,
        },
    }


def test_a_failure_is_shown_with_its_last_line_and_stops_nothing(bench):
    assert bench.study(grid={"mu": [0.1, 0.3], "fail": [1, "no"]}) == 2
    lines = {(line["mu"], line["fail"]): line for line in bench.table}
    bad, good = lines["0.1", "1"], lines["0.1", "no"]
    assert (bad["n"], bad["failed"], bad["standard error"]) == ("1", "1", "")
    assert bad["problems"] == "seed 1 failed: RuntimeError: the stub fails"
    assert (good["n"], good["failed"], good["problems"]) == ("2", "0", "")
    assert "1 of 2 (1 failed)" in bench.markdown
    assert "## Missing: 2 failed, 0 not run" in bench.markdown
    assert "- mu=0.1,fail=1: seed 1 failed: RuntimeError: the stub fails" in bench.markdown


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"fail": ["kill"]}, "without a word (killed by SIGKILL)"),
        ({"nu": [0.1]}, "error: unknown configuration key 'nu'."),
    ],
)
def test_a_run_that_was_killed_or_refused_is_told_in_its_own_words(bench, grid, said):
    assert bench.study(grid=grid, seeds=1) == 2
    assert bench.table[0]["problems"] == f"seed 0 failed: {said}"
    assert bench.table[0]["score"] == ""


def test_first_runs_that_fail_alike_stop_the_study(bench, capsys):
    """A missing folder of images would otherwise fail every run, one by one."""
    assert bench.study("--jobs", "1", grid={"nu": [0.1]}, seeds=6) == 2
    said = capsys.readouterr().err
    assert "error: unknown configuration key 'nu'.\nerror: the first 3 runs all failed with the error above" in said
    assert "3 more were not run" in said
    (line,) = bench.table
    assert (line["failed"], line["not run"]) == ("3", "3")
    # Another error, or a run that is done, stops nothing.
    assert bench.study("--jobs", "1", cases={"good": {"mu": 0.1}, "bad": {"nu": 0.1}}, seeds=4) == 2
    assert [line["failed"] for line in bench.table] == ["0", "4"]


def test_runs_that_failed_come_last_so_that_a_repeat_goes_on(bench):
    cases = {name: {"nu": value} for name, value in zip("abc", (1, 2, 3), strict=True)} | {"good": {"mu": 0.1}}
    assert bench.study("--jobs", "1", cases=cases, seeds=1) == 2
    assert [line["failed"] for line in bench.table] == ["1", "1", "1", "0"]
    assert bench.study("--jobs", "1") == 2
    assert [line["n"] for line in bench.table] == ["0", "0", "0", "1"]


def test_a_score_that_no_run_has_is_told_with_the_nearest(bench):
    assert bench.study(grid={"mu": [0.1]}, score="acuracy (%)") == 2
    assert "'acuracy (%)' is not among its scores. Did you mean 'accuracy (%)'" in bench.table[0]["problems"]
    # The runs stand: with the right name there is nothing to run.
    assert bench.study(grid={"mu": [0.1]}, score=["loss", "accuracy (%)"]) == 0
    assert set(bench.starts.values()) == {1}
    assert (bench.table[0]["loss"], bench.table[0]["accuracy (%)"]) == ("-0.1", "5.1")
    assert "| mu | loss | accuracy (%) | n | seconds |" in bench.markdown


def test_the_best_of_every_case_is_told_with_how_it_was_chosen(bench):
    cases = {"plain": {}, "mixup": {"mu": [0.2, 0.6, 0.4]}, "coded": {"mu": [0.1, 0.9], "fail": ["no", 1]}}
    assert bench.study(cases=cases, best_of=True) == 2
    told = bench.markdown.split("## The best of every case, chosen by this very score")[1]
    assert "the highest mean of accuracy (%) on stubs among the values tried" in told
    assert "| mixup | 0.6 |  | 5.6 ± 5.0 | 2 | 0 | 3 |" in told
    assert "| coded | 0.9 | no | 5.9 ± 5.0 | 2 | 0 | 2 (2 left out) |" in told
    assert "  mixup:\n    mu: 0.6\n" in told
    found = json.loads((bench.folder / "results.json").read_text())["best"]
    assert [(best["group"], best["tried"]) for best in found] == [("plain", 1), ("mixup", 3), ("coded", 2)]


def test_the_best_of_a_group_by_a_score_to_be_lowered(bench):
    content = {"grid": {"mu": [0.2, 0.6], "spline": ["linear", "natural"]}, "score": "loss", "group": "spline"}
    assert bench.study(**content, best_of=True) == 0
    assert "it is unknown whether this score should be high or low" in bench.markdown
    assert bench.study(**content, best_of=True, better="lower") == 0
    assert "| 0.6 | linear | -0.60 ± 0.00 | 2 | 0 | 2 |" in bench.markdown


def colours(path):
    with Image.open(path) as picture:
        return len({colour for _, colour in picture.convert("RGB").getcolors(1 << 24)})


def test_a_heat_map_is_drawn_for_every_pair_of_keys(bench):
    assert (
        bench.study(grid={"mu": [0.1, 0.3, 0.9], "spline": ["linear", "natural"], "alpha": [0, 1]}, seeds=1, plots=None)
        == 0
    )
    plots = {path.name: path for path in (bench.folder / "plots").iterdir()}
    assert plots.keys() == {"heatmap-mu-spline.png", "heatmap-mu-alpha.png", "heatmap-spline-alpha.png"}
    with Image.open(plots["heatmap-mu-spline.png"]) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for shade in ((68, 1, 84), (253, 231, 37)):  # the ends of viridis, each a third of the map
        assert (np.abs(pixels - np.array(shade)).max(1) < 3).mean() > 0.05
    assert "![heatmap-mu-spline](plots/heatmap-mu-spline.png)" in bench.markdown


def test_one_key_is_a_line_and_plots_of_another_shape_go(bench):
    assert bench.study(grid={"mu": [0.1, 0.3], "alpha": [0, 1]}, seeds=1, plots=None) == 0
    assert bench.study(grid={"mu": [0.1, 0.3, 9]}, plots=None) == 0
    (path,) = (bench.folder / "plots").iterdir()
    assert path.name == "line-mu.png"
    assert colours(path) > 20


def test_cases_are_plotted_apart_and_side_by_side(bench):
    cases = {"ERM": {}, "mixup": {"alpha": ["a$b", "c"]}, "coded": {"mu": [0.1, 0.3], "alpha": [1, 2]}}
    assert bench.study(cases=cases, seeds=1, plots=None) == 0
    names = {path.name for path in (bench.folder / "plots").iterdir()}
    assert names == {"cases.png", "mixup-1-line-alpha.png", "coded-2-heatmap-mu-alpha.png"}


def test_plots_can_be_chosen_and_gaps_do_not_stop_them(bench):
    grid = {"mu": [0.1, 0.3], "fail": ["yes", "no"], "alpha": [1, 2]}
    assert bench.study(grid=grid, seeds=1, plots={"heatmaps": [["fail", "mu"]], "lines": ["mu"]}) == 2
    names = {path.name for path in (bench.folder / "plots").iterdir()}
    assert names == {"heatmap-fail-mu.png", "line-mu.png"}


def test_cases_that_vary_the_same_number_share_one_picture(bench):
    cases = {"plain": {"mu": 0.5}, "one": {"mu": [0.25, 1]}, "other": {"mu": [0.125, 2]}}
    assert bench.study(cases=cases, baseline="plain", better="lower", plots=None) == 0
    assert (bench.folder / "plots" / "strength.png").exists()
    lines = bench.markdown.partition("## By strength\n")[2].splitlines()
    assert lines[3] == "| case | mu 0.125 | mu 0.25 | mu 1 | mu 2 |"
    assert lines[5] == "| one |  | -0.25 ± 0.00 (2) | +0.50 ± 0.00 (2) |  |"
    assert lines[6] == "| other | -0.38 ± 0.00 (2) |  |  | +1.50 ± 0.00 (2) |"


def test_a_baseline_with_a_point_per_strength_is_compared_point_by_point(bench):
    cases = {"plain": {"spline": "linear"}, "other": {"spline": "natural"}}
    assert bench.study(grid={"mu": [0.25, 1]}, cases=cases, baseline="plain", better="lower") == 0
    lines = bench.markdown.partition("## By strength\n")[2].splitlines()
    assert lines[3] == "| case | mu 0.25 | mu 1 |"
    assert lines[5] == "| other | 0.00 ± 0.00 (2) | 0.00 ± 0.00 (2) |"
    assert "minus that of plain, seed by seed" in lines[1]
    study = read_study(bench.file)
    [axes] = against_strength(read_results(study, plan(study, bench.folder))).axes
    assert axes.get_legend_handles_labels()[1] == ["plain", "other"]  # no band of plain's mean over all strengths


def test_cases_that_vary_no_number_above_0_have_no_common_axis(bench):
    cases = {"one": {"mu": [0.1, 1]}, "other": {"mu": [0, 1]}}
    assert bench.study(cases=cases, better="lower", plots=None) == 0
    assert not (bench.folder / "plots" / "strength.png").exists()
