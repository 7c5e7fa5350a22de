"""The program of a warm parent: it loads once what runs of a script import, and each run is forked from it.

First it loads what the script imports, also in its functions, later what finished runs have imported beyond that. It is
started as a file and imports nothing of this package, so that a run sees the modules that it would see alone.
:mod:`cs_gan.study.forked` has the other end.
"""

from __future__ import annotations

import ast
import atexit
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import CodeType, ModuleType
from typing import Any

LONGEST = 1 << 17  # bytes of a request
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
UNSAFE = ("__main__", "__mp_main__", "torch._inductor")  # the last starts worker processes when it is imported


def main() -> None:
    """Arguments: the descriptor of the control socket, and the script.

    The first message is ``ready``, or why runs can't be forked. Then each request starts a run.
    """
    control, script = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    try:
        with open(script, encoding="utf-8") as file:
            source = file.read()
        code, obstacle = compile(source, os.path.abspath(script), "exec"), load(script, source)
    except BaseException as error:  # also SystemExit. The script itself shall say it, in its own process
        obstacle = f"{type(error).__name__}: {error}"
    control.send((obstacle or "ready").encode())
    if not obstacle and (request := serve(control)):
        become(code, **request)


def load(script: str, source: str) -> str:
    """Import what the script imports, wherever it does. Returns why runs can't be forked from here, or nothing."""
    sys.path[0] = os.path.dirname(os.path.realpath(script))  # as for ``python <script>``
    imports = [line for line in ast.walk(ast.parse(source)) if isinstance(line, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module([*imports], []), script, "exec"), {"__name__": "imports"})
    return settle()


def learn(names: Sequence[str]) -> str:
    """Import what a run has imported. Returns why runs can't be forked any more, or nothing."""
    for name in names:
        if not name.startswith(UNSAFE):
            with suppress(Exception):  # what can't be imported here, a run imports itself
                importlib.import_module(name)
    return settle()


def settle() -> str:
    """Prepare for forks, or say why there can't be any."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return "CUDA doesn't survive a fork"
    if threading.active_count() > 1:
        return "threads don't survive a fork"
    gc.collect()
    gc.freeze()  # a collection in a run would write to, and so copy, all memory that it shares
    return ""


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork runs and report how they end. Returns None when the study is over; in a forked run, its request.

    A run's reply socket gets its process id and, at its end, its exit code. An ended process is kept until the other
    side closes the socket. So its id can't become that of another process while the study may still send signals to it.
    """
    selector, parent, replies, obstacle = selectors.DefaultSelector(), os.getpid(), dict[int, socket.socket](), ""
    lessons, from_run = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    selector.register(control, selectors.EVENT_READ)
    selector.register(lessons, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is control:
                message, descriptors, _, _ = socket.recv_fds(control, LONGEST, 1)
                if not message:
                    return None
                reply = socket.socket(fileno=descriptors[0])
                if obstacle:
                    reply.close()
                    continue
                child = os.fork()
                if child == 0:
                    selector.close()
                    for end in (control, lessons, *replies.values()):
                        end.close()
                    reply.detach()  # stays open: the study sees its end when this process and its parent are gone
                    end_with(parent)
                    atexit.register(teach, from_run, set(sys.modules))
                    request: dict[str, Any] = json.loads(message)
                    return request
                replies[child] = reply
                reply.send(str(child).encode())
                selector.register(os.pidfd_open(child), selectors.EVENT_READ, child)
            elif key.fileobj is lessons:
                obstacle = obstacle or learn(lessons.recv(LONGEST).decode().split())
            elif key.fileobj is replies[key.data]:
                selector.unregister(key.fileobj)
                os.waitpid(key.data, 0)
                replies.pop(key.data).close()
            else:
                selector.unregister(key.fileobj)
                os.close(key.fd)
                ended = os.waitid(os.P_PID, key.data, os.WEXITED | os.WNOWAIT)
                assert ended is not None
                code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
                reply = replies[key.data]
                reply.send(str(code).encode())
                selector.register(reply, selectors.EVENT_READ, key.data)


def teach(parent: socket.socket, known: set[str]) -> None:
    """Tell the parent which modules this run has imported beyond ``known``, in their order."""
    names = [name for name in list(sys.modules) if name not in known]
    if names:
        with suppress(OSError):  # the parent is gone, or the list is too long for it
            parent.send(" ".join(names).encode(), socket.MSG_DONTWAIT)


def end_with(parent: int) -> None:
    """Make Linux send SIGTERM when the parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(143)


def become(code: CodeType, command: list[str], here: str, output: str) -> None:
    """Run the script as ``python <command>`` would, in a session of its own.

    Its code is that of the start, like the modules that it imports: an edit during a study gives no mix of both.
    """
    os.setsid()
    os.chdir(here)
    with open(output, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = command
    module = sys.modules["__main__"] = ModuleType("__main__")
    module.__file__ = code.co_filename
    exec(code, module.__dict__)


if __name__ == "__main__":
    main()
