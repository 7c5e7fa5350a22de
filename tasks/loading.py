"""Loading in several processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator, PartialState


@contextmanager
def first_on_machine(processes: Accelerator | PartialState) -> Iterator[None]:
    """A context in which the first process of each machine loads, and downloads, before the others.

    An error is raised after the context is left, in which the others wait for the process that failed.
    """
    failed = None
    with processes.local_main_process_first():
        try:
            yield
        except Exception as error:
            failed = error
    if failed:
        raise failed
