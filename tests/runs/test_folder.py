import json

import pytest

import cs_gan.files as files_module
from cs_gan.errors import ConfigError
from cs_gan.runs import RunFolder, append_line, read_lines, write_lines


class TestRunFolder:
    def test_is_made_with_its_parents(self, tmp_path):
        folder = RunFolder(tmp_path / "a" / "b")
        with folder.occupied():
            assert {path.name for path in folder.path.iterdir()} == {"grids", ".lock"}

    @pytest.mark.parametrize("below", ["file", "file/run"])
    def test_that_cannot_be_written_is_named(self, below, tmp_path):
        (tmp_path / "file").write_text("")  # as root no permission would stop it
        with pytest.raises(ConfigError, match=f"output_dir=.*{below} can't be written"):  # noqa: SIM117
            with RunFolder(tmp_path / below).occupied():
                pass

    def test_grids_sort_by_step(self, tmp_path):
        folder = RunFolder(tmp_path)
        paths = [folder.grid_at(step) for step in (0, 9, 10, 100_000)]
        assert paths == sorted(paths)
        assert all(path.parent == tmp_path / "grids" and path.suffix == ".png" for path in paths)

    @pytest.mark.parametrize("name", ["data", "real", "interpolation", "nearest"])
    def test_what_is_made_for_the_report_is_deleted_by_overwrite_only(self, name, tmp_path):
        folder = RunFolder(tmp_path)
        with folder.occupied():
            getattr(folder, name).write_text("made by a run")
        with folder.occupied():
            assert getattr(folder, name).exists()
            folder.clear()
            assert not getattr(folder, name).exists()

    @pytest.mark.parametrize("name", ["training_data.json", "real.png", "nearest-strip.png"])
    def test_a_foreign_file_of_such_a_name_is_kept(self, name, tmp_path):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ConfigError, match=f"holds {name} that no run"):  # noqa: SIM117
            with RunFolder(tmp_path).occupied():
                pass
        assert (tmp_path / name).read_text() == "mine"

    def test_its_identity_stays(self, tmp_path):
        first, other = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
        with first.occupied(), other.occupied():
            assert first.identity() == RunFolder(tmp_path / "a").identity() != other.identity()


class TestLines:
    def test_rows_come_back_in_order(self, tmp_path):
        log = tmp_path / "log.jsonl"
        rows = [{"step": step, "loss": step / 3, "text": 'a,"b"\nc'} for step in range(1, 4)]
        for row in rows:
            append_line(log, row)
        assert read_lines(log) == rows
        assert [json.loads(line) for line in log.read_text().splitlines()] == rows

    def test_a_missing_file_has_no_rows_and_is_not_made(self, tmp_path):
        log = tmp_path / "log.jsonl"
        assert read_lines(log) == []
        write_lines(log, [])
        assert not log.exists()

    @pytest.mark.parametrize("cut", [1, 2, 10])
    def test_half_a_last_line_is_left_out_and_then_overwritten(self, cut, tmp_path):
        log = tmp_path / "log.jsonl"
        for step in (1, 2):
            append_line(log, {"step": step, "loss": 0.25})
        log.write_bytes(log.read_bytes()[:-cut])
        assert read_lines(log) == [{"step": 1, "loss": 0.25}]
        append_line(log, {"step": 3})
        assert read_lines(log) == [{"step": 1, "loss": 0.25}, {"step": 3}]

    def test_a_first_line_that_was_cut_is_overwritten(self, tmp_path):
        log = tmp_path / "log.jsonl"
        log.write_text('{"step": 1, "lo')
        append_line(log, {"step": 2})
        assert log.read_text() == '{"step": 2}\n'

    def test_a_kill_before_the_rename_leaves_the_file_as_it_was(self, tmp_path, monkeypatch):
        log = tmp_path / "log.jsonl"
        append_line(log, {"step": 1})

        def killed(*_args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(files_module.os, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                write_lines(log, [])
        assert read_lines(log) == [{"step": 1}]
        write_lines(log, [])
        assert log.read_text() == ""
