"""One run, where it is run: on this machine, or on a node of a cluster that sees the same files."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from cs_gan.sweep.lock import STARTER, locked, written
from cs_gan.sweep.outcome import OUTPUT, read_outcome, record, write_whole
from cs_gan.sweep.plan import Run

PAUSE = 0.5  # seconds between looks at the request
# Linux ends a run, as a SIGTERM would, when what started it is gone however it went. The kernel keeps this over exec.
LEASH = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(143); os.execv(sys.argv[2], sys.argv[2:])"
)


class Request:
    """A file that asks all runs of a sweep to stop, wherever they are."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.absolute() / ".stop"

    def make(self, what: str) -> None:
        """Ask to ``stop``, which lets runs save, or to ``kill``."""
        write_whole(self._path, what)

    def clear(self) -> None:
        """Take it back."""
        self._path.unlink(missing_ok=True)

    def read(self) -> str:
        """What is asked for; nothing where nothing is."""
        try:
            return self._path.read_text()
        except OSError:
            return ""


def carry_out(run: Run, here: Path, threads: int, request: Request) -> None:
    """Run it to its end, or until a stop is asked for, and record in its folder how it ended.

    What is done is not run again, and what another process still writes to is waited for: a run can come here twice,
    from a sweep that was killed and the next one, or from a node that was given up for lost.

    Args:
        run: what.
        here: the folder that its paths are relative to.
        threads: its share of the cores.
        request: looked at now and then.
    """
    run = replace(run, folder=here / run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    while not request.read():
        with locked(run.folder / STARTER) as ours:
            if ours and not written(run.folder):
                if read_outcome(run).status != "done":
                    _run(run, here, threads, request)
                return
        time.sleep(PAUSE)


def _run(run: Run, here: Path, threads: int, request: Request) -> None:
    child = _Child(run, here, threads)
    try:
        child.wait(request)
    except BaseException:  # a KeyboardInterrupt or SystemExit, by which Ray and Slurm take a task back
        child.ask("stop")
        child.wait(request)
        raise
    finally:
        child.record()


class _Child:
    """The run's process."""

    def __init__(self, run: Run, here: Path, threads: int) -> None:
        self._run, self._asked, self._started = run, "", time.monotonic()
        command = run.command
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", LEASH, str(os.getpid()), *command]
        with (run.folder / OUTPUT).open("ab") as output:
            output.write(f"$ {shlex.join(run.command)}\n".encode())
            output.flush()
            self._output_from = output.tell()
            self._process = subprocess.Popen(
                command,
                cwd=here,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # the terminal's Ctrl-C comes to the sweep, which passes it on once
            )

    def wait(self, request: Request) -> None:
        """Until it has ended; what is asked for meanwhile is passed on."""
        while True:
            try:
                self._process.wait(PAUSE)
                return
            except subprocess.TimeoutExpired:
                self.ask(request.read())

    def ask(self, what: str) -> None:
        """To ``stop``, once, since a run takes a second time as a wish not to wait for it; or to ``kill``."""
        if what == "stop" and not self._asked:
            self._process.terminate()
        elif what == "kill" and self._asked != "kill":
            os.killpg(self._process.pid, signal.SIGKILL)
        self._asked = what or self._asked

    def record(self) -> None:
        """How it ended. One that was killed on the user's behalf hasn't failed."""
        code = self._process.returncode
        if code is not None:
            code = 143 if self._asked == "kill" and code < 0 else code
            record(self._run, code, time.monotonic() - self._started, self._output_from)
