"""Start and watch the process of one run, on this machine or on a cluster node that sees the same files."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from cs_gan.files import write_text
from cs_gan.study.forked import WarmParent
from cs_gan.study.leash import leashed
from cs_gan.study.lock import STARTER, locked, written
from cs_gan.study.outcome import OUTPUT, read_outcome, record
from cs_gan.study.plan import Run

PAUSE = 0.5  # seconds between checks of the request


class Request:
    """A file that asks all runs of a study to stop, on any machine."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.absolute() / ".stop"

    def make(self, what: str) -> None:
        """Request ``stop``, which lets runs save, or ``kill``."""
        write_text(self._path, what)

    def clear(self) -> None:
        """Take it back."""
        self._path.unlink(missing_ok=True)

    def read(self) -> str:
        """The current request; empty if there is none."""
        try:
            return self._path.read_text()
        except OSError:
            return ""


def environment(threads: int) -> dict[str, str]:
    """The variables of a run with so many threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


def carry_out(run: Run, here: Path, threads: int, request: Request, parent: WarmParent | None = None) -> None:
    """Run it to its end, or until a stop is requested, and record in its folder how it ended.

    A finished run is not repeated. If another process still writes to the folder, this waits for it. A run can be
    executed twice: by a killed study and the next one, or by a node that was believed lost.

    Args:
        run: the run.
        here: the folder that its paths are relative to.
        threads: its number of threads.
        request: checked regularly.
        parent: forks the run. If it is None or can't, a new process is started.
    """
    run = replace(run, folder=here / run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    while not request.read():
        if parent is not None and parent.loading(PAUSE):
            continue
        with locked(run.folder / STARTER) as ours:
            if ours and not written(run.folder):
                if read_outcome(run).status != "done":
                    _run(run, here, threads, request, parent)
                return
        time.sleep(PAUSE)


def _run(run: Run, here: Path, threads: int, request: Request, parent: WarmParent | None) -> None:
    process = RunProcess(run, here, threads, parent)
    try:
        process.wait(request)
    except BaseException:  # a KeyboardInterrupt or SystemExit, with which Ray and Slurm cancel a task
        process.ask("stop")
        process.wait(request)
        raise
    finally:
        process.record()


class RunProcess:
    """The run's process."""

    def __init__(self, run: Run, here: Path, threads: int, parent: WarmParent | None) -> None:
        self._run, self._asked, self._started = run, "", time.monotonic()
        with (run.folder / OUTPUT).open("ab") as output:
            output.write(f"$ {shlex.join(run.command)}\n".encode())
            output.flush()
            self._output_from = output.tell()
            forked = parent.start(run.command[1:], here, run.folder / OUTPUT) if parent is not None else None
            self._process = forked or subprocess.Popen(
                leashed(run.command),
                cwd=here,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(threads),
                start_new_session=True,  # Ctrl-C in the terminal goes to the study, which passes it on once
            )

    def wait(self, request: Request) -> None:
        """Wait until it has ended, and pass on requests."""
        while True:
            try:
                self._process.wait(PAUSE)
                return
            except subprocess.TimeoutExpired:
                self.ask(request.read())

    def ask(self, what: str) -> None:
        """Pass on ``stop`` only once, because a run takes a second signal as a request to end at once; or ``kill``."""
        if what == "stop" and not self._asked:
            self._process.terminate()
        elif what == "kill" and self._asked != "kill":
            os.killpg(self._process.pid, signal.SIGKILL)
        self._asked = what or self._asked

    def record(self) -> None:
        """How it ended. A run killed on the user's request hasn't failed."""
        code = self._process.returncode
        if code is not None:
            code = 143 if self._asked == "kill" and code < 0 else code
            record(self._run, code, time.monotonic() - self._started, self._output_from)
