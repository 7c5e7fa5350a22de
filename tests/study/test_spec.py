"""Files that can't be used are refused with what to do, before anything runs."""

import pytest

from cs_gan.study import read_study

GRID = {"mu": [0.1, 0.3]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"grids": GRID}, "unknown key 'grids'. Did you mean grid"),
        ({}, "nothing varies"),
        ({"grid": {}}, "nothing varies"),
        ({"grid": {"mu": []}}, "mu = [] must be a list of at least one value"),
        ({"grid": {"mu": 0.1}}, "mu = 0.1 must be a list"),
        ({"grid": {"mu": [0.1, 0.1]}}, "has a value twice"),
        ({"grid": [1]}, "must be keys with values"),
        ({"grid": {"mu": [{"a": 1}]}}, "a value can't be a section"),
        ({"cases": {"coded": {"blocks": [""]}}}, 'write blocks: [[""]]'),
        ({"cases": {"ERM": {}, "erm": {}}}, "differ only in capitals"),
        ({"cases": {"a": {"mu": 1}}, "grid": GRID}, "mu is set twice, in the case and the grid"),
        ({"fixed": {"mu": 1}, "grid": GRID}, "mu is set twice, in fixed and what varies"),
        ({"grid": {"seed": [1]}}, "seed can't be set here: seeds says which"),
        ({"fixed": {"output_dir": "x"}, "grid": GRID}, "output_dir can't be set here"),
        ({"grid": GRID, "script": None}, "script is missing"),
        ({"grid": GRID, "script": "train_clasifier.py"}, "there is no file train_clasifier.py in "),
        ({"grid": GRID, "config": "no.yaml"}, "there is no file no.yaml in "),
        ({"grid": GRID, "seeds": None}, "seeds = None must be a number above 0"),
        ({"grid": GRID, "seeds": 0}, "seeds = 0 must be a number above 0"),
        ({"grid": GRID, "seeds": [1, 1]}, "has a seed twice"),
        ({"grid": GRID, "seeds": [-1]}, "must be a number above 0"),
        ({"grid": GRID, "better": "more"}, "must be higher or lower"),
        ({"grid": GRID, "best_of": "yes please"}, "must be true or false"),
        ({"grid": GRID, "score": {"a": 1}}, "must be a name, or a list of names"),
        ({"grid": GRID, "best_of": True}, "best_of needs cases, or group"),
        ({"grid": GRID, "group": "my"}, "'my' doesn't vary in this study. Did you mean mu?"),
        ({"cases": {"plain": {}, "coded": {}}, "baseline": "plane"}, "must be the name of a case. Did you mean plain?"),
        ({"grid": GRID, "baseline": "plain"}, "must be the name of a case. There are no cases."),
        ({"cases": {"a": {"mu": [1, 2]}, "b": {}}, "baseline": "a"}, "mu varies in 'a', but not in the same way"),
        ({"grid": GRID, "plots": {"heatmap": []}}, "unknown key 'heatmap'. Did you mean heatmaps?"),
        ({"grid": GRID, "plots": {"heatmaps": [["mu", "mu"]]}}, "must be a list of pairs"),
        ({"grid": GRID, "plots": {"lines": ["nu"]}}, "'nu' doesn't vary in this study. Did you mean mu?"),
    ],
)
def test_a_bad_file_is_refused_with_what_to_do(bench, capsys, content, said):
    assert bench.study(**{"seeds": 2, **content}) == 2
    error = capsys.readouterr().err
    assert said in error
    assert str(bench.file) in error
    assert not bench.folder.exists()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("seeds: 2\nseeds: 3\n", "'seeds' occurs twice"),
        ("fixed: {a.b: 1, a: {b: 2}}\n", "sets fixed.a.b twice"),
        ("grid: {mu: [1", "not valid YAML"),
        ("- a\n", "must be keys with values"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(bench, capsys, written, said):
    bench.file.write_text(written)
    assert bench.study() == 2
    assert said in capsys.readouterr().err


def test_a_missing_file_and_a_bad_number_of_jobs_are_refused(bench, capsys):
    assert bench.study() == 2
    assert "can't be read: No such file" in capsys.readouterr().err
    assert bench.study("--jobs=0", grid=GRID) == 2
    assert "--jobs=0 must be at least 1" in capsys.readouterr().err


def test_sections_can_be_nested_and_numbers_are_read_as_the_scripts_read_them(bench):
    bench.write(grid={"method": {"coded": {"mu": [0.1]}}})
    bench.file.write_text(bench.file.read_text() + "fixed: {rate: 1e-4, name: e5}\n")
    study = read_study(bench.file)
    assert study.keys == ["method.coded.mu"]
    assert study.fixed == {"rate": 1e-4, "name": "e5"}
