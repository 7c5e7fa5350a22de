"""A sweep with a time budget: what has begun is saved, seeds come one after another, and the table says how far."""

from cs_gan.sweep.__main__ import TIME_OVER

from .conftest import running, steps


def test_when_the_time_is_over_runs_save_and_more_minutes_go_on(bench, capsys):
    content = {"cases": {"plain": {"mu": 0.1}, "coded": {"mu": 0.2}}, "fixed": {"steps": 6, "seconds": 4}, "seeds": 2}
    assert bench.sweep("--jobs=2", "--minutes=0.05", **content) == TIME_OVER  # 3 s of the 4 s that seed 0 takes
    said = capsys.readouterr().err
    assert "the time is over (--minutes): runs save and end." in said
    assert "stopped with 4 runs left. The same command continues from here." in said
    assert not running(bench)
    before = steps(bench)
    assert before.keys() == {"plain-seed0", "coded-seed0"}  # every case of the first seed, none of the second
    for line in bench.table:
        made = len(before[f"{line['case']}-seed0"])
        assert 0 < made < 6
        assert line["problems"] == f"seed 0 not run: stopped before its end, step {made} of 6 | seed 1 not run"
    assert bench.sweep("--jobs=2", "--minutes=5") == 0
    assert steps(bench) == {f"{case}-seed{seed}": [1, 2, 3, 4, 5, 6] for case in ("plain", "coded") for seed in (0, 1)}
    assert bench.starts == {"plain-seed0": 2, "coded-seed0": 2, "plain-seed1": 1, "coded-seed1": 1}
    assert all(3.5 < float(line["seconds"]) < 12 for line in bench.table)  # of both starts together


def test_a_sweep_that_is_done_in_time_says_nothing_of_it(bench, capsys):
    assert bench.sweep("--minutes=5", grid={"mu": [0.1]}) == 0
    assert "is over" not in capsys.readouterr().err


def test_no_time_is_refused(bench, capsys):
    assert bench.sweep("--minutes=0", grid={"mu": [0.1]}) == 2
    assert "--minutes=0 must be above 0" in capsys.readouterr().err
