"""Tables made from raw rows are those made from run folders, and the committed pages are made of the committed rows."""

import csv
import io
import shutil
import sys
from pathlib import Path

import pytest

from cs_gan.errors import ConfigError
from cs_gan.study.plan import plan
from cs_gan.study.results import read_results
from cs_gan.study.rows import read_rows, write_rows
from cs_gan.study.spec import read_study
from cs_gan.study.tables import csv_table, markdown

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import make_results  # noqa: E402

ROWS = sorted(make_results.RESULTS.glob("*.csv"))


def test_rows_give_the_same_tables(bench):
    cases = {"plain": {"mu": 1}, "other": {"mu": 2}}
    assert bench.study(cases=cases, baseline="plain", better="lower") == 0
    study = read_study(bench.file)
    runs = plan(study, bench.folder)
    results = read_results(study, runs)
    again = read_rows(study, runs, (bench.folder / "rows.csv").read_text())
    assert csv_table(again) == csv_table(results)
    assert markdown(again) == markdown(results)


def test_rows_of_another_study_are_refused(bench):
    assert bench.study(grid={"mu": [1, 2]}, better="lower") == 0
    text = write_rows(read_results(read_study(bench.file), plan(read_study(bench.file), bench.folder)))
    bench.write(grid={"mu": [1, 3]}, better="lower")
    study = read_study(bench.file)
    with pytest.raises(ConfigError, match="has no 2 of the runs in its rows, such as mu=2"):
        read_rows(study, plan(study, bench.folder), text)


def test_rows_of_other_settings_are_refused(bench):
    assert bench.study(grid={"mu": [1]}, better="lower", fixed={"alpha": 1}) == 0
    text = (bench.folder / "rows.csv").read_text()
    bench.write(grid={"mu": [1]}, better="lower", fixed={"alpha": 2})
    study = read_study(bench.file)
    with pytest.raises(ConfigError, match=r"the row of mu=1-seed0 was made with other settings than .* has now"):
        read_rows(study, plan(study, bench.folder), text)


def test_another_table_than_rows_is_refused(bench, capsys):
    assert bench.study(grid={"mu": [1]}) == 0
    assert bench.study("--rows", str(bench.folder / "table.csv")) == 2
    assert "error: the rows have no column 'run': give a study's rows.csv." in capsys.readouterr().err


def test_a_run_without_a_row_has_not_run(bench):
    assert bench.study(grid={"mu": [1, 2]}, better="lower") == 0
    study = read_study(bench.file)
    runs = plan(study, bench.folder)
    head, *rows = (bench.folder / "rows.csv").read_text().splitlines()
    results = read_rows(study, runs, "\n".join([head, rows[0]]))
    assert (results.total("done"), results.total("not run")) == (1, len(runs) - 1)


@pytest.mark.parametrize("rows", ROWS, ids=lambda path: path.stem)
def test_committed_pages_are_made_of_the_committed_rows(rows, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert rows.with_suffix(".md").read_text() == make_results.page(rows, make_results.read(rows)), "run `make results`"


def test_tables_of_the_prose_are_made_of_the_committed_rows(monkeypatch):
    monkeypatch.chdir(ROOT)
    prose = (ROOT / "docs" / "results.md").read_text()
    filled = make_results.filled(prose, {rows.stem: make_results.read(rows) for rows in ROWS})
    assert prose.count("<!-- end -->") > 3
    assert prose == filled, "run `make results`"


def test_a_table_with_a_mistyped_marker_is_refused():
    with pytest.raises(ValueError, match="1 tables end with <!-- end -->, but only 0 begin"):
        make_results.filled("<!-- sumary gan_digits -->\n| a |\n<!-- end -->\n", {})


def test_the_picture_at_equal_time_shows_the_committed_rows(monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = make_results.RESULTS / "classifier_1k_new.csv"
    accuracy = make_results.equal_time(make_results.read(rows)).axes[0]
    names = accuracy.get_legend_handles_labels()[1]
    assert names == ["ERM", "label smoothing", "CutMix", "mixup", "coded, N = K"]
    with rows.open(newline="") as file:
        coded = [
            float(row["accuracy (%)"]) for row in csv.DictReader(file) if row["case"] == "coded, N = K, 125 epochs"
        ]
    line = accuracy.containers[names.index("coded, N = K")].lines[0]
    assert line.get_xdata()[-1] == 250
    assert line.get_ydata()[-1] == pytest.approx(sum(coded) / len(coded))


def test_there_are_committed_rows():
    assert ROWS


def test_finished_runs_of_rows_from_elsewhere_are_not_run_again(bench, capsys):
    cases = {"plain": {"mu": 1}, "other": {"mu": 2}}
    assert bench.study(cases=cases, baseline="plain", better="lower") == 0
    rows, table = (bench.folder / "rows.csv").read_text(), (bench.folder / "table.csv").read_text()
    kept = bench.folder.parent / "kept.csv"
    lost = rows.splitlines()[1].split(",")[0]
    kept.write_text("\n".join(line for line in rows.splitlines() if not line.startswith(lost)))
    shutil.rmtree(bench.folder)
    capsys.readouterr()
    assert bench.study("--rows", str(kept), "--dry-run", cases=cases, baseline="plain", better="lower") == 0
    listed = capsys.readouterr().out
    assert f"{lost} (to run)" in listed
    assert listed.count("(done)") == len(rows.splitlines()) - 2
    assert not bench.folder.exists()
    assert bench.study("--rows", str(kept), cases=cases, baseline="plain", better="lower") == 0
    count = len(rows.splitlines()) - 2
    assert f"{count} finished runs taken from" in capsys.readouterr().err
    begun = [path.name for path in (bench.folder / "runs").iterdir() if (path / "scores.json").exists()]
    assert begun == [lost]
    assert without_seconds((bench.folder / "table.csv").read_text()) == without_seconds(table)


def test_rows_have_every_score_that_is_asked_for(bench):
    asked = {"cases": {"plain": {"mu": 1}}, "score": ["accuracy (%)", "best loss"]}
    assert bench.study(**asked) == 0
    kept = bench.folder.parent / "kept.csv"
    kept.write_text((bench.folder / "rows.csv").read_text())
    table = without_seconds((bench.folder / "table.csv").read_text())
    shutil.rmtree(bench.folder)
    assert bench.study("--rows", str(kept), **asked) == 0
    assert bench.starts == {}
    assert without_seconds((bench.folder / "table.csv").read_text()) == table


def test_rows_without_a_score_that_is_asked_for_are_run_again(bench):
    assert bench.study(cases={"plain": {"mu": 1}}) == 0
    kept = bench.folder.parent / "kept.csv"
    kept.write_text((bench.folder / "rows.csv").read_text())
    shutil.rmtree(bench.folder)
    assert bench.study("--rows", str(kept), cases={"plain": {"mu": 1}}, score=["best loss"]) == 0
    assert bench.starts == {"plain-seed0": 1, "plain-seed1": 1}


def test_a_wrong_name_of_a_score_does_not_empty_the_rows(bench):
    assert bench.study(cases={"plain": {"mu": 1}}) == 0
    rows = (bench.folder / "rows.csv").read_text()
    assert bench.study("--summarise", cases={"plain": {"mu": 1}}, score="acuracy (%)") == 0
    assert "0 of 2 (2 failed)" in bench.markdown
    assert (bench.folder / "rows.csv").read_text() == rows


def test_rows_of_other_settings_are_run_again(bench, capsys):
    assert bench.study(cases={"plain": {"mu": 1}, "other": {"mu": 2}}) == 0
    kept = bench.folder.parent / "kept.csv"
    kept.write_text((bench.folder / "rows.csv").read_text())
    shutil.rmtree(bench.folder)
    assert bench.study("--rows", str(kept), "--dry-run", cases={"plain": {"mu": 1}, "other": {"mu": 3}}) == 0
    listed = capsys.readouterr().out
    assert "plain-seed0 (done)" in listed
    assert "other-seed0 (to run)" in listed
    lines = [line.split(",") for line in kept.read_text().splitlines()]
    column = lines[0].index("settings")
    kept.write_text("\n".join(",".join(cells[:column] + cells[column + 1 :]) for cells in lines))  # as rows once were
    assert bench.study("--rows", str(kept), "--dry-run", cases={"plain": {"mu": 1}, "other": {"mu": 3}}) == 0
    assert "4 of them don't say with which settings" in capsys.readouterr().err


def test_a_study_starts_without_rows_where_their_file_is_not_there_yet(bench, capsys, tmp_path):
    assert bench.study("--rows", str(tmp_path / "later.csv"), grid={"mu": [1]}) == 0
    assert capsys.readouterr().err.count("later.csv doesn't exist yet: no run is taken from it") == 1
    assert set(bench.starts.values()) == {1}


def without_seconds(table):
    return [[cell for name, cell in row.items() if "seconds" not in name] for row in csv.DictReader(io.StringIO(table))]
