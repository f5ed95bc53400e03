"""Parent of the keepers under test: `warden.py DESCRIPTOR`. Starts them and reaps at once whatever is left to it.

An order is one datagram: {"run": [...], "log": path} with the descriptor that becomes the program's number 3, answered
with the pid; {"hold": true} stops reaping, as a bad init would. Standard library only, started with -I -S.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys

_PR_SET_CHILD_SUBREAPER = 36


def run(order: dict[str, object], given: list[int]) -> int:
    """Start a program with its output in the log; its pid."""
    arguments, log = order["run"], order["log"]
    assert isinstance(arguments, list) and isinstance(log, str)
    return os.posix_spawn(
        arguments[0],
        arguments,
        {},
        file_actions=[
            *((os.POSIX_SPAWN_DUP2, number, 3) for number in given),
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def reap() -> None:
    """Take every exit there is."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main(descriptor: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    test = socket.socket(fileno=descriptor)
    heard, hear = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(hear, warn_on_full_buffer=False)
    reaping = True
    while True:
        ready, _, _ = select.select([test.fileno(), heard], [], [])
        if heard in ready:
            os.read(heard, 1 << 16)
        if test.fileno() in ready:
            data, given, _, _ = socket.recv_fds(test, 1 << 16, 1)
            if not data:
                return
            order = json.loads(data)
            reaping = not order.get("hold", not reaping)
            answer = run(order, given) if "run" in order else 0
            for number in given:
                os.close(number)
            test.send(b"%d" % answer)
        if reaping:
            reap()


main(int(sys.argv[1]))
