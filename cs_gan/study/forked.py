"""Runs that are forked from a warm parent, which spares each the start of Python and its imports."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from cs_gan.study import warm_parent
from cs_gan.study.leash import leashed

POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open")


class WarmParent:
    """A process that has imported what a script imports. Start it in a thread that outlives the runs.

    Args:
        script: the script of all runs.
        environment: variables of all runs. The number of threads is among them, because libraries read it when they
            are loaded.
    """

    def __init__(self, script: str, environment: Mapping[str, str]) -> None:
        self._control, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._state = ""  # ready, or why it can't be used; empty as long as it loads
        with other_end:
            self._process = subprocess.Popen(
                leashed([sys.executable, warm_parent.__file__, str(other_end.fileno()), script]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=dict(environment),
                pass_fds=[other_end.fileno()],
                start_new_session=True,
            )

    def loading(self, seconds: float) -> bool:
        """Whether it still loads, after waiting for at most so long."""
        with self._lock:  # the threads of several runs wait for its one message
            if not self._state and _readable(self._control, seconds):
                self._state = self._control.recv(warm_parent.LONGEST).decode() or "it ended"
            return not self._state

    def start(self, command: Sequence[str], here: Path, output: Path) -> ForkedRun | None:
        """Fork a run, which appends to ``output``; None if this can't fork, and a fresh process has to be started."""
        if self.loading(0) or self._state != "ready":
            return None
        reply, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps({"command": list(command), "here": str(here), "output": str(output)}).encode()
        try:
            with other_end:
                socket.send_fds(self._control, [request], [other_end.fileno()])
            process_id = reply.recv(64)
        except OSError:  # it was killed
            process_id = b""
        if process_id:
            return ForkedRun(int(process_id), reply)
        reply.close()
        self._state = "it ended"
        return None

    def close(self) -> None:
        """End it; runs that it has forked get SIGTERM."""
        self._control.close()
        self._process.terminate()
        self._process.wait()


class ForkedRun:
    """A run's process, with what is used of :class:`subprocess.Popen`."""

    def __init__(self, process_id: int, reply: socket.socket) -> None:
        self.pid = process_id
        self.returncode: int | None = None
        self._reply = reply

    def wait(self, timeout: float) -> int:
        """Its exit code. If the warm parent was killed, the run was asked to stop by SIGTERM.

        Raises:
            subprocess.TimeoutExpired: if it still runs after ``timeout`` seconds.
        """
        if self.returncode is None:
            if not _readable(self._reply, timeout):
                raise subprocess.TimeoutExpired("the run", timeout)
            self.returncode = int(self._reply.recv(64) or -signal.SIGTERM)
            self._reply.close()
        return self.returncode

    def terminate(self) -> None:
        """Ask it to save and end."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGTERM)


def _readable(end: socket.socket, seconds: float) -> bool:
    return bool(select.select([end], [], [], seconds)[0])
