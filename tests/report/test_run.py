"""Reading a run folder in whatever state it is."""

from __future__ import annotations

import pytest

from cs_gan.errors import DataError
from cs_gan.flat_keys import flatten
from cs_gan.report.run import read_run, score_names
from cs_gan.runs import best, read_evaluations, readable_lines

from .conftest import FD, IS, evaluation, lines


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    whole = lines({"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5})
    for cut in range(1, len('{"step": 2, "loss": 1.5}')):  # wherever the kill fell; a whole object is whole
        path.write_text(whole[: -1 - cut])
        assert readable_lines(path) == [{"step": 1, "loss": 2.0}]


def test_a_line_torn_inside_a_character_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(evaluation(5, {FD: 1.0})).encode() + '{"step": 6, "scores": {"Fréchet'.encode()[:-6])
    assert [one.step for one in read_evaluations(path)] == [5]


@pytest.mark.parametrize("text", ["", "\n\n", "[1]\n3\nnull\n", '{"loss": 1}\n', '{"step": "5"}\n'])
def test_lines_that_are_no_rows_are_left_out(text, tmp_path):
    (tmp_path / "log.jsonl").write_text(text)
    assert readable_lines(tmp_path / "log.jsonl") == []


def test_a_step_written_again_counts_once_and_steps_are_in_order(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*(evaluation(step, {FD: fd}) for step, fd in ((10, 3.0), (5, 4.0), (10, 2.0)))))
    assert [(one.step, one.scores[FD]) for one in read_evaluations(path)] == [(5, 4.0), (10, 2.0)]


@pytest.mark.parametrize("scores", [None, {}, [], {"FD": None}, {"FD": "low"}, {"FD": float("nan")}, {"FD": True}])
def test_a_line_without_a_number_is_no_evaluation(scores, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(lines({"step": 1, "scores": scores}))
    assert read_evaluations(tmp_path / "metrics.jsonl") == []


def test_best_is_the_earliest_of_the_lowest_or_of_the_highest(tmp_path):
    rows = [evaluation(step, {"accuracy": value}) for step, value in ((0, 0.5), (1, 0.75), (2, 0.75), (3, 0.25))]
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*rows))
    assert best(read_evaluations(path)).step == 3
    path.write_text(lines(*(row | {"better": "higher"} for row in rows)))
    assert best(read_evaluations(path)).step == 1
    assert best([]) is None


def test_score_names_have_the_primary_first_and_no_deviations(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(evaluation(0, {IS: 1.0, f"{IS} std": 0.1, FD: 2.0}) | {"primary": FD}))
    assert score_names(read_evaluations(path)) == [FD, IS]


def test_grids_are_in_the_order_of_steps_and_a_lone_one_serves(make_run):
    folder = make_run(grids=(1000, 0, 500))
    (folder / "grids" / "step-last.png").touch()
    assert [step for step, _ in read_run(folder).grids] == [0, 500, 1000]
    for picture in (folder / "grids").iterdir():
        picture.unlink()
    assert read_run(folder).grids == [(None, folder / "grid.png")]


def test_scores_in_full_replace_the_last_ones_until_the_run_goes_on(make_run):
    full = {"final": evaluation(1000, {FD: 100.0}), "best": evaluation(500, {FD: 90.0})}
    folder = make_run(scores=full)
    assert (read_run(folder).last.scores[FD], read_run(folder).best.scores[FD]) == (100.0, 90.0)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(lines(evaluation(1500, {FD: 80.0})))
    assert (read_run(folder).last.scores[FD], read_run(folder).best.scores[FD]) == (80.0, 80.0)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"final": {}}', '{"final": 3, "best": null}'])
def test_broken_scores_in_full_are_passed_over(text, make_run):
    folder = make_run()
    (folder / "scores.json").write_text(text)
    assert read_run(folder).last.scores[FD] == 123.0


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "", "just words"])
def test_a_config_that_is_none_is_kept_as_text_alone(text, make_run):
    folder = make_run()
    (folder / "config.yaml").write_text(text)
    run = read_run(folder)
    assert (run.config, run.config_text) == ({}, text)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        read_run(tmp_path)


def test_flatten_joins_the_keys_of_nested_dicts_with_dots():
    assert flatten({"a": {"b": {"c": 1}, "d": []}, "e": {}}) == {"a.b.c": 1, "a.d": [], "e": {}}
