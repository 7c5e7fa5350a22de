"""Runs side by side: seeds as one, and scores that don't compare."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cs_gan.report import save_comparison
from cs_gan.report.chart import Panel, Series
from cs_gan.report.groups import group_runs
from cs_gan.report.page import with_spread
from cs_gan.report.panels import score_panels
from cs_gan.report.run import read_run
from cs_gan.report.svg import layout

from .conftest import FD, IS, evaluation, frames, text_of


@pytest.fixture
def compare(tmp_path):
    """The page of run folders, as text."""

    def make(*folders):
        save_comparison(tmp_path / "comparison.html", folders)
        return (tmp_path / "comparison.html").read_text()

    return make


CODED = {"coded": {"critic": {"blocks": ["blocks.1"]}}}
VALUES = np.array([[300.0, 120.0, 117.0], [304.0, 110.0, 119.5], [290.0, 131.0, 121.0]])  # (seeds, evaluations)


@pytest.fixture
def seeds(make_run):
    """Three runs that differ in the seed."""
    return [
        make_run(
            f"small_seed{seed}",
            recipe={"seed": seed},
            metrics=[evaluation(step, {FD: fd}, seed=seed) for step, fd in zip((0, 500, 1000), row, strict=True)],
        )
        for seed, row in enumerate(VALUES)
    ]


def test_seeds_are_a_mean_and_a_band(seeds):
    [group] = group_runs([read_run(folder) for folder in seeds])
    assert group.label == "small"
    assert group.legend == "small: mean of n = 3 seeds, from lowest to highest"
    [panel] = score_panels({group.label: [run.evaluations for run in group.runs]})
    [series] = panel.series
    np.testing.assert_array_equal(series.steps, [0, 500, 1000])
    np.testing.assert_allclose(series.mean, VALUES.mean(0))
    np.testing.assert_array_equal(series.band, [VALUES.min(0), VALUES.max(0)])


def test_the_page_draws_the_band_and_tells_mean_and_standard_error(seeds, compare):
    page = compare(*seeds)
    assert page.count('<polygon class="band c0"') == 1
    assert page.count("<polyline") == 1
    text, last, lowest = text_of(page), VALUES[:, -1], VALUES.min(1)
    assert f"small 3 step 1,000 {with_spread(last.mean(), last.std(ddof=1) / np.sqrt(3))}" in text
    assert f"small 3 steps 500 to 1,000 {with_spread(lowest.mean(), lowest.std(ddof=1) / np.sqrt(3))}" in text
    assert "mean of n = 3 seeds, from lowest to highest" in text
    assert "must not be compared" not in text
    assert len(frames(page)) == 3


def test_the_spreads_of_several_groups_stand_side_by_side(make_run, compare, tmp_path):
    folders = [
        make_run(
            f"{name}_seed{seed}",
            recipe={"seed": seed, "model": {"name": name}},
            metrics=[evaluation(step, {FD: fd}) for step, fd in zip((0, 500, 1000), row, strict=True)],
        )
        for name in ("aaa", "bbb")
        for seed, row in enumerate(VALUES)
    ]
    groups = group_runs([read_run(folder) for folder in folders])
    [panel] = score_panels({group.label: [run.evaluations for run in group.runs] for group in groups})
    (left, low, high), (right, *_) = (panel.whiskers(series) for series in panel.series)
    np.testing.assert_array_equal([low, high], [VALUES.min(0), VALUES.max(0)])
    assert (right > left).all()  # although both groups have the same values
    np.testing.assert_allclose((left + right) / 2, [0, 500, 1000])
    page = compare(*folders)
    assert "<polygon" not in page
    assert page.count('class="whisker') == 2


def test_whiskers_are_few_and_stay_nearer_to_their_step_than_to_the_next(make_run):
    steps = np.arange(0.0, 100.0)
    series = [Series(steps, np.stack([steps + shift, steps - shift]), group) for group, shift in enumerate(range(1, 9))]
    panel = Panel("a", series)
    places = [panel.whiskers(each)[0] for each in series]
    chosen = [round(place) for place in np.mean(places, axis=0)]
    assert len(chosen) == 12
    assert (chosen[0], chosen[-1]) == (0, 99)
    gaps = np.diff(np.sort(np.concatenate(places)))
    assert gaps.min() > 0
    assert np.ptp(places, axis=0).max() < min(np.diff(chosen)) / 1.5


def test_a_seed_that_lags_does_not_bend_the_mean(make_run, compare):
    folders = [
        make_run(f"s{seed}", recipe={"seed": seed}, metrics=[evaluation(step, {FD: 10.0 * seed}) for step in steps])
        for seed, steps in enumerate(((0, 5, 10), (0, 5), (0, 5, 10)))
    ]
    assert re.search(r"3 step 5 10\.0 ±", text_of(compare(*folders)))


def test_a_seed_without_scores_does_not_count(make_run, seeds, compare):
    text = text_of(compare(*seeds, make_run("small_seed3", recipe={"seed": 3}, metrics=None)))
    assert "mean of n = 3 seeds" in text


def test_the_same_seed_twice_is_flagged(make_run, compare):
    text = text_of(compare(make_run("small_a"), make_run("small_b")))
    assert "small has a seed twice" in text


def test_the_same_folder_twice_is_one_run(seeds):
    [group] = group_runs([read_run(seeds[0]), read_run(seeds[0])])
    assert len(group.runs) == 1


def test_runs_of_other_recipes_are_apart_and_their_differences_told(make_run, compare):
    page = compare(make_run("plain"), make_run("coded", recipe=CODED))
    text = text_of(page)
    assert "coded.critic.blocks none blocks.1" in text
    assert "output_dir" not in text
    assert page.count("<polyline") == 4  # two scores of two runs
    assert 'class="line c0 d0"' in page
    assert 'class="line c1 d0"' in page
    assert "A single run has no error estimate" in text


def test_runs_may_have_scores_that_others_lack(make_run):
    one = read_run(make_run("a", metrics=[evaluation(1, {IS: 2.0}), evaluation(2, {IS: 3.0, FD: 5.0})]))
    two = read_run(make_run("b", metrics=[evaluation(1, {IS: 4.0})]))
    panels = score_panels({"a": [one.evaluations], "b": [two.evaluations]})
    drawn = {panel.title: [(s.group, list(s.steps), list(s.mean)) for s in panel.series] for panel in panels}
    assert drawn == {IS: [(0, [1, 2], [2, 3]), (1, [1], [4])], FD: [(0, [2], [5])]}


def test_runs_of_one_name_are_told_apart_by_their_paths(make_run):
    folders = [make_run("a/run"), make_run("b/run", recipe=CODED)]
    assert [group.label for group in group_runs([read_run(folder) for folder in folders])] == list(map(str, folders))


def test_runs_without_a_configuration_are_never_one_group(make_run):
    runs = [read_run(make_run(name, recipe=None)) for name in ("a", "b")]
    assert len(group_runs(runs)) == 2


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"extractor": "inception"}, "extractor"),
        ({"weights_sha256": "other"}, "weights_sha256"),
        ({"num_samples": 100}, "num_samples"),
        ({"num_reference": 100}, "num_reference"),
        ({"image_size": [3, 64, 64]}, "image_size"),
        ({"reference": {"data": "cifar10", "split": "test", "preparation": "none"}}, "reference.split"),
        ({"reference": {"data": "cifar10", "split": "train", "preparation": "crop"}}, "reference.preparation"),
    ],
)
def test_scores_from_different_things_are_flagged(change, key, make_run, compare):
    plain = make_run("plain")
    coded = make_run("coded", recipe=CODED, metrics=[evaluation(0, {FD: 9.0}, **change)])
    page = compare(plain, coded)
    warning = re.search(r'role="alert".*?</table>', page, re.DOTALL)[0]
    assert "must not be compared" in warning
    assert re.findall(r"<tr><th>([\w.]+)</th>", warning) == [key]


def test_seed_and_time_do_not_make_scores_incomparable(make_run, compare):
    other = [evaluation(0, {FD: 9.0}, seed=5, seconds=1.5, weights="/elsewhere", notes=["biased"])]
    assert "must not be compared" not in compare(make_run("plain"), make_run("coded", recipe=CODED, metrics=other))


def test_scores_in_full_are_shown_where_all_runs_have_them(make_run, compare):
    def full(fd):
        return {key: evaluation(1000, {FD: fd}, num_samples=50_000) for key in ("final", "best")}

    one = make_run("plain", scores=full(100.0))
    two = make_run("coded", recipe=CODED, scores=full(90.0))
    text = text_of(compare(one, two))
    assert "plain 1 step 1,000 100.0" in text
    assert "full scores" in text
    assert "must not be compared" not in text  # curves among themselves, and full scores among themselves
    (two / "scores.json").unlink()
    text = text_of(compare(one, two))
    assert "plain 1 step 1,000 123.0" in text
    assert "must not be compared" not in text


def test_full_scores_of_different_counts_are_flagged(make_run, compare):
    folders = [
        make_run(
            name,
            recipe=recipe,
            scores={key: evaluation(1000, {FD: 9.0}, num_samples=count) for key in ("final", "best")},
        )
        for name, recipe, count in (("plain", {}, 10_000), ("coded", CODED, 50_000))
    ]
    assert "num_samples 10000 50000" in text_of(compare(*folders))


def test_runs_without_scores_or_grids_compare_by_their_settings(make_run, compare):
    page = compare(make_run("a", metrics=None, grids=()), make_run("b", recipe=CODED, metrics=None, grids=()))
    assert "Scores" not in text_of(page)
    assert "coded.critic.blocks" in page
    assert "<img" not in page


def test_names_are_escaped(make_run, compare):
    page = compare(make_run("<script>alert(1)"), make_run("<b>", recipe={"data": {"name": "<i>"}}))
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_a_constant_score_lies_in_the_middle(make_run):
    run = read_run(make_run(metrics=[evaluation(step, {IS: 1.0}) for step in (0, 10)]))
    [panel] = score_panels({"": [run.evaluations]})
    chart = layout(panel)
    heights = {point.split(",")[1] for point in chart.lines[0].points.split()}
    assert len(heights) == 1
    assert 0 < float(heights.pop()) < chart.height
