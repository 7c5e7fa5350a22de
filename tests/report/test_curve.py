import csv

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from cs_gan.errors import DataError
from cs_gan.report import save_curve, save_metrics_csv
from cs_gan.report.chart import tick_label, ticks
from cs_gan.report.meanings import LOG, SCORES, of_column, of_scores
from cs_gan.report.panels import score_panels
from cs_gan.report.svg import layout
from cs_gan.runs import read_evaluations

from .conftest import evaluation, lines


@pytest.fixture
def table(tmp_path):
    """Writes a metrics.jsonl of (step, scores) and gives its path."""

    def write(*rows, name="metrics"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(lines(*(evaluation(step, scores) for step, scores in rows)))
        return path

    return write


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: a list of (axes, colour, xs, ys), in order."""
    found, plot = [], Axes.plot

    def recorded(axes, xs, ys, *args, color=None, **kwargs):
        found.append((axes, color, list(xs), list(ys)))
        return plot(axes, xs, ys, *args, color=color, **kwargs)

    monkeypatch.setattr(Axes, "plot", recorded)
    return found


def pixels(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("L"), dtype=float)


class TestSaveCurve:
    def test_draws_something_and_leaves_no_partial_file(self, tmp_path, table):
        path = tmp_path / "curve.png"
        save_curve(path, table(*((step, {"FID": 100 / (step + 1)}) for step in range(5))))
        # A blank picture has variance 0; thin lines on white (255) have some hundreds.
        assert pixels(path).var() > 50
        assert {file.suffix for file in tmp_path.iterdir()} == {".png", ".jsonl"}

    def test_draws_every_point_of_every_score(self, tmp_path, table, drawn):
        metrics = table((0, {"FID": 9.5, "cost $5 and $6": 1.0}), (10, {"FID": 3.25}), (20, {"cost $5 and $6": 2.0}))
        save_curve(tmp_path / "curve.png", metrics)
        assert [line[2:] for line in drawn] == [([0, 10], [9.5, 3.25]), ([0, 20], [1.0, 2.0])]
        titles = [axes.get_title(loc="left") for axes, *_ in drawn]
        assert titles == ["FID", r"cost \$5 and \$6"]  # no formula

    def test_precision_and_recall_share_a_panel_and_deviations_have_none(self, tmp_path, table, drawn):
        scores = {"KID, x": 0.1, "KID, x std": 0.01, "precision, x": 0.5, "recall, x": 0.25}
        save_curve(tmp_path / "c.png", table((1, scores)))
        assert [axes.get_title(loc="left") for axes, *_ in drawn] == ["KID, x", *["precision and recall, x"] * 2]
        assert [text.get_text() for text in drawn[-1][0].get_legend().get_texts()] == ["precision", "recall"]

    @pytest.mark.parametrize(
        ("column", "lowest", "scale"),
        [
            ("FID", 0.5, "log"),
            ("FID", 11.0, "linear"),
            ("FID", 10.0, "log"),
            ("FID", -0.01, "linear"),
            ("FID", 0.0, "linear"),
            ("IS", 0.5, "linear"),
        ],
    )
    def test_a_distance_over_orders_of_magnitude_has_a_logarithmic_axis(
        self, column, lowest, scale, tmp_path, table, drawn
    ):
        save_curve(tmp_path / "c.png", table((0, {column: 50.0}), (1, {column: lowest})))
        assert drawn[0][0].get_yscale() == scale

    def test_there_is_at_most_a_handful_of_panels(self, tmp_path, table, drawn):
        save_curve(tmp_path / "c.png", table((1, {f"score {i}": 1.0 for i in range(9)})))
        assert len({id(axes) for axes, *_ in drawn}) == 5

    def test_refuses_a_file_without_a_score_and_writes_nothing(self, tmp_path):
        with pytest.raises(DataError, match=r"metrics\.jsonl contains no scores"):
            save_curve(tmp_path / "curve.png", tmp_path / "metrics.jsonl")
        assert list(tmp_path.iterdir()) == []


class TestSaveMetricsCsv:
    def test_has_the_columns_of_all_lines(self, tmp_path, table):
        metrics = table((0, {"FD, x": 304.5611111}), (10, {"FD, x": 12.0, "IS, x": 2.5, "IS, x std": 0.1}))
        save_metrics_csv(tmp_path / "metrics.csv", metrics)
        with (tmp_path / "metrics.csv").open(newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["step", "FD, x", "IS, x", "IS, x std", "seconds"]
        assert rows == [["0", "304.561", "", "", "70.25"], ["10", "12", "2.5", "0.1", "70.25"]]
        assert {file.suffix for file in tmp_path.iterdir()} == {".csv", ".jsonl"}


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "found"),
    [
        (0, 1000, False, [0, 200, 400, 600, 800, 1000]),
        (20, 2000, True, [20, 50, 100, 200, 500, 1000, 2000]),
        (31.4, 272, True, [50, 70, 100, 200]),
        (55, 275, True, [70, 100, 200]),
        (1, 1e6, True, [1, 10, 100, 1000, 10_000, 100_000, 1e6]),
        (0, 0, False, [0]),
    ],
)
def test_ticks_are_few_and_round(low, high, logarithmic, found):
    np.testing.assert_allclose(ticks(low, high, logarithmic), found, atol=1e-12)


@pytest.mark.parametrize("last", [1, 2, 3, 4, 5, 6, 7, 10, 12, 15, 25, 60])
def test_steps_have_ticks_at_whole_numbers_only(last, table, tmp_path, drawn):
    found = ticks(0, last, whole=True)
    assert all(tick == int(tick) for tick in found)
    assert 2 <= len(found) <= 8
    [chart] = [
        layout(panel)
        for panel in score_panels({"": [read_evaluations(table((0, {"FID": 2.0}), (last, {"FID": 1.0})))]})
    ]
    assert [label for _, label in chart.x_ticks] == [str(int(tick)) for tick in found]
    save_curve(tmp_path / "c.png", tmp_path / "metrics.jsonl")
    assert all(tick == int(tick) for tick in drawn[0][0].get_xticks())


def test_both_axes_of_a_panel_have_a_name_and_a_sentence_stands_below(tmp_path, table, drawn):
    save_curve(tmp_path / "c.png", table((0, {"FID": 9.0}), (5, {"FID": 3.0})))
    axes = drawn[0][0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "distance")
    [text] = [text.get_text() for text in axes.texts]
    assert text.replace("\n", " ").endswith("Lower is better.")


def test_tick_labels_are_short():
    assert [tick_label(x) for x in (0, 0.05, 1000, 12_500, 1e6)] == ["0", "0.05", "1000", "12.5k", "1000k"]


def test_every_known_score_says_which_direction_is_better():
    for name in SCORES:
        axis, sentence = of_scores([f"{name}, x"])
        assert axis
        assert sentence.endswith((" is better.", "memorises."))
    assert of_scores(["accuracy (%)"]).axis == "accuracy in %"
    assert of_scores(["recall, x", "coverage, x"]).sentence == (
        "Recall and coverage say whether all that real images show is generated. Higher is better."
    )


def test_an_unknown_score_says_what_its_run_recorded_and_an_unknown_column_nothing():
    assert of_scores(["sharpness"], "higher") == ("score", "Higher is better.")
    assert of_scores(["sharpness"]).sentence == ""
    assert of_column("my_own").sentence == ""


def test_every_column_that_training_logs_has_a_sentence():
    logged = [*LOG, "critic_coded", "generator_coded", "coded_share", "feature_norm_share", "critic_weight"]
    assert all(of_column(column).sentence.endswith(".") for column in logged)
