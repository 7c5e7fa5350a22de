import pytest

import cs_gan.training.run_folder as run_folder_module
from cs_gan.errors import ConfigError
from cs_gan.training import RunFolder, append_row, drop_rows_from, read_rows


class TestRunFolder:
    def test_is_made_with_its_parents(self, tmp_path):
        folder = RunFolder(tmp_path / "a" / "b")
        with folder.occupied():
            assert {path.name for path in folder.path.iterdir()} == {"grids", ".lock"}

    def test_occupying_it_anew_keeps_what_it_holds(self, tmp_path):
        folder = RunFolder(tmp_path)
        with folder.occupied():
            append_row(folder.log, {"step": 1})
        with folder.occupied():
            assert read_rows(folder.log) == [{"step": "1"}]

    def test_is_held_by_one_at_a_time_and_freed_after_an_exception(self, tmp_path):
        def twice():
            with RunFolder(tmp_path).occupied(), RunFolder(tmp_path).occupied():
                raise AssertionError("held twice")

        with pytest.raises(ConfigError, match="another process"):
            twice()
        with RunFolder(tmp_path).occupied():
            pass

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

    def test_no_two_files_share_a_partial_name(self, tmp_path):
        """Each is written under its name with .partial instead of its ending."""
        folder = RunFolder(tmp_path)
        files = [folder.log, folder.metrics, folder.curve, folder.grid, folder.snapshot, folder.config]
        assert len({path.with_suffix(".partial") for path in files}) == len(files)


class TestTables:
    def test_rows_come_back_in_order(self, tmp_path):
        table = tmp_path / "log.csv"
        for step in range(1, 4):
            append_row(table, {"step": step, "loss": step / 4})
        assert table.read_text().splitlines() == ["step,loss", "1,0.25", "2,0.5", "3,0.75"]
        assert read_rows(table) == [{"step": str(step), "loss": str(step / 4)} for step in range(1, 4)]

    def test_a_missing_table_has_no_rows(self, tmp_path):
        assert read_rows(tmp_path / "log.csv") == []
        drop_rows_from(tmp_path / "log.csv", 1)
        assert not (tmp_path / "log.csv").exists()

    def test_a_new_column_is_added_to_the_rows_before(self, tmp_path):
        table = tmp_path / "log.csv"
        append_row(table, {"step": 1, "loss": 0.5})
        append_row(table, {"step": 2, "loss": 0.4, "coded": 0.1})
        append_row(table, {"step": 3, "loss": 0.3, "coded": 0.2})
        assert table.read_text().splitlines() == ["step,loss,coded", "1,0.5,", "2,0.4,0.1", "3,0.3,0.2"]

    def test_a_row_without_a_known_column_leaves_it_empty(self, tmp_path):
        table = tmp_path / "log.csv"
        append_row(table, {"step": 1, "loss": 0.5, "coded": 0.1})
        append_row(table, {"step": 2, "loss": 0.4})
        append_row(table, {"coded": 0.3, "step": 3, "loss": 0.2})
        assert table.read_text().splitlines() == ["step,loss,coded", "1,0.5,0.1", "2,0.4,", "3,0.2,0.3"]

    def test_values_with_commas_quotes_and_line_ends_come_back(self, tmp_path):
        row = {"step": "1", "text, more": 'a,"b"\nc'}
        append_row(tmp_path / "t.csv", row)
        append_row(tmp_path / "t.csv", row | {"step": "2"})
        assert read_rows(tmp_path / "t.csv") == [row, row | {"step": "2"}]

    @pytest.mark.parametrize(("step", "kept"), [(0, 0), (1, 0), (2, 1), (10, 2), (11, 3), (99, 3)])
    def test_rows_from_a_step_on_are_dropped_by_number(self, step, kept, tmp_path):
        """As text, "10" would come before "9"."""
        table = tmp_path / "log.csv"
        for number in (1, 9, 10):
            append_row(table, {"step": number, "loss": 0.5})
        drop_rows_from(table, step)
        assert [int(row["step"]) for row in read_rows(table)] == [1, 9, 10][:kept]
        append_row(table, {"step": 50, "loss": 0.1})
        assert read_rows(table)[-1] == {"step": "50", "loss": "0.1"}

    def test_dropping_nothing_writes_nothing(self, tmp_path):
        table = tmp_path / "log.csv"
        append_row(table, {"step": 1})
        before = table.stat().st_mtime_ns, table.stat().st_ino
        drop_rows_from(table, 2)
        assert (table.stat().st_mtime_ns, table.stat().st_ino) == before

    def test_no_partial_file_is_left(self, tmp_path):
        table = tmp_path / "log.csv"
        append_row(table, {"step": 1})
        append_row(table, {"step": 2, "loss": 0.5})
        drop_rows_from(table, 2)
        assert list(tmp_path.iterdir()) == [table]

    def test_a_kill_before_the_rename_leaves_the_table_as_it_was(self, tmp_path, monkeypatch):
        table = tmp_path / "log.csv"
        append_row(table, {"step": 1})
        before = table.read_text()

        def killed(*_args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(run_folder_module.os, "replace", killed)
            for rewrite in (lambda: append_row(table, {"step": 2, "loss": 0.5}), lambda: drop_rows_from(table, 1)):
                with pytest.raises(KeyboardInterrupt):
                    rewrite()
                assert table.read_text() == before
        append_row(table, {"step": 2, "loss": 0.5})
        assert list(tmp_path.iterdir()) == [table]
