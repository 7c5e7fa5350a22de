"""The page of a study, from its results.json and run folders."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from cs_gan.errors import DataError
from cs_gan.report import save_study
from cs_gan.report.strips import lay_out

from .conftest import FD, evaluation, frames, text_of

PLAIN, CODED = {0: 120.0, 1: 110.0, 2: 130.0}, {0: 117.0, 1: 109.0}


def run(seed, case, value=None):
    """As results.json has it."""
    found = {"seed": seed, "folder": f"runs/{case}-seed{seed}", "seconds": 60.0, "step": None, "steps": None}
    if value is None:
        return found | {"status": "not run", "reason": "stopped", "step": 300, "steps": 1000, "scores": {}}
    return found | {"status": "done", "reason": "", "scores": {FD: value, f"best {FD}": value - 1}}


def point(case, values, seeds=3):
    mean = float(np.mean(list(values.values())))
    runs = [run(seed, case, values.get(seed)) for seed in range(seeds)]
    return {"case": case, "name": f"{case}~1", "settings": {}, "mean": mean, "runs": runs}


def difference(values):
    found = list(values.values())
    error = float(np.std(found, ddof=1) / np.sqrt(len(found)))
    return {"mean": float(np.mean(found)), "standard_error": error, "n": len(found), "sign_test_p": 0.5} | {
        "by_seed": {str(seed): value for seed, value in values.items()}
    }


@pytest.fixture
def study(tmp_path):
    """Writes results.json and gives the page."""

    def make(*points, baseline="plain"):
        told = {"study": "configs/studies/mine.yaml", "score": FD, "scores": [FD, f"best {FD}"], "better": "lower"}
        told |= {"scored_on": ["cifar10, test"], "baseline": baseline, "points": points, "best": []}
        (tmp_path / "results.json").write_text(json.dumps(told))
        save_study(tmp_path / "study.html", tmp_path)
        return (tmp_path / "study.html").read_text()

    return make


def two_points():
    coded = point("coded", CODED)
    coded["differences"] = {FD: difference({0: -3.0, 1: -1.0})}
    return point("plain", PLAIN), coded


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_left_out_of_the_page(study, lost):
    plain = point("plain", PLAIN)
    plain["runs"][2]["scores"][FD] = lost
    page = study(plain)
    assert "plain 2 115.0 ± 5.0" in text_of(page)
    assert "nan" not in page


def test_the_curves_of_a_run_with_other_settings_are_not_shown(study, make_run):
    make_run("runs/plain-seed0", metrics=[evaluation(9, {FD: 120.0}), evaluation(10, {FD: 110.0})])
    plain = point("plain", PLAIN)
    assert "Over the steps" in text_of(study(plain))
    plain["runs"] = [run(seed, "plain") | {"step": None} for seed in range(3)]
    assert "Over the steps" not in text_of(study(plain))


def test_the_page_tells_scores_differences_and_what_is_missing(study):
    text = text_of(study(*two_points()))
    assert "2 points, 3 seeds: 5 of 6 runs done, 1 not finished. Scored on cifar10, test." in text
    assert "plain 3 120.0 ± 5.8" in text  # 10 / sqrt(3)
    assert "coded 2 113.0 ± 4.0" in text  # 8 / sqrt(2) / sqrt(2)
    assert "coded 2 -2.0 ± 1.0 0.5" in text
    assert "a difference below zero is better" in text
    assert "coded 2 not run 300 of 1,000 stopped" in text


def test_without_a_baseline_nothing_is_compared(study):
    assert "seed by seed" not in text_of(study(point("plain", PLAIN), point("coded", CODED), baseline=""))


def test_curves_and_pictures_of_runs_are_side_by_side_seed_by_seed(study, make_run):
    for case, values in (("plain", PLAIN), ("coded", CODED)):
        for seed, value in values.items():
            metrics = [evaluation(0, {FD: 300.0}), evaluation(1000, {FD: value, "other": 1.0})]
            make_run(f"runs/{case}-seed{seed}", recipe={"seed": seed}, metrics=metrics, grids=(0, 1000))
    page = study(*two_points())
    assert len(frames(page)) == 5
    sections = re.split(r"<h3>Seed (\d)</h3>", page)
    assert sections[1::2] == ["0", "1", "2"]
    assert [len(frames(section)) for section in sections[2::2]] == [2, 2, 1]
    assert "plain, step 1,000" in sections[2]
    assert page.count('<path class="whisker') == 2  # one panel, since the study isn't about the other score
    assert "must not be compared" not in page


def test_scores_that_do_not_compare_are_told(study, make_run):
    for case, samples in (("plain", 2000), ("coded", 500)):
        final = evaluation(1000, {FD: 120.0}, num_samples=samples)
        make_run(f"runs/{case}-seed0", metrics=[final], scores={"final": final, "best": final})
    assert "These scores must not be compared." in study(*two_points())


def test_of_many_points_the_baseline_and_the_best_have_colours(study, make_run):
    points = [point("plain", {0: 999.0}, 1), *(point(f"c{number}", {0: 100.0 + number}, 1) for number in range(30))]
    for one in points:
        make_run(one["runs"][0]["folder"], metrics=[evaluation(1000, {FD: one["mean"]})], grids=(1000,))
    page = study(*points)
    assert "These are 7 of 31 points: the baseline's and the best ones." in text_of(page).replace("&#39;", "'")
    assert len(frames(page)) == 7
    legend = re.search(r'<ul class="legend">.*?</ul>', page, re.DOTALL)[0]
    assert text_of(legend) == "plain c0 c1 c2 c3 c4 c5"


def test_names_are_escaped(study):
    assert "<script>alert" not in study(point("<script>alert(1)</script>", PLAIN), baseline="")


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(DataError, match="Give the folder of a study"):
        save_study(tmp_path / "study.html", tmp_path)


def test_strips_place_values_on_one_linear_axis():
    rng = np.random.default_rng(0)
    values = [dict(enumerate(rng.normal(5, 2, size=4))) for _ in range(3)]
    strips = lay_out("a", [("x", i, row) for i, row in enumerate(values)])
    flat = np.array([value for row in values for value in row.values()])
    places = np.array([place for row in strips.rows for place, _ in row.dots])
    slope, start = np.polyfit(flat, places, 1)
    np.testing.assert_allclose(slope * flat + start, places, atol=1e-9)
    for row, found in zip(strips.rows, values, strict=True):
        mean, error = np.mean(list(found.values())), np.std(list(found.values()), ddof=1) / 2
        assert row.middle == pytest.approx(slope * mean + start)
        assert row.bar == pytest.approx((slope * (mean - error) + start, 2 * slope * error))
    assert strips.zero is None
    signed = lay_out("a", [("x", 0, {0: 1.0, 1: 3.0})], signed=True)
    assert (signed.zero, signed.rows[0].text) == (8.0, "+2.0 ± 1.0")
    assert lay_out("a", [("x", 0, {})]) is None
