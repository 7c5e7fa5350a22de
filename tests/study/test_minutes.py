"""A study with a time budget: what has begun is saved, seeds come one after another, and the table says how far."""

import json

from cs_gan.study.__main__ import TIME_OVER

from .conftest import running, saved, steps

FIRST = ["plain-seed0", "coded-seed0"]


def test_when_the_time_is_over_runs_save_and_more_minutes_go_on(bench, capsys, time_is_over_when):
    content = {"cases": {"plain": {"mu": 0.1}, "coded": {"mu": 0.2}}, "fixed": bench.held(*FIRST), "seeds": 2}
    time_is_over_when(lambda: saved(bench) == dict.fromkeys(FIRST, 2), minutes=3)
    assert bench.study("--jobs=2", "--minutes=3", **content) == TIME_OVER
    said = capsys.readouterr().err
    assert "the time is over (--minutes): runs save and end." in said
    assert "stopped with 4 runs left. The same command continues from here." in said
    assert not running(bench)
    assert steps(bench) == {name: [1, 2] for name in FIRST}  # every case of the first seed, none of the second
    for line in bench.table:
        assert line["problems"] == "seed 0 not run: stopped before its end, step 2 of 3 | seed 1 not run"
    for name in FIRST:
        record = bench.folder / "runs" / name / "study.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"seconds": 1000}))
    bench.release(*FIRST)
    time_is_over_when(lambda: False, minutes=3)
    assert bench.study("--jobs=2", "--minutes=3") == 0
    assert steps(bench) == {f"{case}-seed{seed}": [1, 2, 3] for case in ("plain", "coded") for seed in (0, 1)}
    assert bench.starts == {"plain-seed0": 2, "coded-seed0": 2, "plain-seed1": 1, "coded-seed1": 1}
    # The time of both starts together: 1000 s and a little more for one seed, and a little for the other.
    assert all(500 <= float(line["seconds"]) < 600 for line in bench.table)


def test_a_study_that_is_done_in_time_says_nothing_of_it(bench, capsys):
    assert bench.study("--minutes=5", grid={"mu": [0.1]}) == 0
    assert "is over" not in capsys.readouterr().err


def test_no_time_is_refused(bench, capsys):
    assert bench.study("--minutes=0", grid={"mu": [0.1]}) == 2
    assert "--minutes=0 must be above 0" in capsys.readouterr().err
