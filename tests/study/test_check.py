"""A study's settings are checked by its script before the first run starts."""

from pathlib import Path

from tests.study.conftest import ROOT

KNOWN = {"training.steps": 2}


def test_an_unknown_key_of_the_last_case_is_an_error_before_the_first_run(bench, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    cases = {"first": KNOWN, "last": {"training.step": 2}}
    for more in ((), ("--dry-run",)):
        assert bench.study(*more, script="train_classifier.py", cases=cases) == 2
        error = capsys.readouterr().err
        assert "last-seed0: unknown configuration key 'training.step'. Did you mean training.steps?" in error
    assert not bench.folder.exists()


def test_a_wrong_key_is_told_in_the_scripts_own_words(bench, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert bench.study(script="train_gan.py", fixed=KNOWN, grid={"coded.ration_end": [1.5]}) == 2
    assert "unknown configuration key 'coded.ration_end'. Did you mean coded.ratio_end" in capsys.readouterr().err


def test_a_value_that_the_script_refuses_is_an_error_too(bench, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert bench.study("--dry-run", script="train_gan.py", fixed=KNOWN, grid={"training.batch_size": [8, 0]}) == 2
    assert "batch_size=0-seed0: training.batch_size = 0" in capsys.readouterr().err


def test_the_studies_of_every_script_pass(bench, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    for script in ("train_gan.py", "train_classifier.py", "train_ssl.py"):
        assert bench.study("--dry-run", script=script, cases={"only": KNOWN}) == 0, capsys.readouterr().err


def test_a_script_without_the_function_is_not_imported(bench, tmp_path: Path):
    script = tmp_path / "own.py"
    script.write_text(f"open({str(tmp_path / 'trained')!r}, 'w')\n")
    assert bench.study("--dry-run", script=str(script), cases={"only": {"anything": 1}}) == 0
    assert not (tmp_path / "trained").exists()
