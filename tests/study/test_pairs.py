"""Runs against the baseline, seed by seed."""

import json

import numpy as np
import pytest

from cs_gan.study.outcome import Outcome
from cs_gan.study.pairs import Difference, compared
from cs_gan.study.plan import Point
from cs_gan.study.results import Entry, Results
from cs_gan.study.spec import Case, Study


def results(tmp_path, **cases):
    """Results with the given seed -> score of each case; the first is the baseline."""
    entries = [
        Entry(Point(name, {}, {}, name), {seed: Outcome("done", scores={"a": value}) for seed, value in scores.items()})
        for name, scores in cases.items()
    ]
    listed = [Case(name, {}, {}) for name in cases]
    study = Study(tmp_path, tmp_path, None, [0, 1, 2], listed, baseline=next(iter(cases)))
    return Results(study, entries, ["a"], "lower", [])


def test_only_seeds_that_both_have_are_paired_against_numpy(tmp_path):
    rng = np.random.default_rng(0)
    plain, coded = (dict(zip(seeds, rng.normal(size=5), strict=True)) for seeds in (range(5), range(2, 7)))
    [(row, found)] = compared(results(tmp_path, plain=plain, coded=coded))
    expected = np.array([coded[seed] - plain[seed] for seed in (2, 3, 4)])
    assert row.point.case == "coded"
    assert list(found["a"].by_seed) == [2, 3, 4]
    assert found["a"].cell.mean == pytest.approx(expected.mean())
    assert found["a"].cell.error == pytest.approx(expected.std(ddof=1) / np.sqrt(3))


@pytest.mark.parametrize(
    ("values", "p"),
    [
        ([-1.0, -2.0, -0.5], 2 / 2**3),  # all of one sign: 2 / 2^n
        ([-1.0, -2.0, -0.5, 0.0], 2 / 2**3),  # a tie is left out
        ([-1.0] * 9 + [1.0], 2 * (1 + 10) / 2**10),  # one of ten: both tails of 0 and 1 of 10
        ([1.0, -1.0], 1.0),
        ([0.0, 0.0], None),
        ([], None),
    ],
)
def test_sign_test_in_closed_form(values, p):
    found = Difference(dict(enumerate(values))).p
    assert found == (None if p is None else pytest.approx(p))


def test_the_table_tells_paired_differences_of_last_and_best_scores(bench):
    cases = {"plain": {"mu": 0.5}, "coded": {"mu": 0.25}, "worse": {"mu": 1.0, "fail": 1}}
    scores = ["accuracy (%)", "best accuracy (%)"]
    assert bench.study(cases=cases, baseline="plain", seeds=3, score=scores) == 2
    assert "## Paired differences to plain" in bench.markdown
    assert "with 3 seeds it can't be below 0.25" in bench.markdown
    assert "| coded | -0.25 ± 0.00 | 0.25 | 3 | -0.50 ± 0.00 | 0.25 | 3 |" in bench.markdown
    assert "| worse | +0.50 ± 0.00 | 0.5 | 2 | +1.00 ± 0.00 | 0.5 | 2 |" in bench.markdown
    plain, coded, _ = bench.table
    assert plain["paired difference of accuracy (%)"] == plain["pairs of accuracy (%)"] == ""
    assert float(coded["paired difference of best accuracy (%)"]) == pytest.approx(-0.5)
    assert float(coded["best accuracy (%)"]) == pytest.approx(10.5)
    assert (coded["sign test p of accuracy (%)"], coded["pairs of accuracy (%)"]) == ("0.25", "3")
    assert float(coded["seconds"]) < 10
    found = json.loads((bench.folder / "results.json").read_text())
    assert found["baseline"] == "plain"
    assert "differences" not in found["points"][0]
    told = found["points"][1]["differences"]["accuracy (%)"]
    assert told["by_seed"] == {str(seed): pytest.approx(-0.25) for seed in range(3)}
    assert (told["n"], told["sign_test_p"]) == (3, 0.25)


def test_the_command_names_another_baseline(bench, capsys):
    cases = {"plain": {"mu": 0.5}, "coded": {"mu": 0.25}}
    assert bench.study(cases=cases, baseline="plain", seeds=1) == 0
    assert bench.study("--summarise", "--baseline=coded", cases=cases, baseline="plain", seeds=1) == 0
    assert "## Paired differences to coded" in bench.markdown
    assert "| plain | +0.25 |" in bench.markdown
    capsys.readouterr()
    assert bench.study("--summarise", "--baseline=code", cases=cases, baseline="plain", seeds=1) == 2
    assert "baseline = 'code' must be the name of a case. Did you mean coded?" in capsys.readouterr().err


def test_a_point_is_compared_with_the_baseline_at_the_same_place_of_the_grid(bench):
    cases = {"plain": {"alpha": [7]}, "coded": {"spline": ["linear", "natural"]}}
    assert bench.study(cases=cases, grid={"mu": [0.1, 0.5]}, baseline="plain", seeds=1) == 0
    lines = [line for line in bench.table if line["case"] == "coded"]
    assert [float(line["paired difference of accuracy (%)"]) for line in lines] == [0.0] * 4  # 0.4 if mu were mixed up
