"""The program of a warm parent: it loads what a script imports once, and each run of the script is forked from it.

It is started as a file and imports nothing of this package, so that a run sees the modules that it would see alone.
:mod:`cs_gan.study.forked` has the other end.
"""

from __future__ import annotations

import ast
import ctypes
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from typing import Any

LONGEST = 1 << 17  # bytes of a request
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def main() -> None:
    """Arguments: the descriptor of the control socket, and the script.

    The first message says whether runs can be forked: empty, or why not. Then each request starts a run.
    """
    control, script = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    obstacle = load(script)
    control.send((obstacle or "ready").encode())
    request = None if obstacle else serve(control)
    if request is not None:
        become(**request)


def load(script: str) -> str:
    """Import what the script imports at its top. Returns why runs can't be forked from here, or nothing."""
    sys.path[0] = os.path.dirname(os.path.realpath(script))  # as for ``python <script>``
    try:
        with open(script, encoding="utf-8") as file:
            statements = ast.parse(file.read()).body
        imports = [statement for statement in statements if isinstance(statement, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module([*imports], []), script, "exec"), {"__name__": "imports"})
    except BaseException as error:  # also SystemExit. The script itself shall say it, in its own process
        return f"{type(error).__name__}: {error}"
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return "CUDA doesn't survive a fork"
    gc.collect()
    gc.freeze()  # a collection in a run would write to, and so copy, all memory that it shares
    return ""


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork runs and report how they end. Returns None when the study is over; in a forked run, its request.

    A run's reply socket gets its process id and, at its end, its exit code. An ended process is kept until the other
    side closes the socket. So its id can't become that of another process while the study may still send signals to it.
    """
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    parent, replies = os.getpid(), dict[int, socket.socket]()
    while True:
        for key, _ in selector.select():
            if key.fileobj is control:
                message, descriptors, _, _ = socket.recv_fds(control, LONGEST, 1)
                if not message:
                    return None
                reply = socket.socket(fileno=descriptors[0])
                child = os.fork()
                if child == 0:
                    selector.close()
                    for end in (control, *replies.values()):
                        end.close()
                    reply.detach()  # stays open: the study sees its end when this process and its parent are gone
                    end_with(parent)
                    request: dict[str, Any] = json.loads(message)
                    return request
                replies[child] = reply
                reply.send(str(child).encode())
                selector.register(os.pidfd_open(child), selectors.EVENT_READ, child)
                continue
            child, reply = key.data, replies[key.data]
            selector.unregister(key.fileobj)
            if key.fileobj is reply:
                os.waitpid(child, 0)
                replies.pop(child).close()
            else:
                os.close(key.fd)
                ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
                assert ended is not None
                code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
                reply.send(str(code).encode())
                selector.register(reply, selectors.EVENT_READ, child)


def end_with(parent: int) -> None:
    """Make Linux send SIGTERM when the parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(143)


def become(command: list[str], here: str, output: str) -> None:
    """Run the script as ``python <command>`` would, in a session of its own."""
    os.setsid()
    os.chdir(here)
    with open(output, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main()
