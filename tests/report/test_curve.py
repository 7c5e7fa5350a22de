import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from cs_gan.report import save_curve
from cs_gan.training import append_row


@pytest.fixture
def table(tmp_path):
    """Writes a metrics.csv of rows and gives its path."""

    def write(*rows, name="metrics"):
        path = tmp_path / f"{name}.csv"
        for row in rows:
            append_row(path, row)
        return path

    return write


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: a list of (axes, label, xs, ys), in order."""
    lines, plot = [], Axes.plot

    def recorded(axes, xs, ys, *args, label=None, **kwargs):
        lines.append((axes, label, list(xs), list(ys)))
        return plot(axes, xs, ys, *args, label=label, **kwargs)

    monkeypatch.setattr(Axes, "plot", recorded)
    return lines


def pixels(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("L"), dtype=float)


class TestSaveCurve:
    def test_draws_something(self, tmp_path, table):
        path = tmp_path / "curve.png"
        save_curve(path, {"run": table(*({"step": step, "FID": 100 / (step + 1)} for step in range(5)))})
        # A blank picture has variance 0; thin dark lines on white (255) have some hundreds.
        assert pixels(path).var() > 50
        assert {file.suffix for file in tmp_path.iterdir()} == {".png", ".csv"}

    def test_draws_every_point_of_every_score_and_run(self, tmp_path, table, drawn):
        one = table({"step": 0, "FID": 9.5, "IS": 1}, {"step": 10, "FID": 3.25, "IS": 2}, name="one")
        two = table({"step": 5, "FID": 7, "IS": 4}, name="two")
        save_curve(tmp_path / "curve.png", {"plain": one, "coded": two})
        assert [line[1:] for line in drawn] == [
            ("plain", [0, 10], [9.5, 3.25]),
            ("coded", [5], [7.0]),
            ("plain", [0, 10], [1.0, 2.0]),
            ("coded", [5], [4.0]),
        ]
        assert [drawn[i][0].get_ylabel() for i in (0, 2)] == ["FID", "IS"]
        assert drawn[0][0] is drawn[1][0]

    def test_two_runs_have_a_legend_and_one_has_none(self, tmp_path, table, drawn):
        rows = [{"step": step, "FID": 10 - step} for step in range(3)]
        one, two = table(*rows, name="one"), table(*rows, name="two")
        save_curve(tmp_path / "one.png", {"plain": one})
        assert drawn[-1][0].get_legend() is None
        save_curve(tmp_path / "two.png", {"plain": one, "coded": two})
        assert [text.get_text() for text in drawn[-1][0].get_legend().get_texts()] == ["plain", "coded"]

    def test_leaves_out_seconds_and_standard_deviations_unless_asked(self, tmp_path, table, drawn):
        metrics = table({"step": 1, "FID": 3, "KID": 1, "KID std": 0.1, "seconds": 4})
        save_curve(tmp_path / "a.png", {"run": metrics})
        assert [axes.get_ylabel() for axes, *_ in drawn] == ["FID", "KID"]
        drawn.clear()
        save_curve(tmp_path / "b.png", {"run": metrics}, columns=["seconds"])
        assert [axes.get_ylabel() for axes, *_ in drawn] == ["seconds"]

    @pytest.mark.parametrize(
        ("column", "lowest", "scale"),
        [("FID", 0.5, "log"), ("FID", -0.01, "linear"), ("FID", 0.0, "linear"), ("IS", 0.5, "linear")],
    )
    def test_a_distance_has_a_logarithmic_axis_where_all_of_it_is_positive(
        self, column, lowest, scale, tmp_path, table, drawn
    ):
        save_curve(tmp_path / "c.png", {"run": table({"step": 0, column: 50.0}, {"step": 1, column: lowest})})
        assert drawn[0][0].get_yscale() == scale

    def test_runs_may_have_scores_that_others_lack(self, tmp_path, table, drawn):
        one = table({"step": 1, "IS": 2}, {"step": 2, "IS": 3, "FID": 5}, name="one")
        two = table({"step": 1, "IS": 4}, name="two")
        save_curve(tmp_path / "curve.png", {"plain": one, "coded": two})
        found = {(axes.get_ylabel(), label): (xs, ys) for axes, label, xs, ys in drawn}
        assert found["FID", "plain"] == ([2], [5.0])
        assert found.get(("FID", "coded"), ([], [])) == ([], [])
        assert found["IS", "coded"] == ([1], [4.0])

    @pytest.mark.parametrize("rows", [[], [{"step": 1, "seconds": 2.0}], [{"step": 1, "IS std": 2.0}]])
    def test_refuses_tables_without_a_score_and_writes_nothing(self, rows, tmp_path, table):
        path = table(*rows)
        path.touch()
        with pytest.raises(ValueError, match=r"no scores in .*metrics\.csv"):
            save_curve(tmp_path / "curve.png", {"run": path})
        assert list(tmp_path.iterdir()) == [path]
