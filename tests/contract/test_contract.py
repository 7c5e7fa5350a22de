"""Every kind of block through every property, each outcome held against its cell of docs/contract.md."""

import pytest

from tests.contract.kinds import KINDS
from tests.contract.properties import PROPERTIES, compiled_ahead_of_time
from tests.contract.table import COLUMNS, DDP, PATH, REFUSALS, committed, outcome, outcomes_of_two_processes, rendered

CELLS = committed(PATH.read_text())
AGAIN = "if that is meant: python -m tests.contract.table"


@pytest.mark.filterwarnings("ignore")  # torch's own, of deprecated and of compiled modules
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("column", PROPERTIES)
def test_the_cell_of_the_committed_table_is_what_comes_out(name, column):
    assert outcome(PROPERTIES[column], KINDS[name]) == CELLS[name][column], AGAIN


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["Conv2d", "residual, BatchNorm", "spectral norm", "attention, batch first"])
def test_compiled_ahead_of_time_first_gradients_are_those_without(name):
    compiled_ahead_of_time(KINDS[name])


def test_two_processes_give_the_column_of_the_committed_table():
    assert outcomes_of_two_processes() == {name: cells[DDP] for name, cells in CELLS.items()}, AGAIN


def test_the_committed_page_is_what_its_cells_give_today():
    assert {name: list(cells) for name, cells in CELLS.items()} == {name: list(COLUMNS) for name in KINDS}, AGAIN
    assert rendered(CELLS) == PATH.read_text(), AGAIN


def test_every_refusal_that_the_page_explains_is_in_it():
    assert set(REFUSALS) <= {cell for cells in CELLS.values() for cell in cells.values()}


def test_an_outcome_is_not_taken_for_another():
    def fails(_kind):
        raise AssertionError("wrong numbers")

    with pytest.raises(AssertionError, match="wrong numbers"):
        outcome(fails, None)
    assert outcome(lambda _kind: None, None) == "yes"
